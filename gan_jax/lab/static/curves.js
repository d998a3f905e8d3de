// The curves of a run: losses, accuracies, distances, modes, gradient norms.

import {color, fit} from './board.js';

const PLOTS = [
  {title: 'Losses', lines: [['disc_loss', 'D', 'disc'], ['gen_loss', 'G', 'fake']], optimum: true},
  {title: "D's accuracy", lines: [['real_accuracy', 'reals', 'real'], ['fake_accuracy', 'fakes', 'fake']], low: 0, high: 1},
  {title: 'Distances', lines: [['js', 'JS', 'text'], ['kl', 'KL', 'soft'], ['wasserstein', 'Wasserstein', 'fake']], low: 0},
  {title: 'Modes found', lines: [['modes', 'modes', 'fake']], low: 0, modes: true},
  {title: 'Gradient norms', lines: [['disc_grad_norm', 'D', 'disc'], ['gen_grad_norm', 'G', 'fake']], log: true},
];

export class Curves {
  constructor(parent) {
    this.scenes = {};
    this.plots = PLOTS.map((plot) => {
      const box = document.createElement('div');
      box.className = 'curve';
      const heading = document.createElement('h2');
      heading.textContent = plot.title;
      for (const [, label, tone] of plot.lines) {
        const key = document.createElement('span');
        const dot = document.createElement('span');
        dot.className = 'key';
        dot.style.background = `var(--${tone})`;
        key.append(dot, label);
        heading.append(key);
      }
      const canvas = document.createElement('canvas');
      canvas.setAttribute('role', 'img');
      box.append(heading, canvas);
      parent.append(box);
      return {...plot, canvas, box};
    });
    new ResizeObserver(() => this.draw()).observe(parent);
  }

  draw(scenes) {
    this.scenes = scenes ?? this.scenes;
    const games = Object.values(this.scenes);
    if (!games.length) return;
    for (const plot of this.plots) {
      plot.box.hidden = plot.modes ? !games.some((game) => game.num_modes)
        : plot.lines.every(([name]) => !games.some(
          (game) => game.history.some((row) => row[name] != null)));
      if (!plot.box.hidden && plot.canvas.clientWidth) this.drawPlot(plot, games);
    }
  }

  drawPlot(plot, games) {
    const {context, width, height, scale} = fit(plot.canvas);
    const transform = plot.log ? (v) => Math.log10(Math.max(v, 1e-8)) : (v) => v;
    let [low, high, last] = [Infinity, -Infinity, 1];
    for (const game of games) {
      for (const row of game.history) {
        last = Math.max(last, row.step);
        for (const [name] of plot.lines) {
          if (row[name] == null) continue;
          const value = transform(row[name]);
          low = Math.min(low, value);
          high = Math.max(high, value);
        }
      }
    }
    const marks = plot.optimum ? Object.entries(games[0].optimum) : [];
    for (const [, value] of marks) {
      low = Math.min(low, value - 0.1);
      high = Math.max(high, value + 0.1);
    }
    if (plot.low != null && !plot.log) low = plot.low;
    if (plot.modes) high = games[0].num_modes;
    if (plot.high != null) high = plot.high;
    if (!(high > low)) [low, high] = [low - 1, low + 1];
    if (!Number.isFinite(low)) return;
    const left = 38 * scale;
    const x = (step) => left + (step / last) * (width - left - 4 * scale);
    const y = (value) => height - 4 * scale -
      ((value - low) / (high - low)) * (height - 12 * scale);
    context.font = `${11 * scale}px system-ui, sans-serif`;
    context.fillStyle = color('soft');
    const text = (v) => (plot.log ? `1e${v.toFixed(0)}` : Number(v.toPrecision(2)).toString());
    context.fillText(text(high), 0, 12 * scale);
    context.fillText(text(low), 0, height - 3 * scale);
    context.strokeStyle = color('line');
    context.lineWidth = scale;
    context.strokeRect(left, 4 * scale, width - left - 4 * scale, height - 8 * scale);
    context.setLineDash([4 * scale, 4 * scale]);
    for (const [player, value] of marks) {
      context.beginPath();
      context.moveTo(left, y(value));
      context.lineTo(width, y(value));
      context.strokeStyle = color(player === 'disc' ? 'disc' : 'fake');
      context.stroke();
      context.fillStyle = context.strokeStyle;
      const name = {1.386: 'log 4', 0.693: 'log 2', '-0.693': '−log 2'}[value.toFixed(3)] ?? '';
      // D's mark is never below G's, so their names do not meet.
      const shift = player === 'disc' ? -2 : 11;
      context.fillText(name, width - 42 * scale, y(value) + shift * scale);
    }
    games.forEach((game, index) => {
      context.setLineDash(index ? [2 * scale, 3 * scale] : []);
      for (const [name, , tone] of plot.lines) {
        context.beginPath();
        let started = false;
        for (const row of game.history) {
          if (row[name] == null) continue;
          context[started ? 'lineTo' : 'moveTo'](x(row.step), y(transform(row[name])));
          started = true;
        }
        context.strokeStyle = color(tone);
        context.lineWidth = 1.4 * scale;
        context.stroke();
      }
    });
    context.setLineDash([]);
    const row = games[0].history.at(-1) ?? {};
    const values = plot.lines.filter(([name]) => row[name] != null)
      .map(([name, label]) => `${label} ${Number(row[name].toPrecision(3))}`);
    plot.canvas.setAttribute('aria-label', `${plot.title}: ${values.join(', ') || 'no values yet'}`);
  }
}
