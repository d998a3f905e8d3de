// The controls of the settings, made from the server's description.

const LABELS = {
  'seed': 'seed',
  'batch_size': 'batch size',
  'disc_steps': 'D steps per G step',
  'game.loss.name': 'loss',
  'game.loss.real_label': 'label of reals',
  'game.latent': 'noise',
  'game.latent_dim': 'noise coordinates',
  'game.clip': 'clip weights (0: off)',
  'game.pack': 'points D sees at once',
  'game.instance_noise': 'instance noise',
  'model.disc.dropout': 'dropout',
  'model.disc.stddev_group': 'minibatch stddev of (0: off)',
};
const LEAVES = {
  activation: 'activation', b1: 'momentum (b1)', b2: 'b2',
  learning_rate: 'learning rate', name: 'optimizer', hidden: 'hidden',
};
const GROUPS = [
  ['Game', (key) => ['game.loss.name', 'game.loss.real_label', 'batch_size', 'disc_steps', 'seed'].includes(key), true],
  ['Generator', (key) => key.includes('.gen.') || key.startsWith('game.latent'), false],
  ['Discriminator', (key) => key.includes('.disc.') || ['game.clip', 'game.pack', 'game.instance_noise'].includes(key), false],
  ['Penalties', (key) => key.endsWith('.weight'), false],
];
// Sliders with a logarithmic scale: the exponents of their ends.
const LOGARITHMIC = {learning_rate: [-5, -1], weight: [-3, 2]};

export function label(key) {
  const parts = key.split('.');
  if (key.endsWith('.weight')) return parts[2].replaceAll('_', ' ');
  return LABELS[key] ?? LEAVES[parts.at(-1)] ?? key;
}

// A longer label, for lists of all settings.
export function fullLabel(key) {
  const player = key.includes('.gen.') ? 'G: ' : key.includes('.disc.') ? 'D: ' : '';
  return player + (key.endsWith('.weight') ? 'penalty ' : '') + label(key);
}

const show = (value) => (value === 0 ? '0' : Number(value.toPrecision(4)).toString());

// Makes the input of one setting. Returns {element, get, set}.
export function makeInput(control, change) {
  const {kind} = control;
  if (kind === 'choice') {
    const select = document.createElement('select');
    for (const name of control.choices) {
      select.append(new Option(name.replaceAll('_', ' '), name));
    }
    select.onchange = change;
    return {
      element: select, input: select,
      get: () => select.value, set: (value) => { select.value = value; },
    };
  }
  if (kind === 'layers') return makeLayers(control, change);
  const leaf = control.key.split('.').at(-1);
  if (kind === 'number') return makeSlider(control, LOGARITHMIC[leaf], leaf === 'weight', change);
  const input = document.createElement('input');
  Object.assign(input, {type: 'number', min: control.low, max: control.high, step: 1});
  input.onchange = () => { if (input.checkValidity() && input.value !== '') change(); };
  return {
    element: input, input,
    get: () => Number(input.value), set: (value) => { input.value = value; },
  };
}

function makeLayers(control, change) {
  const box = document.createElement('span');
  box.className = 'row';
  const make = (name, label, max, min) => {
    const input = document.createElement('input');
    Object.assign(input, {type: 'number', min, max, step: 1});
    input.setAttribute('aria-label', `${fullLabel(control.key)}: ${label}`);
    input.onchange = () => { if (input.checkValidity() && input.value !== '') change(); };
    box.append(input, document.createTextNode(name));
    return input;
  };
  const layers = make('layers of', 'number of layers', control.layers, 0);
  const units = make('units', 'units of a layer', control.units, 1);
  return {
    element: box, input: null,
    get: () => Array(Number(layers.value)).fill(Number(units.value)),
    set: (value) => {
      layers.value = value.length;
      if (value.length) units.value = Math.max(...value);
      else if (!units.value) units.value = 64;
    },
  };
}

function makeSlider(control, exponents, zero, change) {
  const input = document.createElement('input');
  input.type = 'range';
  const output = document.createElement('output');
  const box = document.createElement('span');
  let toValue = (x) => x;
  let toPlace = (value) => value;
  if (exponents) {
    const [low, high] = exponents;
    // Of a weight, the place below the lowest is 0.
    Object.assign(input, {min: zero ? low - 0.05 : low, max: high, step: 0.05});
    toValue = (x) => (x < low - 0.01 ? 0 : Number((10 ** x).toPrecision(3)));
    toPlace = (value) => (value > 0 ? Math.log10(value) : low - 0.05);
  } else {
    const high = {b1: 0.999, b2: 0.9999, dropout: 0.9}[control.key.split('.').at(-1)]
      ?? (control.key === 'game.instance_noise' ? 2 : Math.min(control.high, 1));
    Object.assign(input, {min: control.low, max: high, step: 'any'});
    toValue = (x) => Number(x.toFixed(4));
    if (control.key.endsWith('real_label')) input.min = 0.1;
  }
  let exact = control.default;  // the slider's places are coarser
  const describe = () => {
    output.textContent = show(exact);
    input.setAttribute('aria-valuetext', show(exact));
  };
  input.oninput = () => {
    exact = toValue(Number(input.value));
    describe();
    change();
  };
  box.append(input);
  return {
    element: box, input, output, get: () => exact,
    set: (value) => {
      exact = value;
      input.value = toPlace(value);
      describe();
    },
  };
}

export class Controls {
  constructor(parent, controls, onchange) {
    this.inputs = {};
    for (const [title, belongs, open] of GROUPS) {
      const group = document.createElement('details');
      group.open = open;
      const summary = document.createElement('summary');
      summary.textContent = title;
      group.append(summary);
      for (const control of controls.filter(({key}) => belongs(key))) {
        const {key} = control;
        const made = makeInput(control, () => onchange(key, this.inputs[key].get()));
        this.inputs[key] = made;
        const box = document.createElement('div');
        box.className = 'control';
        const name = document.createElement('label');
        name.append(label(key));
        if (made.input) {
          made.input.id = `control-${key}`;
          name.htmlFor = made.input.id;
        }
        if (made.output) {
          name.append(made.output);
          box.append(name, made.element);
        } else {
          const row = document.createElement('div');
          row.className = 'row';
          row.append(name, made.element);
          box.append(row);
        }
        group.append(box);
      }
      parent.append(group);
    }
  }

  // Shows settings, except where the user is just changing one.
  set(settings, changing) {
    for (const [key, made] of Object.entries(this.inputs)) {
      if (!changing.has(key)) made.set(settings[key]);
    }
  }
}
