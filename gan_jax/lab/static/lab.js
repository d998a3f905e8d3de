// The page of the lab: connects the controls, the boards and the server.

import {Board} from './board.js';
import {Connection} from './connection.js';
import {Controls, fullLabel, makeInput} from './controls.js';
import {Curves} from './curves.js';
import {setUpDrawing} from './drawing.js';

const $ = (selector) => document.querySelector(selector);
const description = await (await fetch('describe')).json();

const boards = {a: new Board($('#board-a canvas')), b: new Board($('#board-b canvas'))};
const curves = new Curves($('#curves'));
const layers = {};
const scenes = {};
const frames = {};
let settings = null;
let compared = null;
let status = {};
let story = null;
let wanted = {};  // changes that are not yet sent
let sending = null;
let restore = true;  // whether the address decides, after a connection
let drawnNumber = -1;

function notice(text) {
  $('#notice').textContent = text;
}

const connection = new Connection({
  message: (message) => handlers[message.type]?.(message),
  frame: receive,
  state: (state) => {
    document.body.dataset.connection = state;
    if (state === 'open') {
      notice('');
      restore = true;
    } else if (state === 'taken') {
      notice('Another tab has taken over this game. Reload to take it back.');
    } else {
      notice('The connection to the lab is lost. The page connects again by itself.');
    }
  },
});

// Settings are sent at most 20 times a second.
function change(key, value) {
  wanted[key] = value;
  sending ??= setTimeout(() => {
    connection.send({do: 'set', settings: wanted});
    wanted = {};
    sending = null;
  }, 50);
}

// The address holds the settings that differ from the defaults.
const defaults = {'data.source': 'toy:ring'};
for (const control of description.controls) defaults[control.key] = control.default;
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

function configuration() {
  const changed = Object.entries(settings).filter(([key, value]) => !same(value, defaults[key]));
  return {settings: Object.fromEntries(changed), ...(compared && {compare: compared}), ...(story && {story})};
}

function readAddress() {
  try {
    return JSON.parse(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return null;
  }
}

function writeAddress() {
  const text = encodeURIComponent(JSON.stringify(configuration()));
  history.replaceState(null, '', `#${text}`);
}

const handlers = {
  settings(message) {
    settings = message.settings;
    compared = message.compare;
    const address = readAddress();
    if (restore && address?.settings) {
      restore = false;
      showStory(address.story);
      const here = configuration();
      if (!same(address, here)) {
        connection.send({do: 'load', settings: address.settings, compare: address.compare ?? null});
        return;
      }
    }
    if (restore && !address) showStory(description.story);
    restore = false;
    controls.set(settings, new Set(Object.keys(wanted)));
    for (const button of document.querySelectorAll('#sources button')) {
      button.setAttribute('aria-pressed', button.dataset.source === settings['data.source']);
    }
    $('#compare-start').hidden = Boolean(compared);
    $('#compare-stop').hidden = !compared;
    const [key, value] = Object.entries(compared ?? {})[0] ?? [];
    $('#board-b figcaption').textContent = key ? `Second game: ${fullLabel(key)} = ${value}` : '';
    $('#board-a figcaption').textContent = key ? `First game: ${fullLabel(key)} = ${settings[key]}` : 'Game';
    writeAddress();
  },
  status(message) {
    status = {...status, ...message};
    $('#play').textContent = status.playing ? 'Pause' : 'Play';
    $('#only').value = status.only;
    $('#speed').value = status.speed;
    $('#slow').setAttribute('aria-pressed', status.slow);
    document.body.dataset.compiling = status.compiling;
    if (!status.slow) $('#caption').textContent = '';
    showStatus();
  },
  scene(message) {
    if (message.game === 'a') {
      for (const name of Object.keys(scenes)) {
        if (!message.games.includes(name)) delete scenes[name];
      }
      for (const name of Object.keys(frames)) {
        if (!message.games.includes(name) || scenes[name]?.dim !== message.dim) delete frames[name];
      }
      const two = message.games.length > 1;
      $('#board-b').hidden = !two;
      $('#boards').classList.toggle('two', two);
    }
    scenes[message.game] = message;
    $('#legend').textContent = legend(message);
    curves.draw(scenes);
  },
  restarted() {
    for (const scene of Object.values(scenes)) scene.history = [];
    $('#summary').textContent = '';
    $('#board-a canvas').setAttribute('aria-label', 'The game');
    showAdvice([]);
  },
  advice(message) {
    $('#summary').textContent = message.summary;
    $('#board-a canvas').setAttribute('aria-label', `The game. ${message.summary}`);
    showAdvice(message.items);
  },
  error(message) { notice(message.text); },
  note(message) { notice(message.text); setTimeout(() => { if ($('#notice').textContent === message.text) notice(''); }, 4000); },
  saved(message) {
    $('#saved-command').textContent = message.command;
    $('#saved-text').textContent = message.text;
    $('#saved').showModal();
  },
};

// What the layers mean; they are not the same in 1-D and for a critic.
function legend(scene) {
  const answer = scene.critic
    ? 'the critic\'s value: blue is high, orange is low'
    : 'D\'s answer: blue is real, orange is fake, pale is undecided';
  const arrows = 'Arrows: where G\'s loss falls fastest, for each fake.';
  if (scene.dim === 2) {
    const line = scene.critic ? '' : ' Purple line: undecided.';
    return `Map: ${answer}.${line} ${arrows}`;
  }
  const best = scene.probability ? ' Dashed: the best D, p / (p + q).' : '';
  return `Filled: the densities p of reals and q of fakes. Purple: D\'s answer.${best} ${arrows}`;
}

function showStatus() {
  if (!frames.a) {
    $('#status').textContent = 'Compiling the game: this takes some seconds …';
    return;
  }
  const {step} = frames.a.header.row;
  const parts = [`Iteration ${step.toLocaleString('en')}`];
  if (!step && !status.playing && !status.slow) parts.push('press Play to train');
  if (status.compiling) parts.push('compiling …');
  else if (status.playing && status.iterations_per_second) {
    parts.push(`${status.iterations_per_second} iterations/s`, `${status.frames_per_second} frames/s`);
  }
  $('#status').textContent = parts.join(' · ');
}

let shownAdvice = '';
function showAdvice(items) {
  const text = JSON.stringify(items);
  if (text === shownAdvice) return;
  shownAdvice = text;
  const several = new Set(items.map(({game}) => game)).size > 1 || compared;
  $('#advice').replaceChildren(...items.map((item) => {
    const box = document.createElement('div');
    box.className = 'warning';
    const paragraph = document.createElement('p');
    const which = several ? (item.game === 'a' ? 'First game: ' : 'Second game: ') : '';
    paragraph.textContent = which + item.text;
    const row = document.createElement('div');
    row.className = 'row';
    for (const {label, settings: tried} of item.tries) {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = `Try: ${label}`;
      button.onclick = () => connection.send({do: 'set', settings: tried});
      row.append(button);
    }
    box.append(paragraph, row);
    return box;
  }));
}

// A frame is drawn with the screen's next refresh, and then acknowledged: a
// slow page makes training wait instead of growing a queue.
const arrived = [];
let scheduled = false;
function receive(frame) {
  arrived.push(frame);
  if (!scheduled) {
    scheduled = true;
    requestAnimationFrame(drawArrived);
  }
}

let curvesDue = 0;
function drawArrived() {
  scheduled = false;
  let newest = -1;
  for (const {header, arrays} of arrived.splice(0)) {
    const {game, row, number} = header;
    frames[game] = {header, arrays};
    newest = Math.max(newest, number);
    const scene = scenes[game];
    if (scene && !header.kind || header.kind === 'gen') {
      const {history} = scene;
      while (history.length && history.at(-1).step >= row.step) history.pop();
      history.push(row);
      if (history.length > 2400) scene.history = history.filter((_, i) => i % 2);
    }
    if (header.text) $('#caption').textContent = header.text;
  }
  for (const [name, board] of Object.entries(boards)) {
    if (scenes[name] && frames[name]) board.show(layers, scenes[name], frames[name]);
  }
  const now = performance.now();
  if (now > curvesDue || !status.playing) {
    curvesDue = now + 250;
    curves.draw(scenes);
  }
  showStatus();
  document.body.dataset.step = frames.a?.header.row.step ?? 0;
  document.body.dataset.frames = Number(document.body.dataset.frames ?? 0) + 1;
  connection.send({do: 'ack', number: newest + 1});
}

// Controls.

const controls = new Controls($('#controls'), description.controls, change);

for (const {source, dim} of description.sources) {
  const button = document.createElement('button');
  button.type = 'button';
  button.dataset.source = source;
  button.textContent = source.split(':')[1].replaceAll('_', ' ') + (dim === 1 ? ' (1-D)' : '');
  button.onclick = () => change('data.source', source);
  $('#sources').append(button);
}
for (const speed of description.speeds) $('#speed').append(new Option(`${speed} per frame`, speed));
for (const preset of description.presets) $('#preset').append(new Option(preset.title, preset.name));
for (const control of description.controls) {
  if (control.key !== 'seed') $('#compare-key').append(new Option(fullLabel(control.key), control.key));
}

function showStory(name) {
  const preset = description.presets.find((each) => each.name === name);
  story = preset?.name ?? null;
  $('#preset').value = story ?? '';
  $('#story').hidden = !preset;
  if (preset) {
    $('#story h2').textContent = preset.title;
    $('#story p').textContent = preset.story;
  }
}

$('#preset').onchange = () => {
  showStory($('#preset').value);
  if (story) connection.send({do: 'preset', name: story});
};
$('#play').onclick = () => connection.send({do: status.playing ? 'pause' : 'play'});
$('#step').onclick = () => connection.send({do: 'step'});
$('#slow').onclick = () => connection.send({do: 'slow'});
$('#reset').onclick = () => connection.send({do: 'reset'});
$('#save').onclick = () => connection.send({do: 'save'});
$('#only').onchange = () => connection.send({do: 'only', player: $('#only').value});
$('#speed').onchange = () => connection.send({do: 'speed', value: Number($('#speed').value)});
$('#saved-close').onclick = () => $('#saved').close();
$('#share').onclick = async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    notice('The link is copied. In another lab, add its part from # to the address.');
  } catch {
    notice('Copy the address of this page: it holds all settings.');
  }
};
for (const box of document.querySelectorAll('[data-layer]')) {
  layers[box.dataset.layer] = box.checked;
  box.onchange = () => {
    layers[box.dataset.layer] = box.checked;
    for (const board of Object.values(boards)) board.draw();
  };
}

let compareInput = null;
$('#compare-key').onchange = () => {
  const control = description.controls.find(({key}) => key === $('#compare-key').value);
  compareInput = makeInput(control, () => {});
  compareInput.input?.setAttribute('aria-label', 'value in the second game');
  compareInput.set(settings?.[control.key] ?? control.default);
  $('#compare-value').replaceChildren(compareInput.element, ...(compareInput.output ? [compareInput.output] : []));
};
$('#compare-key').onchange();
$('#compare-start').onclick = () => connection.send({
  do: 'compare', settings: {[$('#compare-key').value]: compareInput.get()},
});
$('#compare-stop').onclick = () => connection.send({do: 'compare', settings: null});

async function upload(body) {
  const answer = await fetch('upload', {method: 'POST', body});
  const {source, error} = await answer.json();
  if (source) change('data.source', source);
  else notice(error);
}
setUpDrawing(upload);
$('#upload').onchange = () => {
  const [file] = $('#upload').files;
  if (file) upload(file).catch(() => notice('The upload failed.'));
  $('#upload').value = '';
};

// Keys: space plays, and s makes one step, unless an input has the focus.
document.addEventListener('keydown', (event) => {
  if (event.target.closest('input, select, button, textarea, dialog, summary')) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === ' ') {
    event.preventDefault();
    $('#play').click();
  } else if (event.key === 's') $('#step').click();
});
window.addEventListener('hashchange', () => {
  const address = readAddress();
  if (address?.settings && !same(address, configuration())) {
    showStory(address.story);
    connection.send({do: 'load', settings: address.settings, compare: address.compare ?? null});
  }
});
