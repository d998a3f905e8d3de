"""A run that was trained, opened for reading: what a notebook works with."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, PyTree, UInt8
from ml_collections import ConfigDict
from PIL import Image

from gan_jax import checkpoint, config, games
from gan_jax.errors import UserError
from gan_jax.keys import Purpose, example_keys
from gan_jax.pictures import show, to_uint8

if TYPE_CHECKING:
  import pandas

# Samples are drawn in batches of so many.
BATCH = 256


class Run:
  """A generator and what is known of it.

  Attributes:
    workdir: Where the run is.
    config: The experiment's.
    step: The rounds after which the generator was saved.
    images: Reals that D had seen by then.
    params: The generator's variables: the moving average of its parameters
      and of its BatchNorm statistics.
  """

  def __init__(self, workdir: str, settings: ConfigDict, step: int):
    self.workdir, self.config, self.step = workdir, settings, step
    table = config.table(settings)
    self.images = table.images(step)
    self.params = checkpoint.read(workdir, ('ema',), step)['ema']
    self._game = games.make(settings)
    self._phase = table.phase(step)
    self._generate = jax.jit(self.generator)

  def __repr__(self) -> str:
    return f'Run({self.workdir!r}, step={self.step}, images={self.images})'

  def generator(
    self, params: PyTree, inputs: PyTree
  ) -> Float[Array, 'n h w c']:
    """The pure function: (params, inputs) -> images in [-1, 1].

    `run.inputs` draws inputs; for an image game inputs['z'] is the latents.
    """
    return self._game.sample(params, inputs, self._phase)

  def inputs(self, n: int, seed: int = 0, **given: Any) -> PyTree:
    """What the generator is fed for `n` samples; the first ones of any more.

    `given`, [n, ...] each, is what the game draws from besides its keys.
    """
    keys = example_keys(jax.random.key(seed), Purpose.SAMPLE, jnp.arange(n))
    given = jax.tree.map(jnp.asarray, given)
    return self._game.draw(keys, given, self._phase)

  def sample(
    self, n: int, seed: int = 0, **given: Any
  ) -> UInt8[np.ndarray, 'n h w c']:
    """Draws `n` images; the same ones for the same seed. `given`: `inputs`."""
    if n < 1:
      raise UserError(f'run.sample({n}): ask for 1 image or more')
    return self._draw(self.inputs(n, seed, **given), n)

  def interpolate(
    self, n: int = 4, steps: int = 9, seed: int = 0
  ) -> UInt8[np.ndarray, 'n steps h w c']:
    """Images along `n` paths through latent space, each between two samples.

    Path i leads from sample 2i to sample 2i + 1 of `run.sample(2 * n, seed)`.
    """
    if self._game.interpolate is None:
      raise UserError('this game has no latents to interpolate between')
    ends = self.inputs(2 * n, seed)
    repeat = lambda x: jnp.repeat(x, steps, axis=0)
    a = jax.tree.map(lambda x: repeat(x[0::2]), ends)
    b = jax.tree.map(lambda x: repeat(x[1::2]), ends)
    t = jnp.tile(jnp.linspace(0.0, 1.0, steps), n)
    images = self._draw(self._game.interpolate(a, b, t), n * steps)
    return images.reshape(n, steps, *images.shape[1:])

  def metrics(self) -> 'pandas.DataFrame':
    """`metrics.jsonl` as a DataFrame, one row a log line."""
    import pandas

    text = (epath.Path(self.workdir) / 'metrics.jsonl').read_text()
    return pandas.read_json(io.StringIO(text), lines=True)

  def show(self, n: int = 64, seed: int = 0) -> Image.Image:
    """A grid of `n` samples, which a notebook draws."""
    return show(self.sample(n, seed))

  def _draw(self, inputs: PyTree, n: int) -> UInt8[np.ndarray, 'n h w c']:
    parts = []
    for start in range(0, n, BATCH):
      part = jax.tree.map(lambda x, i=start: x[i : i + BATCH], inputs)
      parts.append(to_uint8(self._generate(self.params, part)))
    return np.concatenate(parts)


def load(workdir: str | Path, step: int | None = None) -> Run:
  """See `gan_jax.load`."""
  workdir = str(epath.Path(workdir).expanduser())
  settings = config.read(workdir)
  steps = checkpoint.steps(workdir)
  if not steps:
    raise UserError(f'{workdir} has no checkpoint yet')
  if step is None:
    step = steps[-1]
  if step not in steps:
    there = ', '.join(map(str, steps))
    raise UserError(f'{workdir} has no checkpoint at step {step} ({there})')
  return Run(workdir, settings, step)
