"""Exports the generator of a run, and opens exported generators.

A new format is a function that writes it, a function that opens it, and rows in
WRITERS and OPENERS.
"""

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import games
from gan_jax.errors import UserError
from gan_jax.files import write_whole
from gan_jax.games.game import Game, Phase, main_output
from gan_jax.keys import Purpose, example_keys
from gan_jax.registry import code_names
from gan_jax.runs.card import card
from gan_jax.runs.page import write_page
from gan_jax.training.schedule import make_schedule

if TYPE_CHECKING:
  from gan_jax.runs.run import Run

PLATFORMS = 'cpu', 'cuda', 'tpu'

Inputs = Mapping[str, Any]


class Generator(NamedTuple):
  """A generator with its parameters, ready to be written.

  Attributes:
    images: (inputs) -> images [n, h, w, c] in [-1, 1], for any n.
    shapes: The shape of one row of each input, all float32: {'z': (64,)}.
  """

  images: Callable[[Inputs], Float[Array, 'n h w c']]
  shapes: dict[str, tuple[int, ...]]


class Export:
  """An opened export: g(z=z) -> images [n, h, w, c], floats in [-1, 1].

  Attributes:
    shapes: The shape of one row of each input: {'z': (64,)}.
  """

  def __init__(
    self,
    path: Path,
    images: Callable[[Inputs], Any],
    shapes: dict[str, tuple[int, ...]],
  ):
    self.path, self.shapes, self._images = path, shapes, images

  def __repr__(self) -> str:
    return f'Export({str(self.path)!r}, shapes={self.shapes})'

  def __call__(self, **inputs: Any) -> np.ndarray:
    if inputs.keys() != self.shapes.keys():
      raise UserError(
        f'{self.path} takes {", ".join(self.shapes)}, not '
        f'{", ".join(inputs) or "nothing"}'
      )
    arrays = {k: np.asarray(x, np.float32) for k, x in inputs.items()}
    rows = {len(x) if x.ndim else None for x in arrays.values()}
    for name, x in arrays.items():
      if x.shape[1:] != self.shapes[name] or len(rows) > 1 or not x.ndim:
        expected = ', '.join(map(str, ('n', *self.shapes[name])))
        raise UserError(
          f'{name} of {self.path} must have the shape [{expected}], with one n '
          f'for all inputs, not {list(x.shape)}'
        )
    return np.asarray(self._images(arrays))


def export(
  run: 'Run', output: str | Path, licence: str = '', overwrite: bool = False
) -> Path:
  """Exports the generator (the moving average), with a model card beside it.

  >>> run.export('g.stablehlo')  # opened by gan_jax.open_export, or by JAX
  >>> run.export('g.safetensors')  # the parameters, with the config
  >>> run.export('g.onnx')  # opened by onnxruntime
  >>> run.export('page/')  # a page that samples it in the browser

  The exported function takes the entries of `run.inputs(n)` but for the keys:
  `z` [n, d], and of a conditional run `labels` [n, classes], one-hot. Its
  images are float32 [n, h, w, c] in [-1, 1], for any n.

  Args:
    run: The run.
    output: FILE.stablehlo, FILE.safetensors or FILE.onnx, with the model card
      beside it (`g.onnx.md` of `g.onnx`); or a folder, for a static page, with
      the card README.md.
    licence: The licence of the export, for the card.
    overwrite: Whether to replace existing files.

  Returns:
    The file.

  Raises:
    UserError: The format is unknown, a package is missing, or the file exists.
  """
  if not isinstance(licence, str):
    raise UserError(f"licence={licence!r} must be text: 'CC0-1.0'")
  output = Path(output).expanduser()
  is_page = not output.suffix
  write = _write_onnx if is_page else _row(output, WRITERS)
  described = output / 'README.md' if is_page else Path(f'{output}.md')
  for path in (output, described):
    if path.exists() and not overwrite:
      raise UserError(f'{path} exists: name another, or pass overwrite=True')
  generator = generator_of(run)
  content = write(run, generator)
  text = card(run, output, generator.shapes, licence)
  try:
    described.parent.mkdir(parents=True, exist_ok=True)
    if is_page:
      write_page(run, output, content, generator.shapes)
    else:
      write_whole(output, content)
    write_whole(described, text)
  except OSError as error:
    raise UserError(f'cannot write {output}: {error.strerror}') from error
  return output


def generator_of(run: 'Run') -> Generator:
  """Returns the generator of a run as a function of its arrays.

  The keys, which seed the noise of layers, are constants: image i of a batch
  always has the same noise.
  """
  data = run.config.data
  shape = 1, data.resolution, data.resolution, data.channels
  real = {name: jnp.zeros(shape) for name in run._game.reads}
  inputs = run.inputs(1, **real)
  shapes = {
    name: x.shape[1:]
    for name, x in (inputs.items() if isinstance(inputs, dict) else ())
    if name != 'keys' and x.dtype == jnp.float32
  }
  if not shapes or set(inputs) - {'keys'} != set(shapes):
    raise UserError(
      "this game's inputs of the generator are not a dict of float arrays: it "
      'cannot be exported'
    )

  return Generator(_images(run._game, run._phase, run.params), shapes)


def _images(
  game: Game, phase: Phase, params: PyTree
) -> Callable[[Inputs], Float[Array, 'n h w c']]:
  """Makes the function of the inputs without keys."""

  def images(inputs):
    n = next(iter(inputs.values())).shape[0]
    key = jax.random.key(0)
    keys = example_keys(key, Purpose.SAMPLE, jnp.arange(n))
    return main_output(game).sample(params, {**inputs, 'keys': keys}, phase)

  return images


def open_export(path: str | Path, trust: bool = False) -> Export:
  """Opens an exported generator; see `gan_jax.open_export`."""
  path = Path(path).expanduser()
  open_file = _row(path, OPENERS)
  if not path.is_file():
    raise UserError(f'there is no file {path}')
  try:
    return open_file(path, trust)
  except UserError:
    raise
  except Exception as error:  # of another package's reader
    line = ' '.join(str(error).split())[:200]
    raise UserError(f'{path} cannot be read: {line}') from error


def _row(path: Path, table: Mapping[str, Any]) -> Any:
  if path.suffix not in table:
    raise UserError(
      f'{path}: an export is one of FILE{", FILE".join(table)}, or a folder'
    )
  return table[path.suffix]


def require(package: str, extra: str, what: str) -> None:
  """Raises UserError if a package of an extra is not installed."""
  if importlib.util.find_spec(package) is None:
    raise UserError(f"{what} needs {package}: pip install -e '.[{extra}]'")


def _write_stablehlo(run: 'Run', generator: Generator) -> bytes:
  require('flatbuffers', 'export', 'an export to .stablehlo')
  from jax import export as jax_export

  (n,) = jax_export.symbolic_shape('n')
  inputs = {
    name: jax.ShapeDtypeStruct((n, *shape), jnp.float32)
    for name, shape in generator.shapes.items()
  }

  def generate(inputs):
    return generator.images(inputs)

  exported = jax_export.export(jax.jit(generate), platforms=PLATFORMS)(inputs)
  return bytes(exported.serialize())


def _open_stablehlo(path: Path, trust: bool) -> Export:
  require('flatbuffers', 'export', 'opening .stablehlo')
  from jax import export as jax_export

  exported = jax_export.deserialize(bytearray(path.read_bytes()))
  (inputs,), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
  shapes = {name: tuple(x.shape[1:]) for name, x in inputs.items()}
  return Export(path, jax.jit(exported.call), shapes)


def _write_safetensors(run: 'Run', generator: Generator) -> bytes:
  require('safetensors', 'export', 'an export to .safetensors')
  from safetensors.numpy import save

  leaves, _ = jax.tree_util.tree_flatten_with_path(run.params)
  arrays = {
    '/'.join(str(key.key) for key in path): np.ascontiguousarray(x)
    for path, x in leaves
  }
  config = run.config.copy_and_resolve_references()
  for key in cfg.PER_MACHINE:  # whose paths have no meaning elsewhere
    config.update_from_flattened_dict({key: None})
  described = {
    'format': 'gan_jax',
    'version': importlib.metadata.version('gan_jax'),
    'config': json.dumps(config.to_dict()),
    'step': str(run.step),
    'inputs': json.dumps(generator.shapes),
  }
  return save(arrays, described)


def _open_safetensors(path: Path, trust: bool) -> Export:
  require('safetensors', 'export', 'opening .safetensors')
  from safetensors import safe_open

  with safe_open(path, 'numpy') as file:
    described = file.metadata() or {}
    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  if described.get('format') != 'gan_jax':
    raise UserError(f'{path} is not an export of gan_jax')
  config = ConfigDict(cfg.with_tuples(json.loads(described['config'])))
  names = code_names(cfg.flatten(config.to_dict()))
  if names and not trust:
    raise UserError(
      f'the config in {path} names code of its own, {", ".join(names)}: if you '
      'trust it, open it by gan_jax.open_export(path, trust=True)'
    )
  params: dict[str, Any] = {}
  for name, x in arrays.items():
    *folders, leaf = name.split('/')
    place = params
    for folder in folders:
      place = place.setdefault(folder, {})
    place[leaf] = jnp.asarray(x)
  phase = make_schedule(config).phase(int(described['step']))
  shapes = json.loads(described['inputs'])
  shapes = {name: tuple(shape) for name, shape in shapes.items()}
  images = jax.jit(_images(games.make(config), phase, params))
  return Export(path, images, shapes)


def _write_onnx(run: 'Run', generator: Generator) -> bytes:
  require('onnx', 'onnx', 'an export to .onnx')
  from gan_jax.runs.onnx_graph import to_onnx

  return to_onnx(generator.images, generator.shapes)


def _open_onnx(path: Path, trust: bool) -> Export:
  require('onnxruntime', 'onnx', 'opening .onnx')
  import onnxruntime

  session = onnxruntime.InferenceSession(
    path, providers=['CPUExecutionProvider']
  )
  shapes = {x.name: tuple(x.shape[1:]) for x in session.get_inputs()}
  return Export(path, lambda inputs: session.run(None, inputs)[0], shapes)


# How each format is written, and how it is opened.
WRITERS = {
  '.onnx': _write_onnx,
  '.safetensors': _write_safetensors,
  '.stablehlo': _write_stablehlo,
}
OPENERS = {
  '.onnx': _open_onnx,
  '.safetensors': _open_safetensors,
  '.stablehlo': _open_stablehlo,
}
