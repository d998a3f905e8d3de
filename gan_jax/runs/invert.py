"""Inversion: the latents whose samples are most similar to given images.

The latents are z; of a style-based generator also w, the same for all layers,
or w+, one w for each layer (Abdal et al. 2019, "Image2StyleGAN").
"""

import numbers
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree, Shaped, UInt8
from PIL import Image

from gan_jax.bounds import check_counts
from gan_jax.errors import UserError
from gan_jax.metrics.features import make as make_features
from gan_jax.ops.pixels import to_uint8
from gan_jax.plots.grid import show
from gan_jax.registry import choose

if TYPE_CHECKING:
  from gan_jax.runs.run import Labels, Run

SPACES = ('w', 'w+', 'z')
# Images that are inverted together, times their starts.
BATCH = 256
# Candidates of a start: the nearest of these samples, in pixels.
CANDIDATES = 256
# The weight of a feature loss's pixels, so that it has no flat regions.
PIXEL_WEIGHT = 0.1
# |z| of a Gaussian is about N(sqrt(d), 1/2): this many above are never seen.
MARGIN = 3

Images = Float[Array, 'n h w c'] | Float[np.ndarray, 'n h w c']


class Inversion(NamedTuple):
  """Images, and their reconstructions by the generator.

  Attributes:
    images: The given images.
    inputs: The inputs of the generator, as of `run.inputs`, with the `z` or the
      `ws` that were found.
    space: The space of the latents.
    reconstructions: `run.generate(inputs)`.
    psnr: The peak signal-to-noise ratio of each reconstruction, in dB:
      10 log10(255^2 / mean squared error).
    distance: The distance of each reconstruction in the features of the loss;
      None for the loss `pixels`.
  """

  images: UInt8[np.ndarray, 'n h w c']
  inputs: dict[str, Array]
  space: str
  reconstructions: UInt8[np.ndarray, 'n h w c']
  psnr: Float[np.ndarray, ' n']
  distance: Float[np.ndarray, ' n'] | None

  @property
  def latents(self) -> Float[np.ndarray, 'n d'] | Float[np.ndarray, 'n l d']:
    """The latents: z or w [n, d], or w+ [n, layers, d]."""
    if self.space == 'z':
      return np.asarray(self.inputs['z'])
    ws = np.asarray(self.inputs['ws'])
    return ws[:, 0] if self.space == 'w' else ws

  def show(self) -> Image.Image:
    """Shows each image beside its reconstruction."""
    pairs = np.stack([self.images, self.reconstructions], axis=1)
    n, sides = len(pairs), pairs.shape[2:]
    columns = 2 * max(1, min(n, round((n / 2) ** 0.5)))
    return show(pairs.reshape(-1, *sides), columns=columns)


def invert(
  run: 'Run',
  images: Shaped[np.ndarray, 'n h w c'],
  steps: int = 500,
  starts: int = 4,
  space: str = 'z',
  loss: str = 'pixels',
  labels: 'Labels | None' = None,
  learning_rate: float = 0.1,
  seed: int = 0,
) -> Inversion:
  """Finds latents of images by optimization with Adam.

  Minimizes the mean squared error of the pixels, or the squared distance of
  features, from several starts for each image: the samples nearest to it among
  random ones and, of a game with an encoder, its encoding. The best result of
  an image counts. The learning rate falls to 0 by a cosine. The latents z stay
  where samples are: a Gaussian z within |z| < sqrt(d) + 3, a uniform one within
  +-1. w and w+ are not bounded.

  Args:
    run: The run.
    images: uint8, or floats in [-1, 1].
    steps: The steps of Adam.
    starts: The starts of each image.
    space: 'z'; of a style-based generator also 'w' or 'w+'. The noise of such a
      generator is that of `inputs['keys']`, and is not optimized.
    loss: 'pixels', or features as in `config.evaluation.features`.
    labels: Of a conditional run: the class of each image, or one for all.
    learning_rate: That of Adam, at the start; in w and w+, in units of the
      standard deviation of w.
    seed: The seed of the starts.

  Raises:
    UserError: An argument is invalid, or the generator has no latents.
  """
  _check(run, steps, starts, space, learning_rate)
  if run._classes and labels is None:
    raise UserError('this run is conditional: pass labels=, one for each image')
  reals = run._to_disc_inputs(images)
  if labels is not None:
    labels = np.asarray(run._expand_labels(len(reals), labels))
  distance = None if loss == 'pixels' else _feature_distance(loss)
  size, parts = max(1, BATCH // starts), []
  for first in range(0, len(reals), size):
    rows = slice(first, first + size)
    classes = None if labels is None else labels[rows]
    starting = _starts(run, reals[rows], starts, classes, seed)
    if space != 'z':
      ws = run._game.style.map(run.params, starting)
      starting = {'ws': ws, 'keys': starting['keys']}
    parts.append(
      _optimize(
        run, space, distance, steps, learning_rate, reals[rows], starting
      )
    )
  inputs = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
  given = to_uint8(jnp.asarray(reals))
  found = run.generate(inputs)
  error = np.square(given.astype(float) - found).mean((1, 2, 3))
  with np.errstate(divide='ignore'):
    psnr = np.float32(10 * np.log10(255**2 / error))
  measured = None if distance is None else _measured(distance, given, found)
  return Inversion(given, inputs, space, found, psnr, measured)


def _check(
  run: 'Run', steps: int, starts: int, space: str, learning_rate: float
) -> None:
  if space != 'z' and run._game.style is None:
    raise UserError(f"space={space!r}: this generator has one space, 'z'")
  choose('space', space, dict.fromkeys(SPACES))
  check_counts(steps=steps, starts=starts)
  if not isinstance(learning_rate, numbers.Real) or not learning_rate > 0:
    raise UserError(
      f'learning_rate={learning_rate!r} must be a positive number'
    )
  if run._game.reads or run._game.interpolate is None:
    raise UserError('run.invert needs latents, and this game has none')
  if run.has_points:
    raise UserError('run.invert needs images, but this run generates points')


def _feature_distance(
  name: str,
) -> Callable[[Array, Array], Float[Array, ' n']]:
  """Makes a squared distance of float images in the features `name`."""
  network = make_features(name)
  weights = jax.tree.map(jnp.asarray, network.weights)

  def extract(images: Images) -> Array:
    pixels = (jnp.asarray(images, jnp.float32) + 1) * 127.5
    features = network.extract(weights, pixels)['features']
    return features.reshape(len(features), -1)

  return jax.jit(
    lambda a, b: jnp.sum(jnp.square(extract(a) - extract(b)), axis=-1)
  )


def _measured(
  distance: Callable[[Array, Array], Array],
  given: UInt8[np.ndarray, 'n h w c'],
  found: UInt8[np.ndarray, 'n h w c'],
) -> Float[np.ndarray, ' n']:
  """Measures the distance in features of each pair of images."""
  to_float = lambda x: x.astype(np.float32) / 127.5 - 1
  squares = [
    distance(to_float(given[i : i + BATCH]), to_float(found[i : i + BATCH]))
    for i in range(0, len(given), BATCH)
  ]
  return np.sqrt(np.concatenate(squares))


def _starts(
  run: 'Run',
  reals: Images,
  starts: int,
  labels: np.ndarray | None,
  seed: int,
) -> dict[str, Array]:
  """Returns inputs [starts * n, ...]: of the samples nearest to each image.

  The encoding of an image, if the game has an encoder, replaces the last.
  """
  n = len(reals)
  if labels is None:
    candidates = run.inputs(max(CANDIDATES, starts), seed)
    samples = run.generate(candidates).reshape(1, -1, reals[0].size)
    rows = jnp.zeros(n, int)
  else:  # candidates of each class that occurs
    known, rows = np.unique(labels, return_inverse=True)
    count = max(CANDIDATES // len(known), starts)
    drawn = [run.inputs(count, seed, labels=int(label)) for label in known]
    samples = np.stack(
      [run.generate(x).reshape(-1, reals[0].size) for x in drawn]
    )
    candidates = jax.tree.map(lambda *x: jnp.concatenate(x), *drawn)
  flat = to_uint8(jnp.asarray(reals)).reshape(n, -1).astype(np.float32)
  nearest = []
  for row, x in zip(np.asarray(rows), flat, strict=True):
    errors = np.square(samples[row].astype(np.float32) - x).mean(-1)
    nearest.append(row * samples.shape[1] + np.argsort(errors)[:starts])
  indices = np.stack(nearest, axis=1).reshape(-1)  # starts first
  starting = jax.tree.map(lambda x: x[indices], candidates)
  encoded = run.encode(reals) if run._game.encode is not None else {}
  if 'z' in encoded:
    starting['z'] = starting['z'].at[-n:].set(encoded['z'])
  return starting


def _moves(run: 'Run', space: str) -> Callable[[PyTree, Array], PyTree]:
  """Returns (inputs, x) -> the inputs, whose latents are moved by x."""
  if space == 'z':
    keep = _projection(run)
    return lambda inputs, x: {**inputs, 'z': keep(inputs['z'] + x)}
  drawn = run.w(run.inputs(CANDIDATES)['z'])[:, 0]
  std = float(np.sqrt(drawn.var(axis=0).mean()))
  return lambda inputs, x: {**inputs, 'ws': inputs['ws'] + std * x}


def _optimize(
  run: 'Run',
  space: str,
  distance: Callable[[Array, Array], Array] | None,
  steps: int,
  learning_rate: float,
  reals: Images,
  starting: dict[str, Array],
) -> dict[str, Array]:
  """Optimizes all starts; returns the best inputs of each image."""
  n = len(reals)
  starts = len(starting['keys']) // n
  targets = jnp.tile(jnp.asarray(reals), (starts, 1, 1, 1))
  rate = optax.cosine_decay_schedule(learning_rate, steps)
  tx, move = optax.adam(rate), _moves(run, space)

  def losses(x: Array, params, inputs, targets) -> Float[Array, ' m']:
    images = run.generator(params, move(inputs, x))
    pixels = jnp.mean(jnp.square(images - targets), axis=(1, 2, 3))
    if distance is None:
      return pixels
    return distance(images, targets) + PIXEL_WEIGHT * pixels

  @jax.jit
  def minimize(params, inputs, targets):
    def step(carry, _):
      x, state = carry
      grads = jax.grad(lambda x: losses(x, params, inputs, targets).sum())(x)
      updates, state = tx.update(grads, state)
      return (optax.apply_updates(x, updates), state), None

    x = jnp.zeros_like(inputs['z'] if space == 'z' else inputs['ws'])
    x = x[:, :1] if space == 'w' else x
    (x, _), _ = jax.lax.scan(step, (x, tx.init(x)), length=steps)
    return move(inputs, x), losses(x, params, inputs, targets)

  found, final = minimize(run.params, starting, targets)
  best = jnp.argmin(final.reshape(starts, n), axis=0)
  indices = best * n + jnp.arange(n)
  return jax.tree.map(lambda x: x[indices], found)


def _projection(run: 'Run') -> Callable[[Array], Array]:
  """Returns the map of latents into the region of typical samples."""
  latent = run.config.game.get('latent')
  norm = lambda z: jnp.linalg.norm(z, axis=-1, keepdims=True)
  if latent == 'uniform':
    return partial(jnp.clip, min=-1, max=1)
  if latent == 'sphere':
    return lambda z: z * (z.shape[-1] ** 0.5 / norm(z))
  if latent == 'gaussian':
    return lambda z: z * jnp.minimum(1, (z.shape[-1] ** 0.5 + MARGIN) / norm(z))
  return lambda z: z
