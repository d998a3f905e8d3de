"""A run that was trained, opened for reading: what a notebook works with."""

import functools
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Int32, PyTree, Shaped, UInt8
from ml_collections import ConfigDict
from PIL import Image

from gan_jax import config, games
from gan_jax.data.toys import is_toy
from gan_jax.errors import UserError, nearest
from gan_jax.games.game import truncated
from gan_jax.keys import Purpose, example_keys
from gan_jax.metrics import scores
from gan_jax.metrics.measure import HIGHER, UNRANKED
from gan_jax.ops.pixels import to_uint8
from gan_jax.pair import Pair
from gan_jax.plots.grid import (
  grid_columns,
  labels_by_class,
  show,
  shrink_to,
  to_pil,
)
from gan_jax.plots.toy_plot import make_plot_data, plot
from gan_jax.training import checkpoint
from gan_jax.training.schedule import make_schedule

if TYPE_CHECKING:
  import pandas

# Samples are drawn in batches of so many, and of so many pixels together.
BATCH, PIXELS = 256, 2**22
# Training images that are compared with samples at a time.
CHUNK = 4096

# Of each sample, or one of all.
Labels = int | Sequence[int] | np.ndarray | Array


class Run:
  """A generator and what is known of it.

  Attributes:
    workdir: Where the run is.
    config: The experiment's.
    step: The iterations after which the generator was saved.
    images: Reals that D had seen by then.
    params: The generator's variables: the moving average of its parameters
      and of its BatchNorm statistics.
  """

  def __init__(
    self, workdir: str, settings: ConfigDict, step: int, trust: bool = False
  ):
    self.workdir, self.config, self.step = workdir, settings, step
    self._trust = trust
    schedule = make_schedule(settings)
    self.images = schedule.images(step)
    self.params = checkpoint.read(workdir, ('ema',), step)['ema']
    self._game = games.make(settings)
    self._phase = schedule.phase(step)
    self._generate = jax.jit(self.generator)
    self._points = is_toy(settings.data.source)
    self._classes = settings.data.get('classes', 0)

  def __repr__(self) -> str:
    return f'Run({self.workdir!r}, step={self.step}, images={self.images})'

  def generator(
    self, params: PyTree, inputs: PyTree
  ) -> Float[Array, 'n h w c']:
    """The pure function: (params, inputs) -> images in [-1, 1].

    `run.inputs` draws inputs; for an image game inputs['z'] is the latents.
    """
    return self._game.sample(params, inputs, self._phase)

  def inputs(
    self,
    n: int,
    seed: int = 0,
    truncation: float | None = None,
    labels: Labels | None = None,
  ) -> PyTree:
    """What the generator is fed for `n` samples; the first ones of any more.

    Args:
      n: How many.
      seed: Other samples for another one.
      truncation: The latents' largest value: the smaller, the better and the
        less various are the samples. None: as they are drawn.
      labels: Of a conditional run: the class of each, or one of all. None: any.
    """
    keys = example_keys(jax.random.key(seed), Purpose.SAMPLE, jnp.arange(n))
    batch = {} if labels is None else {'labels': self._of_each(n, labels)}
    inputs = self._game.sample_inputs(keys, batch, self._phase)
    return truncated(self._game, inputs, truncation)

  def sample(
    self,
    n: int,
    seed: int = 0,
    truncation: float | None = None,
    labels: Labels | None = None,
  ) -> UInt8[np.ndarray, 'n h w c'] | Float[np.ndarray, 'n d']:
    """Draws `n` images; the same ones for the same seed. See `inputs`.

    Of a toy: its points [n, d].
    """
    if n < 1:
      raise UserError(f'run.sample({n}): ask for 1 image or more')
    return self._draw(self.inputs(n, seed, truncation, labels), n)

  def interpolate(
    self,
    n: int = 4,
    steps: int = 9,
    seed: int = 0,
    labels: Labels | None = None,
  ) -> UInt8[np.ndarray, 'n steps h w c'] | Float[np.ndarray, 'n steps d']:
    """Images along `n` paths through latent space, each between two samples.

    Path i leads from sample 2i to sample 2i + 1 of
    `run.sample(2 * n, seed, labels=labels)`: of a conditional run, `labels` are
    the classes of the 2n ends, or one of all.
    """
    if self._game.interpolate is None:
      raise UserError('this game has no latents to interpolate between')
    ends = self.inputs(2 * n, seed, labels=labels)
    repeat = lambda x: jnp.repeat(x, steps, axis=0)
    a = jax.tree.map(lambda x: repeat(x[0::2]), ends)
    b = jax.tree.map(lambda x: repeat(x[1::2]), ends)
    t = jnp.tile(jnp.linspace(0.0, 1.0, steps), n)
    images = self._draw(self._game.interpolate(a, b, t), n * steps)
    return images.reshape(n, steps, *images.shape[1:])

  def metrics(self) -> 'pandas.DataFrame':
    """`metrics.jsonl` as a DataFrame, one row a log line."""
    return read_metrics(self.workdir)

  @functools.cached_property
  def _variables(self) -> Pair[PyTree]:
    """Both players' variables, as they are trained."""
    both = checkpoint.read(self.workdir, ('variables',), self.step)
    return Pair(**both['variables'])

  @property
  def disc_vars(self) -> PyTree:
    """The discriminator's variables."""
    return self._variables.disc

  def discriminator(
    self,
    images: Shaped[np.ndarray, 'n ...'],
    labels: Labels | None = None,
  ) -> Float[np.ndarray, ' n']:
    """D's logits of images, or of points, each judged by itself.

    Images are uint8, or floats in [-1, 1], [n, h, w, c]; points floats [n, d].
    A conditional D needs the labels; an auxiliary classifier does not.

    Where D is at its best, and its loss is a cross-entropy without smoothing,
    they are log p_data(x) - log p_G(x): Goodfellow et al. 2014, proposition 1.
    (Not where D looks at several as one: `pack`, `stddev_group`.)
    """
    if self._game.discriminate is None:
      raise UserError('this game has no discriminator of images alone')
    images = self._as_shown(images)
    if labels is not None:
      labels = self._of_each(len(images), labels)
    parts = []
    for start in range(0, len(images), BATCH):
      batch = {'images': images[start : start + BATCH]}
      if labels is not None:
        batch['labels'] = labels[start : start + BATCH]
      judged = self._game.discriminate(self.disc_vars, batch, self._phase)
      parts.append(np.asarray(judged.logits))
    return np.concatenate(parts)

  def show(
    self, n: int = 64, seed: int = 0, labels: Labels | None = None
  ) -> Image.Image:
    """A grid of `n` samples, which a notebook draws.

    Of a conditional run, `labels` are the class of each sample, or one of all;
    without them each class has a row. Of a toy: the picture of its game, with
    both players as they were, not their average.
    """
    if labels is not None:
      return show(self.sample(n, seed, labels=labels))
    if self._points:
      scene = make_plot_data(self._game, self.config)(
        self._variables, self._phase
      )
      return to_pil(plot(jax.tree.map(np.asarray, scene), self.config))
    if self._classes:
      labels = np.asarray(labels_by_class(self._classes, n))
      samples = self.sample(len(labels), seed, labels=labels)
      return show(samples, columns=grid_columns(self._classes, n))
    return show(self.sample(n, seed))

  def growth(self, n: int = 8, seed: int = 0, pixels: int = 128) -> Image.Image:
    """The same latents at every stage of which a checkpoint is kept.

    A row is a stage, as its last checkpoint has it, the earliest first.

    Args:
      n, seed: As for `sample`.
      pixels: Larger images are drawn in so many.
    """
    schedule = make_schedule(self.config)
    last: dict[int, int] = {}
    for step in checkpoint.steps(self.workdir):
      if 0 < step <= self.step:
        last[schedule.segment_at(step - 1).first_step] = step
    draw = lambda step: load(self.workdir, step).sample(n, seed)
    rows = [shrink_to(draw(step), pixels) for step in last.values()]
    return show(np.concatenate(rows), columns=n)

  def features_of_config(self) -> str | None:
    """The features that the run was measured by, as its config names them.

    Raises:
      UserError: They are a function, MODULE:FUNCTION, and to import a module
        is to run it: whoever wrote the config could run anything.
    """
    named = self.config.get('evaluation', {}).get('features')
    if named is not None and ':' in named and not self._trust:
      raise UserError(
        f'the run in {self.workdir} names features={named!r}, which would be '
        'imported: pass features=FUNCTION, or open it by '
        'gan_jax.load(workdir, trust=True)'
      )
    return named

  def nearest(
    self,
    n: int = 8,
    seed: int = 0,
    k: int = 4,
    features: str | Callable[..., Array] | None = None,
  ) -> Image.Image:
    """`n` samples, each in a row before the `k` training images nearest to it.

    What the generator has only learnt by heart, is here seen twice.

    Args:
      n, seed: As for `sample`.
      k: Training images in a row.
      features: What is near is told by them, as `config.evaluation.features`,
        or a function (uint8 images [n, h, w, c]) -> [n, d]; None: by those of
        the run, or the pixels.
    """
    if self._points:
      raise UserError('run.nearest is of images, and this run makes points')
    # Heavy, and not needed to draw samples.
    from gan_jax import data
    from gan_jax.metrics import nearest
    from gan_jax.metrics.features import make

    network = make(features or self.features_of_config() or 'pixels')
    look = jax.jit(network.look)

    def of(images: UInt8[np.ndarray, 'n h w c']) -> np.ndarray:
      starts = range(0, len(images), BATCH)
      parts = [look(network.weights, images[i : i + BATCH]) for i in starts]
      return np.concatenate([part['features'] for part in parts])

    source = data.make(self.config)
    samples = self.sample(n, seed)
    wanted, parts = of(samples), []
    for first in range(0, source.size, CHUNK):
      rows = np.arange(first, min(first + CHUNK, source.size))
      known = of(source.fetch(rows)['images'])
      part = nearest(wanted, known, min(k, len(rows)))
      parts.append((part.distances, rows[part.indices]))
    distances = np.concatenate([part[0] for part in parts], axis=1)
    found = np.concatenate([part[1] for part in parts], axis=1)
    order = np.argsort(distances, axis=1, kind='stable')[:, :k]
    found = np.take_along_axis(found, order, axis=1)
    shown = source.fetch(found.ravel())['images']
    shown = shown.reshape(n, k, *samples.shape[1:])
    rows = np.concatenate([samples[:, None], shown], axis=1)
    return show(rows.reshape(-1, *samples.shape[1:]), columns=1 + k)

  def _as_shown(
    self, images: Shaped[np.ndarray, 'n ...']
  ) -> Float[np.ndarray, 'n h w c']:
    """Images, or points, as D is shown them."""
    data = self.config.data
    shape = (data.resolution, data.resolution, data.channels)
    wanted = shape[2:] if self._points else shape
    if images.shape[1:] != wanted:
      raise UserError(
        f'run.discriminator of this run takes [n, '
        f'{", ".join(map(str, wanted))}], not {list(images.shape)}'
      )
    if images.dtype == np.uint8:
      return images.astype(np.float32) / 127.5 - 1
    if not self._points and np.abs(images).max(initial=0) > 2:
      raise UserError('images are uint8, or floats in [-1, 1]')
    return images.reshape(len(images), *shape)

  def _of_each(self, n: int, labels: Labels) -> Int32[Array, ' n']:
    """The label of each of `n`; one is for all of them."""
    if not self._classes:
      raise UserError('this run is unconditional: remove labels=...')
    labels = np.asarray(labels)
    labels = np.broadcast_to(labels, (n,)) if labels.ndim == 0 else labels
    if labels.shape != (n,):
      raise UserError(f'labels of {n} are {n}, or one: not {labels.shape}')
    if not np.isin(labels, np.arange(self._classes)).all():
      raise UserError(f'labels are from 0 to {self._classes - 1}')
    return jnp.asarray(labels, jnp.int32)

  def _draw(self, inputs: PyTree, n: int) -> Shaped[np.ndarray, 'n ...']:
    parts = []
    size = min(BATCH, max(1, PIXELS // self.config.data.resolution**2))
    for start in range(0, n, size):
      part = jax.tree.map(lambda x, i=start: x[i : i + size], inputs)
      made = self._generate(self.params, part)
      parts.append(
        np.asarray(made)[:, 0, 0] if self._points else to_uint8(made)
      )
    return np.concatenate(parts)


def load(
  workdir: str | Path,
  step: int | None = None,
  best: str | None = None,
  trust: bool = False,
) -> Run:
  """See `gan_jax.load`."""
  workdir = str(epath.Path(workdir).expanduser())
  settings = config.read(workdir)
  return Run(workdir, settings, choose_step(workdir, step, best), trust)


def choose_step(workdir: str | Path, step: int | None, best: str | None) -> int:
  """Which checkpoint is meant: that of a step, the best, or the newest."""
  steps = checkpoint.steps(workdir)
  if not steps:
    raise UserError(f'{workdir} has no checkpoint yet')
  if best is not None and step is not None:
    raise UserError(f'step={step} or best={best!r}: not both')
  if best is not None:
    return _best(workdir, best, steps)
  if step is None:
    return steps[-1]
  if step not in steps:
    there = ', '.join(map(str, steps))
    raise UserError(f'{workdir} has no checkpoint at step {step} ({there})')
  return step


def _best(workdir: str | Path, name: str, steps: list[int]) -> int:
  """By a score; of several protocols by that which most were measured by."""
  if name in UNRANKED:
    raise UserError(f'{name} tells no better checkpoint from a worse one')
  known = scores.read(workdir)
  named = [
    score
    for score in known
    if score.name == name and score.step in steps and math.isfinite(score.value)
  ]
  if not named:
    there = sorted({score.name for score in known if score.step in steps})
    raise UserError(
      f'no checkpoint of {workdir} has a score {name!r}{nearest(name, there)} '
      f'(there: {", ".join(there) or "none, it was not evaluated yet"})'
    )
  by_stamp: dict[str, list[scores.Score]] = {}
  for score in named:
    by_stamp.setdefault(scores.protocol(score.stamp), []).append(score)
  most = max(by_stamp.values(), key=len)
  best = max if name in HIGHER else min
  return best(most, key=lambda score: score.value).step


def read_metrics(workdir: str | Path) -> 'pandas.DataFrame':
  """`metrics.jsonl` of a run."""
  import pandas

  text = (epath.Path(workdir).expanduser() / 'metrics.jsonl').read_text()
  return pandas.read_json(io.StringIO(text), lines=True)
