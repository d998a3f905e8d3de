"""Toy distributions in 1-D and 2-D, sampled on the device.

A point is an image of one pixel, whose channels are the coordinates: every
game, penalty and device takes points as it takes images. `run.sample` returns
points as [n, d]. To add a toy, write a function () -> Toy and add it to TOYS.
"""

import functools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from PIL import Image, UnidentifiedImageError

from gan_jax.data.source import DataSpec, Examples, Source, check_no_splits
from gan_jax.errors import UserError
from gan_jax.keys import Purpose, example_keys
from gan_jax.ops.pixels import to_uint8
from gan_jax.registry import choose

# The number of reference points: a fixed sample of the distribution, used by
# metrics and plots.
NUM_REFERENCE = 16_384
# Larger drawings are reduced to this size, in pixels.
MAX_DRAWING_SIZE = 512
# The folder of the project: `experiments/drawing.png` is found from any folder.
ROOT = Path(__file__).parents[2]

Point = Float[Array, ' d']


class Toy(NamedTuple):
  """A distribution in 1-D or 2-D.

  Attributes:
    dim: The number of coordinates: 1 or 2.
    draw: (key) -> a point [dim].
    limit: Plots and histograms show -limit to limit on each axis.
    modes: The centres of the modes [k, dim]; empty: no modes are counted.
    std: The standard deviation of each mode.
  """

  dim: int
  draw: Callable[[Key[Array, '']], Point]
  limit: float
  modes: Float[np.ndarray, 'k d'] = np.zeros((0, 1))
  std: float = 0.0


def mixture(modes: Float[np.ndarray, 'k d'], std: float) -> Toy:
  """Makes a uniform mixture of Gaussians with the same standard deviation."""

  def draw(key):
    mode_key, noise_key = jax.random.split(key)
    centre = jax.random.choice(mode_key, jnp.asarray(modes, jnp.float32))
    return centre + std * jax.random.normal(noise_key, centre.shape)

  limit = float(np.abs(modes).max()) + max(0.5, 4 * std)
  return Toy(modes.shape[1], draw, limit, modes, std)


def gaussian() -> Toy:
  """N(1, 0.5^2) in 1-D."""
  return mixture(np.array([[1.0]]), 0.5)


def two_gaussians() -> Toy:
  """Two Gaussians in 1-D, at -1.5 and 1.5, with standard deviation 0.3."""
  return mixture(np.array([[-1.5], [1.5]]), 0.3)


def uniform() -> Toy:
  """U(-1, 1) in 1-D."""
  draw = partial(jax.random.uniform, shape=(1,), minval=-1.0, maxval=1.0)
  return Toy(1, draw, 2.0)


def ring() -> Toy:
  """8 Gaussians with standard deviation 0.02 on a circle of radius 2.

  Metz et al. 2017 (unrolled GANs), section 3.1.
  """
  angle = 2 * np.pi * np.arange(8) / 8
  return mixture(2 * np.stack([np.cos(angle), np.sin(angle)], 1), 0.02)


def grid() -> Toy:
  """25 Gaussians with standard deviation 0.05, at distances of 2.

  Srivastava et al. 2017 (VEEGAN), section 4.1.
  """
  side = 2.0 * np.arange(-2, 3)
  return mixture(np.stack(np.meshgrid(side, side), -1).reshape(25, 2), 0.05)


def swiss_roll() -> Toy:
  """A spiral: t (cos t, sin t) / 10, t ~ U(3/2 pi, 9/2 pi).

  With Gaussian noise of standard deviation 0.02.
  """

  def draw(key):
    t_key, noise_key = jax.random.split(key)
    t = 1.5 * math.pi * (1 + 2 * jax.random.uniform(t_key))
    point = t * jnp.stack([jnp.cos(t), jnp.sin(t)]) / 10
    return point + 0.02 * jax.random.normal(noise_key, (2,))

  return Toy(2, draw, 1.7)


def moons() -> Toy:
  """Two interleaved half circles of radius 1.

  With Gaussian noise of standard deviation 0.05.
  """

  def draw(key):
    side_key, angle_key, noise_key = jax.random.split(key, 3)
    side = jnp.where(jax.random.bernoulli(side_key), 1.0, -1.0)
    angle = math.pi * jax.random.uniform(angle_key)
    x = side * (jnp.cos(angle) - 0.5)
    y = side * (jnp.sin(angle) - 0.25)
    return jnp.stack([x, y]) + 0.05 * jax.random.normal(noise_key, (2,))

  return Toy(2, draw, 1.9)


def line() -> Toy:
  """A uniform distribution on the segment (-1, -1/2) to (1, 1/2) in 2-D."""

  def draw(key):
    t = jax.random.uniform(key, minval=-1.0, maxval=1.0)
    return jnp.stack([t, t / 2])

  return Toy(2, draw, 1.4)


def drawing(path: str) -> Toy:
  """The density of the ink of an image: darker pixels get more points.

  An image with one row of pixels is a density in 1-D. A relative path is
  searched in the current folder, then in the project.

  Raises:
    UserError: The file does not exist, is not an image, or is white.
  """
  ink = _read_ink(path)
  height, width = ink.shape
  # Inverse transform sampling over the pixels in row-major order.
  cdf = np.cumsum(ink.ravel(), dtype=np.float64)
  cdf = jnp.asarray(cdf / cdf[-1], jnp.float32)
  last_inked = int(np.flatnonzero(ink)[-1])
  side, dim = max(height, width), 1 if height == 1 else 2

  def draw(key):
    pixel_key, offset_key = jax.random.split(key)
    quantile = jax.random.uniform(pixel_key)
    pixel = jnp.searchsorted(cdf, quantile, side='right')
    pixel = jnp.minimum(pixel, last_inked)
    row, column = pixel // width, pixel % width
    x, y = jax.random.uniform(offset_key, (2,))
    horizontal = 2 * (column + x - width / 2) / side
    vertical = 2 * (height / 2 - row - y) / side
    return jnp.stack([horizontal, vertical][:dim])

  return Toy(dim, draw, 1.1)


def _read_ink(path: str) -> Float[np.ndarray, 'h w']:
  """Reads the ink of an image: 0 where it is white, 1 where it is black."""
  # (For an absolute `path`, both candidates are `path` itself.)
  candidates = [
    folder / Path(path).expanduser() for folder in (Path.cwd(), ROOT)
  ]
  file = next(filter(Path.is_file, candidates), None)
  if file is None:
    raise UserError(
      f'data.source=drawing:{path}: there is no such file '
      f'(searched: {", ".join(map(str, dict.fromkeys(candidates)))})'
    )
  try:
    with Image.open(file) as opened:
      image = opened.convert('RGBA')
  except (OSError, UnidentifiedImageError) as error:
    raise UserError(
      f'data.source=drawing:FILE must name an image file, and {path!r} cannot '
      f'be decoded ({type(error).__name__})'
    ) from error
  white = Image.new('RGBA', image.size, 'white')
  grey = Image.alpha_composite(white, image).convert('L')
  grey.thumbnail((MAX_DRAWING_SIZE, MAX_DRAWING_SIZE))
  ink = 1 - np.asarray(grey, np.float32) / 255
  if not ink.sum() > 0:
    raise UserError(
      f'{path} is white: draw something dark, because points are drawn from '
      'dark pixels'
    )
  return ink


TOYS: dict[str, Callable[[], Toy]] = {
  'gaussian': gaussian,
  'grid': grid,
  'line': line,
  'moons': moons,
  'ring': ring,
  'swiss_roll': swiss_roll,
  'two_gaussians': two_gaussians,
  'uniform': uniform,
}


def has_points(config: Any) -> bool:
  """Whether the data of a config are points, which are images of one pixel."""
  return config.data.resolution == 1


@functools.cache
def named_toy(source: str) -> Toy:
  """Returns the toy that a value of `config.data.source` names."""
  kind, _, name = source.partition(':')
  if kind == 'drawing':
    return drawing(name)
  return choose('config.data.source toy', name, TOYS)()


def points(kind: str, spec: DataSpec) -> Source:
  """Makes a source of the points of a toy."""
  check_no_splits(kind, spec)
  name = f'{kind}:{spec.path}'
  toy = named_toy(name)
  if (spec.resolution, spec.channels) != (1, toy.dim):
    raise UserError(
      f'points of {name} are images of 1 pixel: set config.data.resolution=1, '
      f'and config.data.channels={toy.dim}, the number of coordinates'
    )
  return drawn(lambda key: toy.draw(key)[None, None])._replace(toy=toy)


def slanted_land(spec: DataSpec) -> Source:
  """Makes a source of 2x2 images of the people of Slanted Land.

  Everybody there is tilted: the main diagonal of a face is bright (3/4 to full
  brightness), and the other pixels are dark (0 to 1/4).
  """
  check_no_splits('slanted_land', spec)
  if spec.path or (spec.resolution, spec.channels) != (2, 1):
    raise UserError(
      'slanted_land takes no path and has grey images of 2x2 pixels: '
      'set config.data.resolution=2 and config.data.channels=1'
    )

  def draw(key):
    light = jax.random.uniform(key, (4,)) / 4
    light += jnp.array([0.75, 0.0, 0.0, 0.75])
    return 2 * light.reshape(2, 2, 1) - 1

  source = drawn(draw)
  fetch = lambda indices: {'images': to_uint8(source.fetch(indices)['images'])}
  return source._replace(fetch=fetch)


def drawn(draw: Callable[[Key[Array, '']], Float[Array, 'h w c']]) -> Source:
  """Makes a source of images that `draw` draws from a key."""
  key = jax.random.key(0)

  @jax.jit
  def draw_reference(indices):
    keys = example_keys(key, Purpose.REFERENCE, indices)
    return jax.vmap(draw)(keys)

  def fetch(indices: np.ndarray) -> Examples:
    return {'images': np.asarray(draw_reference(indices))}

  shape = jax.eval_shape(draw, key).shape
  return Source(NUM_REFERENCE, fetch, 4 * math.prod(shape), draw=draw)
