"""The sample grids of a run during training, and the diversity of samples."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8
from ml_collections import ConfigDict

from gan_jax.data.on_device import read_unflipped
from gan_jax.data.order import stream_of
from gan_jax.data.source import Source
from gan_jax.data.toys import has_points
from gan_jax.errors import UserError
from gan_jax.games.game import Batch, Game, Phase
from gan_jax.keys import Purpose, example_keys
from gan_jax.ops.pixels import to_uint8
from gan_jax.plots.grid import grid_columns, labels_by_class
from gan_jax.plots.outputs import generate_outputs, output_grid
from gan_jax.plots.toy_plot import make_plot_data, plot, plot_mapping
from gan_jax.training.health import diversity
from gan_jax.training.state import State

# Size limits of the sample grid: number of samples, and pixels in total.
GRID_SAMPLES, GRID_PIXELS = 64, 2**24

Picture = UInt8[np.ndarray, 'h w c']


class Samples(NamedTuple):
  """Samples after some iteration.

  Attributes:
    drawn: By output, images of the EMA of G from fixed inputs. For a toy: the
      data of its plot, which shows the current G and D instead of the EMA.
    diversity: Mean distance between the images of the EMA of G.
  """

  drawn: PyTree
  diversity: Float[Array, '']


class Sampler(NamedTuple):
  """Generates the samples of a run and draws the sample grids.

  Attributes:
    sample: (state, real examples, phase) -> Samples; compiled.
    draw: (Samples.drawn on the host) -> the sample grid of each output, or the
      toy plot. The name of a single grid is empty.
  """

  sample: Callable[[State, Batch, Phase], Samples]
  draw: Callable[[PyTree], dict[str, Picture]]


def check_entries(config: ConfigDict, game: Game, batch: Batch) -> None:
  """Raises UserError if a batch lacks images that the game trains on."""
  needed = game.reads or ('images',)
  if missing := [name for name in needed if name not in batch]:
    found = [name for name, x in batch.items() if x.ndim == 4]
    kind = 'pairs:FOLDER' if 'a' in missing else 'folder:FOLDER'
    raise UserError(
      f'config.game.name={config.game.name} trains on {" and ".join(needed)} '
      f'of each example, but config.data.source={config.data.source} has '
      f'{" and ".join(found)}: set --config.data.source={kind}'
    )


def first_examples(config: ConfigDict, source: Source) -> Batch:
  """Returns the first examples of the stream, as a batch without flips."""
  one = next(x for x in source.fetch(np.arange(1)).values() if x.ndim == 4)
  count = min(GRID_SAMPLES, max(2, GRID_PIXELS // (one.size // one.shape[-1])))
  examples = np.arange(count)
  stream = stream_of(source, config.seed)
  return read_unflipped(source, stream.indices(examples), examples)


def make_sampler(game: Game, config: ConfigDict, source: Source) -> Sampler:
  """Makes the sampler of a run."""
  classes = config.data.get('classes', 0)
  plot_data = None
  if source.toy is not None:
    plot_data = make_plot_data(game, config, source.toy)

  @jax.jit
  def sample(state: State, examples: Batch, phase: Phase) -> Samples:
    batch = {name: examples[name] for name in game.reads}
    if classes:
      labels = labels_by_class(classes, len(examples['example']))
      batch = {name: x[: len(labels)] for name, x in batch.items()}
      batch['labels'] = labels
      examples = {'example': examples['example'][: len(labels)]}
    key = jax.random.key(config.seed)
    keys = example_keys(key, Purpose.SAMPLE, examples['example'])
    inputs = game.sample_inputs(keys, batch, phase)
    outputs = generate_outputs(game, state.ema, inputs, batch, phase)
    main = next(iter(outputs.values())).samples
    drawn = plot_data(state.variables, phase) if plot_data else outputs
    return Samples(drawn, diversity(main))

  def draw_grids(outputs: PyTree) -> dict[str, Picture]:
    columns = None
    pictures = {}
    for name, images in outputs.items():
      if has_points(config):
        pictures[name] = plot_mapping(images)
        continue
      if classes:
        columns = grid_columns(classes, len(images.samples))
      pictures[name] = output_grid(jax.tree.map(to_uint8, images), columns)
    return _unnamed(pictures)

  draw = draw_grids
  if source.toy is not None:
    draw = lambda drawn: {'': plot(drawn, source.toy)}
  return Sampler(sample, draw)


def _unnamed(pictures: dict[str, Picture]) -> dict[str, Picture]:
  """Removes the name of a single picture."""
  return pictures if len(pictures) > 1 else {'': next(iter(pictures.values()))}
