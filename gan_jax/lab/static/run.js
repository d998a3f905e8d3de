// The page of a run of images. It reads, and asks again every few seconds.

import {color, fit} from './board.js';

const $ = (selector) => document.querySelector(selector);
const SECONDS = 3;
const MAX_CURVES = 12;

let description = null;
let picked = [0, 1];
let offset = 0;
let rows = [];
let followTime = true;
let followFrame = true;

function notice(text) { $('#notice').textContent = text; }

async function get(path) {
  const answer = await fetch(path);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error ?? 'the request failed');
  return found;
}

// Only the newest request of each kind is shown, and one is sent at a time.
const waiting = {};
async function show(kind, path, done) {
  if (waiting[kind]) {
    waiting[kind].next = [path, done];
    return;
  }
  waiting[kind] = {};
  try {
    const {images} = await get(path);
    done(images);
    notice('');
  } catch (error) {
    notice(error.message === 'Failed to fetch' ? 'The lab does not answer.' : error.message);
  }
  const {next} = waiting[kind];
  waiting[kind] = null;
  if (next) show(kind, ...next);
}

function image(data, alt) {
  const element = document.createElement('img');
  element.src = `data:image/png;base64,${data}`;
  element.alt = alt;
  return element;
}

function query(more = {}) {
  const values = {seed: $('#seed').value || 0, ...more};
  const step = description.checkpoints[$('#time').value]?.step;
  if (step != null) values.step = step;
  if (!$('#truncation-box').hidden && $('#truncation').value < 3) values.truncation = $('#truncation').value;
  if ($('#label').value !== '') values.label = $('#label').value;
  return new URLSearchParams(values);
}

function refresh() {
  if (!description.checkpoints.length) {
    notice('The run has no checkpoint yet. The page waits for the first.');
    return;
  }
  show('grid', `images/grid?${query({n: 24})}`, (images) => {
    $('#grid').replaceChildren(...images.map((data, i) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.className = 'pick';
      button.append(image(data, `sample ${i}`));
      button.setAttribute('aria-pressed', picked.includes(i));
      button.onclick = () => {
        picked = [picked[1], i];
        for (const [j, each] of [...$('#grid').children].entries()) {
          each.setAttribute('aria-pressed', picked.includes(j));
        }
        walk();
        move();
      };
      return button;
    }));
  });
  walk();
  move();
}

function walk() {
  const [a, b] = picked;
  show('walk', `images/walk?${query({a, b, count: 9})}`, (images) => {
    $('#walk').replaceChildren(...images.map((data, i) => image(data, `step ${i + 1} of 9`)));
  });
}

function move() {
  if (!description.latents) return;
  const moves = [...document.querySelectorAll('#sliders input')].map((input, i) => [`d${i}`, input.value]);
  show('move', `images/move?${query({a: picked[0], ...Object.fromEntries(moves)})}`, ([data]) => {
    const shown = image(data, 'the moved sample');
    shown.width = 160;
    $('#moved').replaceChildren(shown);
  });
}

function showTime() {
  const found = description.checkpoints[$('#time').value];
  const text = found ? `${found.images.toLocaleString('en')} images` : 'none yet';
  $('#time-text').textContent = text;
  $('#time').setAttribute('aria-valuetext', text);
}

function showFrame() {
  const name = description.samples[$('#frame').value];
  $('#frame-text').textContent = name ?? 'none yet';
  $('#frame').setAttribute('aria-valuetext', name ?? 'none yet');
  if (!name) return;
  $('#samples').src = `samples/${encodeURIComponent(name)}`;
  $('#samples').alt = `Sample grid ${name}`;
}

// Curves: a small plot for each logged value.

function drawCurves() {
  const names = [...new Set(rows.flatMap(Object.keys))].filter(
    (name) => !['step', 'images', 'images_per_second', 'stage', 'resolution'].includes(name));
  const first = ['gen/loss', 'disc/loss', 'disc/real_accuracy', 'disc/fake_accuracy', 'gen/diversity'];
  const rank = (name) => {
    if (name.startsWith('eval/')) return 0;
    return first.includes(name) ? 1 + first.indexOf(name) : 99;
  };
  names.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  for (const name of names.slice(0, MAX_CURVES)) {
    const points = rows.filter((row) => typeof row[name] === 'number').map((row) => [row.images, row[name]]);
    if (!points.length) continue;
    let box = document.querySelector(`[data-curve="${CSS.escape(name)}"]`);
    if (!box) {
      box = document.createElement('div');
      box.className = 'curve';
      box.dataset.curve = name;
      const canvas = document.createElement('canvas');
      canvas.setAttribute('role', 'img');
      box.append(document.createElement('h2'), canvas);
      $('#curves').append(box);
    }
    const [, last] = points.at(-1);
    box.firstChild.textContent = `${name}: ${Number(last.toPrecision(4))}`;
    box.lastChild.setAttribute('aria-label', `${name}: ${points.length} values, the last is ${Number(last.toPrecision(4))}`);
    const {context, width, height, scale} = fit(box.lastChild);
    const values = points.map(([, value]) => value);
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (low === high) [low, high] = [low - 1, high + 1];
    const end = Math.max(points.at(-1)[0], 1);
    context.beginPath();
    points.forEach(([images, value], i) => context[i ? 'lineTo' : 'moveTo'](
      (images / end) * width, 4 * scale + (1 - (value - low) / (high - low)) * (height - 8 * scale)));
    context.strokeStyle = color('accent');
    context.lineWidth = 1.5 * scale;
    context.stroke();
    context.fillStyle = color('soft');
    context.font = `${11 * scale}px system-ui, sans-serif`;
    context.fillText(Number(high.toPrecision(3)), 0, 12 * scale);
    context.fillText(Number(low.toPrecision(3)), 0, height - 3 * scale);
  }
}

async function update() {
  try {
    const before = description?.checkpoints.length ?? -1;
    description = await get('describe');
    $('#title').textContent = `${description.workdir} · ${description.source}, ${description.resolution}x${description.resolution}`;
    $('#truncation-box').hidden = !description.truncation;
    $('#label-box').hidden = !description.classes;
    while ($('#label').length <= description.classes && description.classes) {
      $('#label').append(new Option($('#label').length - 1, $('#label').length - 1));
    }
    while ($('#sliders').children.length < description.sliders && description.latents) addSlider();
    const last = Math.max(0, description.checkpoints.length - 1);
    $('#time').max = last;
    if (followTime) $('#time').value = last;
    showTime();
    if (description.checkpoints.length !== before && (followTime || before < 1)) refresh();
    $('#frame').max = Math.max(0, description.samples.length - 1);
    if (followFrame) $('#frame').value = $('#frame').max;
    showFrame();
    const more = await get(`metrics?offset=${offset}`);
    if (more.offset < offset) rows = [];
    offset = more.offset;
    if (more.rows.length) {
      rows.push(...more.rows);
      drawCurves();
    }
    const images = rows.at(-1)?.images ?? 0;
    $('#progress').textContent = `${images.toLocaleString('en')} of ${description.total_images.toLocaleString('en')} images`;
    if ($('#notice').textContent === 'The lab does not answer.') notice('');
    document.body.dataset.rows = rows.length;
  } catch (error) {
    notice(error.message === 'Failed to fetch' ? 'The lab does not answer.' : error.message);
  }
  setTimeout(update, 1000 * SECONDS);
}

function addSlider() {
  const number = $('#sliders').children.length;
  const box = document.createElement('div');
  box.className = 'control';
  const name = document.createElement('label');
  name.textContent = `Direction ${number + 1}`;
  const input = document.createElement('input');
  Object.assign(input, {type: 'range', min: -4, max: 4, step: 0.1, value: 0, id: `slider-${number}`});
  name.htmlFor = input.id;
  input.oninput = move;
  box.append(name, input);
  $('#sliders').append(box);
}

$('#time').oninput = () => {
  followTime = $('#time').value === $('#time').max;
  showTime();
  refresh();
};
$('#frame').oninput = () => {
  followFrame = $('#frame').value === $('#frame').max;
  showFrame();
};
$('#truncation').oninput = () => {
  const off = $('#truncation').value >= 3;
  $('#truncation-text').textContent = off ? 'off' : $('#truncation').value;
  refresh();
};
$('#truncation-text').textContent = 'off';
$('#label').onchange = refresh;
$('#seed').onchange = refresh;
$('#more').onclick = () => {
  $('#seed').value = Number($('#seed').value || 0) + 1;
  refresh();
};
$('#center').onclick = () => {
  for (const input of document.querySelectorAll('#sliders input')) input.value = 0;
  move();
};
$('#nearest').onclick = () => {
  $('#neighbors').textContent = 'Searching …';
  show('nearest', `images/nearest?${query({n: 6, k: 5})}`, (images) => {
    $('#neighbors').replaceChildren(...images.map((data) => image(data, 'samples beside their nearest training images')));
  });
};
new ResizeObserver(drawCurves).observe($('#curves'));
update();
