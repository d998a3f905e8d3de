// Draws one game on a canvas, in layers.

// The length of an arrow for a gradient of norm 1, and the longest arrow, as
// shares of the limit of the plot. They are the same in all frames.
const ARROW = 0.25;
const LONGEST = 0.35;
const DARK = matchMedia('(prefers-color-scheme: dark)');

// The colours of the style sheet, by name.
export function color(name) {
  return getComputedStyle(document.documentElement)
    .getPropertyValue(`--${name}`).trim();
}

// Fits the pixels of a canvas to its size on the screen.
export function fit(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * scale));
  const height = Math.max(1, Math.round(canvas.clientHeight * scale));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext('2d');
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  return {context, width, height, scale};
}

// The colour of D's answer: orange is fake (0), blue is real (1).
function mapColor(value) {
  const t = Math.max(-1, Math.min(1, 2 * value - 1));
  const base = DARK.matches ? [34, 37, 43] : [250, 250, 250];
  const end = t > 0
    ? (DARK.matches ? [28, 76, 122] : [150, 196, 235])
    : (DARK.matches ? [122, 62, 16] : [250, 190, 140]);
  const a = Math.abs(t);
  return base.map((x, i) => Math.round(x + a * (end[i] - x)));
}

export class Board {
  constructor(canvas) {
    this.canvas = canvas;
    this.small = document.createElement('canvas');
    this.scene = null;
    this.frame = null;
    new ResizeObserver(() => this.draw()).observe(canvas);
    DARK.addEventListener('change', () => this.draw());
  }

  show(layers, scene, frame) {
    this.layers = layers;
    this.scene = scene;
    this.frame = frame;
    this.draw();
  }

  draw() {
    if (!this.scene || !this.frame) return;
    if (this.canvas.clientWidth === 0) return;
    Object.assign(this, fit(this.canvas));
    if (this.scene.dim === 1) this.draw1d();
    else this.draw2d();
  }

  // 2-D.

  x(value) { return (0.5 + value / (2 * this.scene.limit)) * this.width; }
  y(value) { return (0.5 - value / (2 * this.scene.limit)) * this.height; }

  draw2d() {
    const {header, arrays} = this.frame;
    const {layers} = this;
    if (layers.map) this.drawMap(arrays.map);
    if (layers.line && !this.scene.critic) this.drawDecision(arrays.map);
    if (layers.grid && arrays.lines) this.drawGrid(arrays.lines);
    if (layers.real) {
      this.points(this.scene.real.flat(), color('real'), 2.4, 0.7);
    }
    if (header.kind && header.kind !== 'gen') this.drawStep(header, arrays);
    else {
      if (layers.fake) this.points(arrays.fake.data, color('fake'), 1.7, 0.85);
      if (layers.forces) this.arrows(arrays.fake.data, arrays.forces.data);
    }
  }

  // The parts of one iteration, in slow motion.
  drawStep(header, arrays) {
    const real = arrays.batch_real.data;
    const fake = arrays.batch_fake.data;
    const answers = header.kind === 'answers';
    for (const [points, scores, name] of [
      [real, arrays.real_scores.data, 'real'],
      [fake, arrays.fake_scores.data, 'fake'],
    ]) {
      for (let i = 0; i < scores.length; i++) {
        const fill = answers
          ? (scores[i] > 0.5 ? color('real') : color('fake')) : color(name);
        this.dot(points[2 * i], points[2 * i + 1], fill, 3.4, color(name));
      }
    }
    if (header.kind === 'forces') this.arrows(fake, arrays.batch_forces.data);
  }

  drawMap({data}) {
    const side = Math.round(Math.sqrt(data.length));
    this.small.width = this.small.height = side;
    const context = this.small.getContext('2d');
    const image = context.createImageData(side, side);
    for (let row = 0; row < side; row++) {
      for (let column = 0; column < side; column++) {
        const at = 4 * ((side - 1 - row) * side + column);
        const rgb = mapColor(data[row * side + column]);
        image.data.set([...rgb, 255], at);
      }
    }
    context.putImageData(image, 0, 0);
    this.context.imageSmoothingEnabled = true;
    this.context.drawImage(this.small, 0, 0, this.width, this.height);
  }

  // The line where D answers 1/2: marching squares over the map.
  drawDecision({data}) {
    const side = Math.round(Math.sqrt(data.length));
    const {context} = this;
    const at = (row, column) => data[row * side + column] - 0.5;
    const place = (row, column) => [
      (column / (side - 1)) * this.width,
      (1 - row / (side - 1)) * this.height,
    ];
    context.beginPath();
    for (let row = 0; row < side - 1; row++) {
      for (let column = 0; column < side - 1; column++) {
        const corners = [
          [row, column], [row, column + 1],
          [row + 1, column + 1], [row + 1, column],
        ];
        const crossings = [];
        for (let i = 0; i < 4; i++) {
          const [a, b] = [corners[i], corners[(i + 1) % 4]];
          const [u, v] = [at(...a), at(...b)];
          if ((u > 0) !== (v > 0)) {
            const t = u / (u - v);
            crossings.push(place(
              a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])));
          }
        }
        for (let i = 0; i + 1 < crossings.length; i += 2) {
          context.moveTo(...crossings[i]);
          context.lineTo(...crossings[i + 1]);
        }
      }
    }
    context.strokeStyle = color('disc');
    context.lineWidth = 1.6 * this.scale;
    context.stroke();
  }

  drawGrid({data, shape}) {
    const [lines, points] = shape;
    const {context} = this;
    context.beginPath();
    for (let line = 0; line < lines; line++) {
      for (let i = 0; i < points; i++) {
        const at = 2 * (line * points + i);
        const go = i ? 'lineTo' : 'moveTo';
        context[go](this.x(data[at]), this.y(data[at + 1]));
      }
    }
    context.strokeStyle = color('fake');
    context.globalAlpha = 0.5;
    context.lineWidth = this.scale;
    context.stroke();
    context.globalAlpha = 1;
  }

  dot(x, y, fill, radius, stroke) {
    const {context} = this;
    context.beginPath();
    context.arc(this.x(x), this.y(y), radius * this.scale, 0, 7);
    context.fillStyle = fill;
    context.fill();
    context.strokeStyle = stroke;
    context.lineWidth = 1.5 * this.scale;
    context.stroke();
  }

  points(data, fill, radius, alpha) {
    const {context} = this;
    const size = 2 * radius * this.scale;
    context.fillStyle = fill;
    context.globalAlpha = alpha;
    for (let i = 0; i < data.length; i += 2) {
      context.fillRect(
        this.x(data[i]) - size / 2, this.y(data[i + 1]) - size / 2, size, size);
    }
    context.globalAlpha = 1;
  }

  arrows(points, forces) {
    const {context, scale} = this;
    const unit = this.width / 2;
    context.beginPath();
    for (let i = 0; i < forces.length; i += 2) {
      const norm = Math.hypot(forces[i], forces[i + 1]);
      const length = Math.min(ARROW * norm, LONGEST) * unit;
      if (!(length > 1)) continue;
      const [dx, dy] = [forces[i] / norm, -forces[i + 1] / norm];
      const [x, y] = [this.x(points[i]), this.y(points[i + 1])];
      const [u, v] = [x + length * dx, y + length * dy];
      const head = Math.min(5 * scale, length / 2);
      context.moveTo(x, y);
      context.lineTo(u, v);
      context.moveTo(u - head * (dx - 0.5 * dy), v - head * (dy + 0.5 * dx));
      context.lineTo(u, v);
      context.lineTo(u - head * (dx + 0.5 * dy), v - head * (dy - 0.5 * dx));
    }
    context.strokeStyle = color('text');
    context.globalAlpha = 0.75;
    context.lineWidth = scale;
    context.stroke();
    context.globalAlpha = 1;
  }

  // 1-D: densities and D's curve above, the map from noise to points below.

  draw1d() {
    const {header, arrays} = this.frame;
    const {layers, context, scale} = this;
    const base = 0.7 * this.height;
    const top = 0.06 * this.height;
    let highest = 0.2;
    for (const name of ['p', 'q']) {
      for (const value of arrays[name].data) highest = Math.max(highest, value);
    }
    const curve = (data, most, options) => {
      context.beginPath();
      for (let i = 0; i < data.length; i++) {
        const x = (i / (data.length - 1)) * this.width;
        const y = base - (data[i] / most) * (base - top);
        context[i ? 'lineTo' : 'moveTo'](x, y);
      }
      context.setLineDash(options.dash ?? []);
      context.strokeStyle = options.color;
      context.lineWidth = 2 * scale;
      context.stroke();
      context.setLineDash([]);
      if (options.filled) {
        context.lineTo(this.width, base);
        context.lineTo(0, base);
        context.globalAlpha = 0.18;
        context.fillStyle = options.color;
        context.fill();
        context.globalAlpha = 1;
      }
    };
    const real = color('real');
    const fake = color('fake');
    if (layers.real) curve(arrays.p.data, highest, {color: real, filled: true});
    if (layers.fake) curve(arrays.q.data, highest, {color: fake, filled: true});
    if (layers.map) curve(arrays.map.data, 1, {color: color('disc')});
    if (layers.line && this.scene.probability) {
      curve(arrays.optimal.data, 1, {color: color('disc'), dash: [6 * scale, 5 * scale]});
    }
    this.axis1d(base, top);
    if (layers.grid && arrays.lines) this.mapping1d(arrays.lines, base);
    if (layers.forces) {
      const slow = header.kind === 'forces';
      this.forces1d(
        slow ? arrays.batch_fake.data : arrays.fake.data,
        slow ? arrays.batch_forces.data : arrays.forces.data, base);
    }
  }

  axis1d(base, top) {
    const {context, scale} = this;
    context.strokeStyle = color('line');
    context.fillStyle = color('soft');
    context.font = `${12 * scale}px system-ui, sans-serif`;
    context.lineWidth = scale;
    context.beginPath();
    context.moveTo(0, base);
    context.lineTo(this.width, base);
    if (this.scene.probability) {
      context.moveTo(0, (base + top) / 2);
      context.lineTo(this.width, (base + top) / 2);
    }
    context.stroke();
    if (this.scene.probability) {
      context.fillText('D = 1', 4 * scale, top + 12 * scale);
      context.fillText('D = 1/2', 4 * scale, (base + top) / 2 - 4 * scale);
    }
  }

  mapping1d({data}, base) {
    const {context} = this;
    const from = 0.97 * this.height;
    const to = base + 0.1 * this.height;
    context.beginPath();
    for (let i = 0; i < data.length; i++) {
      context.moveTo(((i + 0.5) / data.length) * this.width, from);
      context.lineTo(this.x(data[i]), to);
    }
    context.strokeStyle = color('fake');
    context.globalAlpha = 0.6;
    context.lineWidth = this.scale;
    context.stroke();
    context.globalAlpha = 1;
    context.fillStyle = color('soft');
    context.fillText('z', 4 * this.scale, from);
    context.fillText('G(z)', 4 * this.scale, to);
  }

  forces1d(points, forces, base) {
    const {context, scale} = this;
    const y = base + 0.05 * this.height;
    context.beginPath();
    for (let i = 0; i < forces.length; i++) {
      const size = Math.min(ARROW * Math.abs(forces[i]), LONGEST);
      const length = Math.sign(forces[i]) * size * (this.width / 2);
      const x = this.x(points[i]);
      const h = y + ((i % 9) - 4) * 2 * scale;
      context.moveTo(x, h);
      context.lineTo(x + length, h);
      context.lineTo(x + length - Math.sign(length) * 3 * scale, h - 2 * scale);
    }
    context.strokeStyle = color('text');
    context.globalAlpha = 0.6;
    context.lineWidth = scale;
    context.stroke();
    context.globalAlpha = 1;
  }
}
