"""Distributions that are drawn from, not gathered: small enough to be seen.

A point is a picture of one pixel, its coordinates the channels, so that every
game, penalty and device takes it as it is; `run.sample` gives it as [n, d]. A
new toy is a function that returns one, and a row in TOYS.
"""

import functools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

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

# So many points, always the same, stand for the distribution where it is
# measured and drawn.
REFERENCE = 16_384
# The largest side, in pixels, of a drawing that is drawn from.
DRAWING = 512
# Where `experiments/drawing.png` is, from whatever folder a run is started.
ROOT = Path(__file__).parents[2]

Point = Float[Array, ' d']


class Toy(NamedTuple):
  """A distribution over the plane, or the line.

  Attributes:
    dim: Coordinates of a point: 2, or 1.
    draw: (key) -> a point [dim].
    limit: What is to be seen lies between -limit and limit, each way.
    modes: Centres of the modes [k, dim]; empty: it has none that are counted.
    std: Of each mode.
  """

  dim: int
  draw: Callable[[Key[Array, '']], Point]
  limit: float
  modes: Float[np.ndarray, 'k d'] = np.zeros((0, 1))
  std: float = 0.0


def mixture(modes: Float[np.ndarray, 'k d'], std: float) -> Toy:
  """As likely each, one of several Gaussians of the same deviation."""

  def draw(key):
    which, where = jax.random.split(key)
    centre = jax.random.choice(which, jnp.asarray(modes, jnp.float32))
    return centre + std * jax.random.normal(where, centre.shape)

  limit = float(np.abs(modes).max()) + max(0.5, 4 * std)
  return Toy(modes.shape[1], draw, limit, modes, std)


def gaussian() -> Toy:
  """N(1, 0.5^2) on the line."""
  return mixture(np.array([[1.0]]), 0.5)


def two_gaussians() -> Toy:
  """Two Gaussians on the line, at -1.5 and 1.5, of deviation 0.3."""
  return mixture(np.array([[-1.5], [1.5]]), 0.3)


def uniform() -> Toy:
  """U(-1, 1) on the line."""
  draw = partial(jax.random.uniform, shape=(1,), minval=-1.0, maxval=1.0)
  return Toy(1, draw, 2.0)


def ring() -> Toy:
  """8 Gaussians of deviation 0.02 on a circle of radius 2.

  Metz et al. 2017 (unrolled GANs), section 3.1.
  """
  angle = 2 * np.pi * np.arange(8) / 8
  return mixture(2 * np.stack([np.cos(angle), np.sin(angle)], 1), 0.02)


def grid() -> Toy:
  """25 Gaussians of deviation 0.05, 2 apart.

  Srivastava et al. 2017 (VEEGAN), section 4.1.
  """
  side = 2.0 * np.arange(-2, 3)
  return mixture(np.stack(np.meshgrid(side, side), -1).reshape(25, 2), 0.05)


def swiss_roll() -> Toy:
  """A spiral, from the side: t (cos t, sin t) / 10, t ~ U(3/2 pi, 9/2 pi).

  With noise of deviation 0.02.
  """

  def draw(key):
    along, across = jax.random.split(key)
    t = 1.5 * math.pi * (1 + 2 * jax.random.uniform(along))
    point = t * jnp.stack([jnp.cos(t), jnp.sin(t)]) / 10
    return point + 0.02 * jax.random.normal(across, (2,))

  return Toy(2, draw, 1.7)


def moons() -> Toy:
  """Two half circles of radius 1 that reach into each other.

  With noise of deviation 0.05.
  """

  def draw(key):
    which, along, across = jax.random.split(key, 3)
    side = jnp.where(jax.random.bernoulli(which), 1.0, -1.0)
    angle = math.pi * jax.random.uniform(along)
    x = side * (jnp.cos(angle) - 0.5)
    y = side * (jnp.sin(angle) - 0.25)
    return jnp.stack([x, y]) + 0.05 * jax.random.normal(across, (2,))

  return Toy(2, draw, 1.9)


def line() -> Toy:
  """From (-1, -1/2) to (1, 1/2): in the plane, but of one dimension."""

  def draw(key):
    t = jax.random.uniform(key, minval=-1.0, maxval=1.0)
    return jnp.stack([t, t / 2])

  return Toy(2, draw, 1.4)


def drawing(path: str) -> Toy:
  """The ink of a picture: where it is darker there are more points.

  A relative path is looked for from the current folder, and then from the
  project's.
  """
  # (Where `path` is absolute, both are it.)
  places = [folder / Path(path).expanduser() for folder in (Path.cwd(), ROOT)]
  file = next(filter(Path.is_file, places), None)
  if file is None:
    raise UserError(
      f'data.source=drawing:{path}: there is no such file '
      f'(looked for: {", ".join(map(str, dict.fromkeys(places)))})'
    )
  try:
    with Image.open(file) as opened:
      picture = opened.convert('RGBA')
  except (OSError, UnidentifiedImageError) as error:
    raise UserError(
      f'data.source=drawing:FILE takes a picture, and {path!r} is none '
      f'({type(error).__name__})'
    ) from error
  white = Image.new('RGBA', picture.size, 'white')
  grey = Image.alpha_composite(white, picture).convert('L')
  grey.thumbnail((DRAWING, DRAWING))
  ink = 1 - np.asarray(grey, np.float32) / 255
  if not ink.sum() > 0:
    raise UserError(f'{path} is white: there is nothing to draw points from')
  height, width = ink.shape
  # By the inverse of the distribution function, in the order of the pixels.
  below = np.cumsum(ink.ravel(), dtype=np.float64)
  below = jnp.asarray(below / below[-1], jnp.float32)
  last = int(np.flatnonzero(ink)[-1])
  side = max(height, width)

  def draw(key):
    which, where = jax.random.split(key)
    share = jax.random.uniform(which)
    pixel = jnp.searchsorted(below, share, side='right')
    pixel = jnp.minimum(pixel, last)
    row, column = pixel // width, pixel % width
    x, y = jax.random.uniform(where, (2,))
    across = 2 * (column + x - width / 2) / side
    return jnp.stack([across, 2 * (height / 2 - row - y) / side])

  return Toy(2, draw, 1.1)


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


def is_toy(source: str) -> bool:
  """Whether `config.data.source` names a toy; else it names images."""
  return source.partition(':')[0] in ('drawing', 'toy')


@functools.cache
def toy_of(source: str) -> Toy:
  """The toy that `config.data.source` names."""
  kind, _, name = source.partition(':')
  if kind == 'drawing':
    return drawing(name)
  return choose('config.data.source toy', name, TOYS)()


def points(kind: str, wanted: DataSpec) -> Source:
  """The source of a toy's points."""
  check_no_splits(kind, wanted)
  name = f'{kind}:{wanted.path}'
  toy = toy_of(name)
  if (wanted.resolution, wanted.channels) != (1, toy.dim):
    raise UserError(
      f'points of {name} are pictures of 1 pixel: set config.data.resolution '
      f'to 1, and config.data.channels to their coordinates, {toy.dim}'
    )
  return drawn(lambda key: toy.draw(key)[None, None])


def slanted_land(wanted: DataSpec) -> Source:
  """2x2 pictures of the people of Slanted Land.

  Everybody there is tilted: faces are bright on the main diagonal (3/4 to all
  of full brightness) and dark off it (none to 1/4).
  """
  check_no_splits('slanted_land', wanted)
  if wanted.path or (wanted.resolution, wanted.channels) != (2, 1):
    raise UserError(
      'slanted_land has no path, and grey pictures of 2x2 pixels: '
      'set config.data.resolution to 2 and config.data.channels to 1'
    )

  def draw(key):
    light = jax.random.uniform(key, (4,)) / 4
    light += jnp.array([0.75, 0.0, 0.0, 0.75])
    return 2 * light.reshape(2, 2, 1) - 1

  source = drawn(draw)
  pictures = lambda indices: {
    'images': to_uint8(source.fetch(indices)['images'])
  }
  return source._replace(fetch=pictures)


def drawn(draw: Callable[[Key[Array, '']], Float[Array, 'h w c']]) -> Source:
  """The source of what a function of a key draws."""
  key = jax.random.key(0)

  @jax.jit
  def of_reference(indices):
    keys = example_keys(key, Purpose.REFERENCE, indices)
    return jax.vmap(draw)(keys)

  def fetch(indices: np.ndarray) -> Examples:
    return {'images': np.asarray(of_reference(indices))}

  shape = jax.eval_shape(draw, key).shape
  return Source(REFERENCE, fetch, 4 * math.prod(shape), draw=draw)
