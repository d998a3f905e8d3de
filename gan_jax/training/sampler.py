"""The sample grid of a run during training, and the diversity of samples."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8
from ml_collections import ConfigDict

from gan_jax.data.on_device import read_unflipped
from gan_jax.data.order import Stream
from gan_jax.data.source import Source
from gan_jax.data.toys import is_toy
from gan_jax.games.game import Batch, Game, Phase
from gan_jax.keys import Purpose, example_keys
from gan_jax.ops.pixels import to_uint8
from gan_jax.plots.grid import grid, grid_columns, labels_by_class
from gan_jax.plots.toy_plot import make_plot_data, plot
from gan_jax.training.health import diversity
from gan_jax.training.state import State

# Size limits of the sample grid: number of samples, and pixels in total.
GRID_SAMPLES, GRID_PIXELS = 64, 2**24


class Samples(NamedTuple):
  """Samples after some iteration.

  Attributes:
    drawn: Images of the EMA of G from fixed latents. For a toy: the data of its
      plot, which shows the current G and D instead of the EMA.
    diversity: Mean distance between the images of the EMA of G.
  """

  drawn: PyTree
  diversity: Float[Array, '']


class Sampler(NamedTuple):
  """Generates the samples of a run and draws the sample grid.

  Attributes:
    sample: (state, real examples, phase) -> Samples; compiled.
    draw: (Samples.drawn on the host) -> the sample grid or the toy plot.
  """

  sample: Callable[[State, Batch, Phase], Samples]
  draw: Callable[[PyTree], UInt8[np.ndarray, 'h w c']]


def first_examples(source: Source, stream: Stream) -> Batch:
  """Returns the first examples of the stream, as a batch without flips."""
  (one,) = source.fetch(np.arange(1))['images']
  count = min(GRID_SAMPLES, max(2, GRID_PIXELS // (one.size // one.shape[-1])))
  examples = np.arange(count)
  return read_unflipped(source, stream.indices(examples), examples)


def make_sampler(game: Game, config: ConfigDict) -> Sampler:
  """Makes the sampler of a run."""
  toy = is_toy(config.data.source)
  plot_data = make_plot_data(game, config) if toy else None
  classes = config.data.get('classes', 0)

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
    images = game.sample(state.ema, inputs, phase)
    drawn = plot_data(state.variables, phase) if toy else images
    return Samples(drawn, diversity(images))

  def draw_images(images: Float[np.ndarray, 'n h w c']) -> np.ndarray:
    columns = grid_columns(classes, len(images)) if classes else None
    return grid(to_uint8(images), columns)

  draw = partial(plot, config=config) if toy else draw_images
  return Sampler(sample, draw)
