"""Opens a trained run, in a notebook for instance."""

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Int32, PyTree, Shaped, UInt8
from ml_collections import ConfigDict

from gan_jax import config, games
from gan_jax.bounds import check_counts, check_seed
from gan_jax.data.on_device import read_unflipped
from gan_jax.data.source import Source
from gan_jax.data.toys import has_points
from gan_jax.errors import UserError
from gan_jax.games.game import Output, main_output, truncated
from gan_jax.keys import Purpose, example_keys
from gan_jax.ops.pixels import to_uint8
from gan_jax.pair import Pair
from gan_jax.registry import choose, code_names
from gan_jax.runs.directions import directions, walk
from gan_jax.runs.export import export
from gan_jax.runs.film import film
from gan_jax.runs.generate import save_samples
from gan_jax.runs.invert import invert
from gan_jax.runs.nearest import nearest
from gan_jax.runs.pictures import growth, interpolate, show
from gan_jax.runs.ratio import calibration, more_likely
from gan_jax.runs.representation import encode, features
from gan_jax.runs.steps import choose_step
from gan_jax.runs.style import StyleMethods
from gan_jax.runs.translate import translate
from gan_jax.runs.upscale import upscale, upscale_scores
from gan_jax.training import checkpoint
from gan_jax.training.schedule import make_schedule

if TYPE_CHECKING:
  import pandas

# Size limits of a batch of samples: number of samples, and pixels in total.
BATCH, PIXELS = 256, 2**22

# A label for each sample, or one label for all.
Labels = int | Sequence[int] | np.ndarray | Array


class Run(StyleMethods):
  """A checkpoint of a run: its generator, discriminator, config and metrics.

  Attributes:
    workdir: The run's folder.
    config: The experiment's config.
    step: The iteration of the checkpoint.
    images: The real images shown to D until then.
    params: The generator's variables: the moving average of its parameters and
      of its BatchNorm statistics.
    has_points: Whether its samples are points instead of images.
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
    self._generate = jax.jit(self.generator, static_argnames='output')
    self.has_points = has_points(settings)
    self._classes = settings.data.get('classes', 0)

  def __repr__(self) -> str:
    return f'Run({self.workdir!r}, step={self.step}, images={self.images})'

  # Uses of a trained run, each in a file of its own.
  save_samples = save_samples
  show = show
  interpolate = interpolate
  growth = growth
  film = film
  export = export
  invert = invert
  directions = directions
  walk = walk
  encode = encode
  features = features
  more_likely = more_likely
  calibration = calibration
  nearest = nearest
  translate = translate
  upscale = upscale
  upscale_scores = upscale_scores

  @property
  def outputs(self) -> Mapping[str, Output]:
    """The outputs of the run's game, the main one first."""
    return self._game.outputs

  @property
  def main_output(self) -> Output:
    """The first output."""
    return main_output(self._game)

  @property
  def reads(self) -> tuple[str, ...]:
    """The entries of real examples that the generator is given."""
    return self._game.reads

  def generator(
    self, params: PyTree, inputs: PyTree, output: str | None = None
  ) -> Float[Array, 'n h w c']:
    """Generates images in [-1, 1]; a pure function that JAX can transform.

    `run.inputs` samples the inputs; inputs['z'] holds an image game's latents.
    `output` names one of the outputs of a game with several; None: the first.
    """
    return self._output(output).sample(params, inputs, self._phase)

  def _output(self, name: str | None) -> Output:
    """Returns an output by name; None: the main one."""
    if name is None:
      return main_output(self._game)
    return choose('output', name, self._game.outputs)

  def inputs(
    self,
    n: int,
    seed: int = 0,
    truncation: float | None = None,
    labels: Labels | None = None,
    first: int = 0,
    **real: Array,
  ) -> PyTree:
    """Samples the generator's inputs, such as latents and labels.

    The inputs for a smaller `n` are the first of those for a larger one.

    Args:
      n: The number of samples.
      seed: Another seed gives other samples.
      truncation: The largest absolute value of a latent. A smaller value gives
        better and less diverse samples. Of a style-based generator: psi, from
        0, the average image, to 1, no truncation. None: no truncation.
      labels: Of a conditional run: a class for each sample, or one for all.
        None: random classes.
      first: The number of the first of the `n` samples.
      **real: Real examples [n, ...], by name, if the generator reads them:
        `images` in [-1, 1] for super-resolution. None: examples of the run's
        data, of the held-out split if it has one.

    Raises:
      UserError: The run is unconditional, or the labels are invalid; or `real`
        is not what the generator reads.
    """
    check_counts(n=n)
    check_seed(seed)
    if not real and self.reads:
      real = self._real_examples(n, first)
    if set(real) != set(self.reads):
      needed = ', '.join(f'{name}=' for name in self.reads)
      raise UserError(
        f'the generator of {self.workdir} reads '
        f'{needed or "no real examples"}, not '
        f'{", ".join(f"{name}=" for name in real)}'
      )
    numbers = first + jnp.arange(n)
    keys = example_keys(jax.random.key(seed), Purpose.SAMPLE, numbers)
    batch = dict(real)
    if labels is not None:
      batch['labels'] = self._expand_labels(n, labels)
    inputs = self._game.sample_inputs(keys, batch, self._phase)
    return truncated(self._game, inputs, truncation)

  def sample(
    self,
    n: int,
    seed: int = 0,
    truncation: float | None = None,
    labels: Labels | None = None,
    output: str | None = None,
    **real: Array,
  ) -> UInt8[np.ndarray, 'n h w c'] | Float[np.ndarray, 'n d']:
    """Generates `n` images; the same seed gives the same images.

    The arguments are those of `inputs`, and `output` as in `generator`. A toy
    returns points [n, d].
    """
    self._output(output)
    inputs = self.inputs(n, seed, truncation, labels, **real)
    return self.generate(inputs, output)

  def generate(
    self, inputs: PyTree, output: str | None = None
  ) -> Shaped[np.ndarray, 'n ...']:
    """Generates uint8 images, or points, of inputs, in batches of limited size.

    See `inputs`.
    """
    return self._in_batches(inputs, partial(self._generate, output=output))

  def _in_batches(
    self, inputs: PyTree, generate: Callable[..., Array]
  ) -> Shaped[np.ndarray, 'n ...']:
    """Calls generate(params, inputs) in batches of limited size."""
    n, parts = len(jax.tree.leaves(inputs)[0]), []
    size = min(BATCH, max(1, PIXELS // self.config.data.resolution**2))
    for start in range(0, n, size):
      part = jax.tree.map(lambda x, i=start: x[i : i + size], inputs)
      images = generate(self.params, part)
      parts.append(
        np.asarray(images)[:, 0, 0] if self.has_points else to_uint8(images)
      )
    return np.concatenate(parts)

  def _real_examples(self, n: int, first: int = 0) -> dict[str, Array]:
    """Reads `n` examples of the data, the entries that the generator needs."""
    source, rows = self._reals, first + np.arange(n)
    batch = read_unflipped(source, rows % source.size, rows)
    return {name: batch[name] for name in self.reads}

  @functools.cached_property
  def _reals(self) -> Source:
    """The data that the generator reads; the held-out split if there is one.

    Opened once: a folder is decoded when it is opened.
    """
    from gan_jax import data

    settings = self.config
    held_out = settings.get('evaluation', {}).get('held_out')
    if held_out is not None:
      settings = config.changed(settings, 'data.split', held_out)
    return data.make(settings)

  def metrics(self) -> 'pandas.DataFrame':
    """Returns `metrics.jsonl` as a DataFrame, one row for each line."""
    return read_metrics(self.workdir)

  @functools.cached_property
  def _variables(self) -> Pair[PyTree]:
    """The trained variables of both players, without the moving average."""
    both = checkpoint.read(self.workdir, ('variables',), self.step)
    return Pair(**both['variables'])

  @functools.cached_property
  def _averaged(self) -> Pair[PyTree]:
    """The variables of both players, with the moving average of G's."""
    return Pair(gen=self.params, disc=self.disc_vars)

  @property
  def disc_vars(self) -> PyTree:
    """The trained variables of the discriminator."""
    return self._variables.disc

  def discriminator(
    self,
    images: Shaped[np.ndarray, 'n ...'],
    labels: Labels | None = None,
  ) -> Float[np.ndarray, ' n']:
    """Returns D's logit of each image or point.

    Args:
      images: Images [n, h, w, c], uint8 or floats in [-1, 1]; or points [n, d].
      labels: A class for each image, or one for all. A conditional D needs
        labels; an auxiliary classifier does not.

    For the optimal D and a cross-entropy loss without label smoothing, the
    logit is log p_data(x) - log p_G(x) (Goodfellow et al. 2014, proposition 1),
    unless D discriminates several images together (`pack`, `stddev_group`).

    Raises:
      UserError: The shape is wrong, or this game's D needs other inputs.
    """
    if self._game.discriminate is None:
      raise UserError('the discriminator of this game needs more than images')
    images = self._to_disc_inputs(images)
    if labels is not None:
      labels = self._expand_labels(len(images), labels)
    parts = []
    for start in range(0, len(images), BATCH):
      batch = {'images': images[start : start + BATCH]}
      if labels is not None:
        batch['labels'] = labels[start : start + BATCH]
      output = self._game.discriminate(self.disc_vars, batch, self._phase)
      parts.append(np.asarray(output.logits))
    return np.concatenate(parts)

  def features_of_config(self) -> str | None:
    """Returns the name of the features in the run's config.

    Raises:
      UserError: The name is MODULE:FUNCTION, and the run was opened without
        `trust`. Importing a module runs its code, which the author of the
        config could have chosen.
    """
    name = self.config.get('evaluation', {}).get('features')
    if name is not None and ':' in name and not self._trust:
      raise UserError(
        f'the config in {self.workdir} names features={name!r}, code that '
        'would be imported: pass features=FUNCTION, or open the run by '
        'gan_jax.load(workdir, trust=True)'
      )
    return name

  def _to_disc_inputs(
    self, images: Shaped[np.ndarray, 'n ...']
  ) -> Float[np.ndarray, 'n h w c']:
    """Converts images or points to the inputs of D.

    Raises:
      UserError: There are none, or they have another shape or range.
    """
    images, data = np.asarray(images), self.config.data
    shape = (data.resolution, data.resolution, data.channels)
    expected = shape[2:] if self.has_points else shape
    if images.shape[1:] != expected:
      raise UserError(
        f'this run takes [n, {", ".join(map(str, expected))}], not '
        f'{list(images.shape)}'
      )
    if not len(images):
      raise UserError('there are no images: pass one or more')
    if images.dtype == np.uint8:
      return images.astype(np.float32) / 127.5 - 1
    if not self.has_points and not np.abs(images).max() <= 2:  # or it is NaN
      raise UserError('images must be uint8, or floats in [-1, 1]')
    return images.reshape(len(images), *shape)

  def _expand_labels(self, n: int, labels: Labels) -> Int32[Array, ' n']:
    """Returns `n` labels; repeats a single label."""
    if not self._classes:
      raise UserError('this run is unconditional: remove labels=...')
    labels = np.asarray(labels)
    labels = np.broadcast_to(labels, (n,)) if labels.ndim == 0 else labels
    if labels.shape != (n,):
      raise UserError(
        f'pass {n} labels, or one for all: not shape {labels.shape}'
      )
    if not np.isin(labels, np.arange(self._classes)).all():
      raise UserError(f'labels must be from 0 to {self._classes - 1}')
    return jnp.asarray(labels, jnp.int32)


def load(
  workdir: str | Path,
  step: int | None = None,
  best: str | None = None,
  trust: bool = False,
) -> Run:
  """Opens a run; see `gan_jax.load`."""
  workdir = str(epath.Path(workdir).expanduser())
  settings = config.read(workdir)
  names = code_names(config.flatten(settings.to_dict()))
  if names and not trust:
    raise UserError(
      f'the config of the run in {workdir} names code of its own, '
      f'{", ".join(names)}, and opening the run executes it: if you trust it, '
      'open the run by gan_jax.load(workdir, trust=True)'
    )
  return Run(workdir, settings, choose_step(workdir, step, best), trust)


def read_metrics(workdir: str | Path) -> 'pandas.DataFrame':
  """Reads `metrics.jsonl` of a run."""
  import pandas

  text = (epath.Path(workdir).expanduser() / 'metrics.jsonl').read_text()
  return pandas.read_json(io.StringIO(text), lines=True)
