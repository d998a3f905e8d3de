"""Who lies near whom: distances of every example to every other.

Products are taken in float32, in blocks, on the device; what float32 cannot
tell is decided in float64 on the host. So duplicates are exactly 0 apart, and
a point that lies exactly on a sphere is not in or out by chance.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gan_jax.errors import UserError

# Examples: of the distances no more lie in memory than of such a block.
QUERIES, BASE = 2048, 8192
# The rounding of a squared distance, of |a|^2 + |b|^2: generous for thousands
# of features.
ROUNDING = 2e-6
# Candidates beyond the k nearest, as rounding may change places.
SPARE = 4

Features = Float[np.ndarray, 'n d']


class Neighbors(NamedTuple):
  """The nearest first; float64 and positions in the base."""

  distances: Float[np.ndarray, 'n k']
  indices: Int[np.ndarray, 'n k']


class PrecisionRecall(NamedTuple):
  """Shares, 0 to 1: of plausible fakes, and of reals that G could make."""

  precision: float
  recall: float


class DensityCoverage(NamedTuple):
  """Density: 1 is expected of equal distributions; coverage: 0 to 1."""

  density: float
  coverage: float


class Memorisation(NamedTuple):
  """How near the training set is.

  Attributes:
    closer: The probability that a fake is nearer to it than an unseen real.
    fake_median, held_out_median: Of the distances to the nearest of it.
  """

  closer: float
  fake_median: float
  held_out_median: float


def nearest_neighbors(
  queries: Float[np.ndarray, 'n d'],
  base: Float[np.ndarray, 'm d'],
  k: int = 1,
) -> Neighbors:
  """The k nearest of the base to each query, by Euclidean distance.

  The distances are those of the pairs found, in float64; which ones are found
  is decided by float32 where the (k + 5)th is as near as its rounding.

  Args:
    queries, base: Features, [n, d] and [m, d].
    k: How many; an example that is in both is its own nearest.

  Raises:
    UserError: The base has fewer than k.
  """
  if not 1 <= k <= len(base):
    raise UserError(f'k={k} must be from 1 to the {len(base)} examples given')
  keep = min(k + SPARE, len(base))
  blocks = _blocks(base, BASE, base)
  distances, indices = [], []
  for rows, block in _blocks(queries, QUERIES, base):
    squares, places = [], []
    for columns, part in blocks:
      some, where = _smallest(block, part, count=keep)
      squares.append(np.asarray(some))
      places.append(np.asarray(where) + columns.start)
    order = np.argsort(np.concatenate(squares, 1), 1)[:, :keep]
    found = np.take_along_axis(np.concatenate(places, 1), order, 1)
    who = np.repeat(np.arange(rows.start, rows.stop), keep)
    exact = _exact(queries, who, base, found.ravel()).reshape(found.shape)
    order = np.lexsort((found, exact))[:, :k]  # of equals, the first
    distances.append(np.take_along_axis(exact, order, 1))
    indices.append(np.take_along_axis(found, order, 1))
  return Neighbors(np.concatenate(distances), np.concatenate(indices))


def precision_recall(
  real: Float[np.ndarray, 'n d'], fake: Float[np.ndarray, 'm d'], k: int = 3
) -> PrecisionRecall:
  """Improved precision and recall.

  precision = mean_j 1[exists i: |y_j - x_i| <= r_k(x_i)], r_k the distance to
  the k-th nearest other of the same set; recall with x and y exchanged.

  Kynkäänniemi et al. 2019, equations 1 and 2. Customarily k = 3, and 50,000
  of each.

  Raises:
    UserError: A set has fewer than k + 1 examples.
  """
  shares = []
  for points, centres in ((fake, real), (real, fake)):
    balls, _ = _inside(points, centres, _radii(centres, k), closed=True)
    shares.append(float((balls > 0).mean()))
  return PrecisionRecall(*shares)


def density_coverage(
  real: Float[np.ndarray, 'n d'], fake: Float[np.ndarray, 'm d'], k: int = 5
) -> DensityCoverage:
  """Density and coverage.

  density = 1 / (k m) sum_{i, j} 1[|y_j - x_i| < r_k(x_i)]
  coverage = mean_i 1[exists j: |y_j - x_i| < r_k(x_i)]

  r_k(x_i) is the distance of the real x_i to the k-th nearest other. Naeem et
  al. 2020, equations 3 and 4. Customarily k = 5, and 10,000 of each.

  Raises:
    UserError: A set has fewer than k + 1 examples.
  """
  if len(fake) < k + 1:
    raise _too_few(fake, k)
  balls, fakes = _inside(fake, real, _radii(real, k), closed=False)
  return DensityCoverage(float(balls.mean()) / k, float((fakes > 0).mean()))


def memorisation(
  train: Float[np.ndarray, 'n d'],
  held_out: Float[np.ndarray, 'm d'],
  fake: Float[np.ndarray, 'l d'],
) -> Memorisation:
  """Whether fakes are nearer to the training set than unseen reals are.

  closer = P(d(fake) < d(held_out)) + P(d(fake) = d(held_out)) / 2, d being the
  distance to the nearest training example.

  The Mann-Whitney statistic of Meehan et al. 2020, without their cells:
  0.5 where fakes are as far as unseen data, 1 where they are copies, below 0.5
  where they underfit.

  Raises:
    UserError: A set is empty.
  """
  if not (len(train) and len(held_out) and len(fake)):
    raise UserError(
      f'{len(train)} training, {len(held_out)} held-out and {len(fake)} fake '
      'examples: there must be some of each'
    )
  fakes, reals = (
    nearest_neighbors(x, train).distances[:, 0] for x in (fake, held_out)
  )
  reals = np.sort(reals)
  farther = len(reals) - np.searchsorted(reals, fakes, side='right')
  not_nearer = len(reals) - np.searchsorted(reals, fakes, side='left')
  closer = (farther.mean() + not_nearer.mean()) / (2 * len(reals))
  return Memorisation(
    float(closer), float(np.median(fakes)), float(np.median(reals))
  )


def _radii(features: Features, k: int) -> Float[np.ndarray, ' n']:
  """The distance of each to the k-th nearest other."""
  if len(features) < k + 1:
    raise _too_few(features, k)
  # Of all, itself among them, the nearest is itself, or an equal.
  return nearest_neighbors(features, features, k + 1).distances[:, k]


def _too_few(features: Features, k: int) -> UserError:
  return UserError(
    f'{len(features)} examples have no {k} neighbours each: give at least '
    f'{k + 1}, or a smaller k'
  )


def _inside(
  points: Float[np.ndarray, 'n d'],
  centres: Float[np.ndarray, 'm d'],
  radii: Float[np.ndarray, ' m'],
  closed: bool,
) -> tuple[Int[np.ndarray, ' n'], Int[np.ndarray, ' m']]:
  """In how many balls each point is, and how many points in each ball.

  Args:
    points, centres, radii: Features, and those of the balls.
    closed: Whether what lies on the sphere is in the ball.
  """
  balls = np.zeros(len(points), int)
  inner = np.zeros(len(centres), int)
  base = _blocks(centres, BASE, centres)
  for rows, block in _blocks(points, QUERIES, centres):
    for columns, centre in base:
      squares = jnp.asarray(radii[columns] ** 2, jnp.float32)
      per_point, per_ball, open_ = _compare(block, centre, squares)
      balls[rows] += per_point
      inner[columns] += per_ball
      i, j = np.nonzero(np.asarray(open_))
      i, j = i + rows.start, j + columns.start
      exact = _exact(points, i, centres, j)
      hit = exact <= radii[j] if closed else exact < radii[j]
      np.add.at(balls, i[hit], 1)
      np.add.at(inner, j[hit], 1)
  return balls, inner


def _blocks(
  features: Float[np.ndarray, 'n d'], size: int, base: Float[np.ndarray, 'm d']
) -> list[tuple[slice, Float[Array, '_ d']]]:
  """Where they are and, on the device, what they are from the base's mean."""
  mean = base.mean(0, dtype=np.float64)  # so that little is lost in float32
  starts = range(0, len(features), size)
  parts = [slice(i, min(i + size, len(features))) for i in starts]
  return [(x, jnp.asarray(features[x] - mean, jnp.float32)) for x in parts]


def _squares(
  a: Float[Array, 'n d'], b: Float[Array, 'm d']
) -> tuple[Float[Array, 'n m'], Float[Array, 'n m']]:
  """|a_i - b_j|^2 and |a_i|^2 + |b_j|^2."""
  both = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :]
  return both - 2 * jnp.matmul(a, b.T, precision='highest'), both


@partial(jax.jit, static_argnames='count')
def _smallest(
  queries: Float[Array, 'n d'], base: Float[Array, 'm d'], count: int
) -> tuple[Float[Array, 'n k'], Int[Array, 'n k']]:
  """Squared distances of the nearest, and their positions."""
  squares, _ = _squares(queries, base)
  negative, places = jax.lax.top_k(-squares, min(count, len(base)))
  return -negative, places


@jax.jit
def _compare(
  points: Float[Array, 'n d'],
  centres: Float[Array, 'm d'],
  radii_squared: Float[Array, ' m'],
) -> tuple[Int[Array, ' n'], Int[Array, ' m'], Bool[Array, 'n m']]:
  """Pairs surely inside, by point and by ball; those that are open."""
  squares, both = _squares(points, centres)
  beyond = squares - radii_squared[None, :]
  inside = beyond < -ROUNDING * both
  return inside.sum(1), inside.sum(0), jnp.abs(beyond) <= ROUNDING * both


def _exact(
  a: Float[np.ndarray, 'n d'],
  i: Int[np.ndarray, ' pairs'],
  b: Float[np.ndarray, 'm d'],
  j: Int[np.ndarray, ' pairs'],
) -> Float[np.ndarray, ' pairs']:
  """|a[i] - b[j]| in float64."""
  distances = np.empty(len(i))
  for start in range(0, len(i), QUERIES):
    part = slice(start, start + QUERIES)
    apart = np.subtract(a[i[part]], b[j[part]], dtype=np.float64)
    distances[part] = np.sqrt(np.einsum('pd,pd->p', apart, apart))
  return distances
