"""The model card beside an export: data, scores with protocols, inputs."""

import json
import keyword
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from ml_collections import ConfigDict

from gan_jax.config import flatten
from gan_jax.metrics import scores

if TYPE_CHECKING:
  from gan_jax.runs.run import Run

# How an export is opened, by its suffix. {file} is its name, {call} its inputs.
USES = {
  '.stablehlo': (
    '```python\n'
    'from pathlib import Path\n\nimport jax\n\n'
    "exported = jax.export.deserialize(Path('{file}').read_bytes())\n"
    '{random}\n'
    'images = exported.call({{{entries}}})  # [16, h, w, c] in [-1, 1]\n'
    '```\n\n'
    'JAX alone opens it (`pip install jax flatbuffers`), on CPUs, GPUs and '
    "TPUs.\n`gan_jax.open_export('{file}')` does too.\n"
  ),
  '.safetensors': (
    '```python\n'
    'import gan_jax\nimport jax\n\n'
    "generate = gan_jax.open_export('{file}')\n"
    '{random}\n'
    'images = generate(**{{{entries}}})  # [16, h, w, c] in [-1, 1]\n'
    '```\n\n'
    'The metadata of the file has the config of the run.\n'
  ),
  '.onnx': (
    '```python\n'
    'import numpy as np\nimport onnxruntime\n\n'
    "session = onnxruntime.InferenceSession('{file}')\n"
    '{numpy}\n'
    '(images,) = session.run(None, {{{entries}}})  # [16, h, w, c] in [-1, 1]\n'
    '```\n'
  ),
  '': 'Open `index.html` in a browser, by way of any web server: '
  '`python -m http.server`.\n',
}


def card(
  run: 'Run',
  output: Path,
  shapes: Mapping[str, tuple[int, ...]],
  licence: str = '',
) -> str:
  """Writes the model card of an export, in Markdown.

  Args:
    run: The run.
    output: The exported file or folder.
    shapes: The shape of one row of each input.
    licence: The licence of the export; '': the card says that none is stated.
  """
  config, name = run.config, output.stem
  data, game = config.data, config.game
  weights = sum(x.size for x in jax.tree.leaves(run.params.get('params', {})))
  sizes = data.get('size') or ()
  sizes = sizes if isinstance(sizes, tuple) else (sizes,)
  size = f', {" and ".join(f"{x:,}" for x in sizes)} images' if sizes else ''
  classes, latent = data.get('classes', 0), game.get('latent', '')
  sides = f'{data.resolution}x{data.resolution}x{data.channels}'
  front = {
    'license': licence or 'unknown',
    'library_name': 'gan_jax',
    'tags': ['gan', f'gan_jax-{game.name}'],
  }
  return '\n'.join(
    [
      '---',
      *(f'{key}: {json.dumps(value)}' for key, value in front.items()),
      '---',
      f'# {name}',
      '',
      f'The generator of a GAN: game `{game.name}`, '
      f'{weights:,} parameters, images of {sides}. It is the moving average of '
      f'G after {run.step:,} iterations and {run.images:,} images.',
      '',
      '## Data',
      '',
      f'{_data_names(data)}{size}'
      + (f', conditional on {classes} classes.' if classes else '.'),
      'The data have a licence of their own, which may also hold for samples.',
      '',
      '## Inputs',
      '',
      '| input | shape | values |',
      '|---|---|---|',
      *(
        f'| `{key}` | [{", ".join(map(str, ("n", *shape)))}] '
        f'| {_values(key, latent)} |'
        for key, shape in shapes.items()
      ),
      '',
      '## Use',
      '',
      _use(output, shapes, latent),
      '## Scores',
      '',
      *_scores(run),
      '',
      '## Licence',
      '',
      licence or 'No licence is stated.',
      '',
      '## Config',
      '',
      '```json',
      json.dumps({'model.gen': _plain(config, 'model.gen')}, indent=1),
      '```',
      '',
    ]
  )


def _data_names(data: ConfigDict) -> str:
  """Names the sources, without their paths on the machine that trained."""
  values = (data.get(key) for key in ('source', 'a', 'b'))
  names = [f'`{_without_folders(value)}`' for value in values if value]
  split = f', split `{data.split}`' if data.get('split') else ''
  return (' and '.join(names) or 'Unknown data') + split


def _without_folders(source: str) -> str:
  kind, _, path = source.partition(':')
  return f'{kind}:{Path(path).name}' if path and '/' in path else source


def _values(name: str, latent: str) -> str:
  latents = {
    'gaussian': 'N(0, 1)',
    'sphere': 'uniform on the sphere of radius sqrt(d)',
    'uniform': 'U(-1, 1)',
  }
  known = {
    'images': 'images in [-1, 1]',
    'labels': 'one-hot classes',
    'z': latents.get(latent, 'latents'),
  }
  return known.get(name, 'see the game')


def _use(
  output: Path, shapes: Mapping[str, tuple[int, ...]], latent: str
) -> str:
  """Returns code that opens the export and generates 16 images."""
  low = ', minval=-1.0' if latent == 'uniform' else ''
  draw = 'uniform' if low else 'normal'
  random, arrays = [], []
  for i, (name, shape) in enumerate(shapes.items()):
    x = _variable(name)
    if name == 'z':
      random.append(
        f'z = jax.random.{draw}(jax.random.key({i}), {(16, *shape)}{low})'
      )
      drawn = 'uniform(-1, 1' if low else 'normal(size='
      drawn += f', {(16, *shape)})' if low else f'{(16, *shape)})'
      arrays.append(
        f'z = np.random.default_rng({i}).{drawn}.astype(np.float32)'
      )
    elif len(shape) == 1 and name != 'codes':  # one-hot: all are of class 0
      random.append(f'{x} = jax.nn.one_hot([0] * 16, {shape[0]})')
      arrays.append(f'{x} = np.eye({shape[0]}, dtype=np.float32)[[0] * 16]')
    else:
      random.append(f'{x} = jax.numpy.zeros({(16, *shape)})')
      arrays.append(f'{x} = np.zeros({(16, *shape)}, np.float32)')
  return USES[output.suffix].format(
    file=output.name,
    random='\n'.join(random),
    numpy='\n'.join(arrays),
    entries=', '.join(f"'{x}': {_variable(x)}" for x in shapes),
  )


def _variable(name: str) -> str:
  """Returns a valid name of a variable for an input, such as `class`."""
  return f'{name}_' if keyword.iskeyword(name) else name


def _scores(run: 'Run') -> list[str]:
  """Returns a table of the scores of this checkpoint, and their protocols."""
  listed = [x for x in scores.read(run.workdir) if x.step == run.step]
  if not listed:
    return ['This checkpoint has not been evaluated (`--mode=evaluate`).']
  protocols: list[dict[str, Any]] = []
  rows = ['| score | value | best | protocol |', '|---|---|---|---|']
  for score in listed:
    protocol = {k: v for k, v in score.protocol.items() if k != 'metric'}
    if protocol not in protocols:
      protocols.append(protocol)
    number = protocols.index(protocol) + 1
    rows.append(
      f'| {score.name} | {score!r} | {score.best or "-"} | {number} |'
    )
  for number, protocol in enumerate(protocols, 1):
    flat = flatten(protocol)
    if 'reference.source' in flat:
      flat['reference.source'] = _without_folders(str(flat['reference.source']))
    entries = (f'{key} {value}' for key, value in flat.items())
    rows += ['', f'Protocol {number}: {"; ".join(entries)}.']
  return rows


def _plain(config: Any, block: str) -> dict[str, Any]:
  flat = flatten(config.to_dict())
  return {k: v for k, v in flat.items() if k.startswith(f'{block}.')}
