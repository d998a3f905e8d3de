"""Inversion: the latents whose samples are most similar to given images."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Shaped, UInt8
from PIL import Image

from gan_jax.errors import UserError
from gan_jax.metrics.features import make as make_features
from gan_jax.ops.pixels import to_uint8
from gan_jax.plots.grid import show

if TYPE_CHECKING:
  from gan_jax.runs.run import Labels, Run

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
    inputs: The inputs of the generator, as of `run.inputs`: `z` was found.
    reconstructions: `run.generate(inputs)`.
    psnr: The peak signal-to-noise ratio of each reconstruction, in dB:
      10 log10(255^2 / mean squared error).
    distance: The distance of each reconstruction in the features of the loss;
      None for the loss `pixels`.
  """

  images: UInt8[np.ndarray, 'n h w c']
  inputs: dict[str, Array]
  reconstructions: UInt8[np.ndarray, 'n h w c']
  psnr: Float[np.ndarray, ' n']
  distance: Float[np.ndarray, ' n'] | None

  @property
  def latents(self) -> Float[np.ndarray, 'n d']:
    """The latents, `inputs['z']`."""
    return np.asarray(self.inputs['z'])

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
  random ones. The best result of an image counts. The learning rate falls to 0
  by a cosine. The latents stay where samples are: a Gaussian z within
  |z| < sqrt(d) + 3, a uniform one within +-1.

  Args:
    run: The run.
    images: uint8, or floats in [-1, 1].
    steps: The steps of Adam.
    starts: The starts of each image.
    space: 'z'.
    loss: 'pixels', or features as in `config.evaluation.features`.
    labels: Of a conditional run: the class of each image, or one for all.
    learning_rate: That of Adam, at the start.
    seed: The seed of the starts.

  Raises:
    UserError: An argument is invalid, or the generator has no latents.
  """
  _check(run, steps, starts, space, learning_rate)
  if run._classes and labels is None:
    raise UserError('this run is conditional: pass labels=, one for each image')
  reals = run._to_disc_inputs(np.asarray(images))
  if labels is not None and np.ndim(labels) == 0:
    labels = np.full(len(reals), labels)
  distance = None if loss == 'pixels' else _feature_distance(loss)
  size, parts = max(1, BATCH // starts), []
  for first in range(0, len(reals), size):
    rows = slice(first, first + size)
    classes = None if labels is None else np.asarray(labels)[rows]
    starting = _starts(run, reals[rows], starts, classes, seed)
    parts.append(
      _optimize(run, distance, steps, learning_rate, reals[rows], starting)
    )
  inputs = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
  given = to_uint8(jnp.asarray(reals))
  found = run.generate(inputs)
  error = np.square(given.astype(float) - found).mean((1, 2, 3))
  with np.errstate(divide='ignore'):
    psnr = 10 * np.log10(255**2 / error)
  measured = None
  if distance is not None:
    measured = [
      np.asarray(
        distance(
          given[i : i + size] / 127.5 - 1, found[i : i + size] / 127.5 - 1
        )
      )
      for i in range(0, len(given), size)
    ]
    measured = np.sqrt(np.concatenate(measured))
  return Inversion(given, inputs, found, psnr.astype(np.float32), measured)


def _check(
  run: 'Run', steps: int, starts: int, space: str, learning_rate: float
) -> None:
  if space != 'z':
    raise UserError(f"space={space!r}: this generator has one space, 'z'")
  for name, value in {'steps': steps, 'starts': starts}.items():
    if value < 1:
      raise UserError(f'{name}={value} must be 1 or more')
  if not learning_rate > 0:
    raise UserError(f'learning_rate={learning_rate} must be positive')
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


def _starts(
  run: 'Run',
  reals: Images,
  starts: int,
  labels: np.ndarray | None,
  seed: int,
) -> dict[str, Array]:
  """Returns inputs [starts * n, ...]: of the samples nearest to each image."""
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
  return jax.tree.map(lambda x: x[indices], candidates)


def _optimize(
  run: 'Run',
  distance: Callable[[Array, Array], Array] | None,
  steps: int,
  learning_rate: float,
  reals: Images,
  starting: dict[str, Array],
) -> dict[str, Array]:
  """Optimizes all starts; returns the best inputs of each image."""
  n = len(reals)
  starts = len(starting['z']) // n
  targets = jnp.tile(jnp.asarray(reals), (starts, 1, 1, 1))
  rate = optax.cosine_decay_schedule(learning_rate, steps)
  tx = optax.adam(rate)
  keep = _projection(run)

  def losses(z: Array, params, inputs, targets) -> Float[Array, ' m']:
    images = run.generator(params, {**inputs, 'z': keep(z)})
    pixels = jnp.mean(jnp.square(images - targets), axis=(1, 2, 3))
    if distance is None:
      return pixels
    return distance(images, targets) + PIXEL_WEIGHT * pixels

  @jax.jit
  def minimize(params, inputs, targets):
    def step(carry, _):
      z, state = carry
      grads = jax.grad(lambda z: losses(z, params, inputs, targets).sum())(z)
      updates, state = tx.update(grads, state)
      return (optax.apply_updates(z, updates), state), None

    z = inputs['z']
    (z, _), _ = jax.lax.scan(step, (z, tx.init(z)), length=steps)
    return keep(z), losses(z, params, inputs, targets)

  z, final = minimize(run.params, starting, targets)
  best = jnp.argmin(final.reshape(starts, n), axis=0)
  indices = best * n + jnp.arange(n)
  return jax.tree.map(lambda x: x[indices], {**starting, 'z': z})


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
