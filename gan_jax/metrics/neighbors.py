"""Nearest neighbors, and the metrics that use them.

Matrix products are computed in float32, in blocks, on the device. Comparisons
within the rounding error of float32 are decided in float64 on the host. So
duplicates are exactly 0 apart, and a point on a sphere is decided exactly.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gan_jax.errors import UserError

# The block size, in examples: distances are computed block by block, to bound
# the memory.
QUERIES, BASE = 2048, 8192
# The largest rounding error of a squared distance, relative to |a|^2 + |b|^2:
# a generous bound for thousands of features.
ROUNDING = 2e-6
# The number of candidates beyond k, because rounding may change the order.
EXTRA_CANDIDATES = 4

Features = Float[np.ndarray, 'n d']


class Neighbors(NamedTuple):
  """The nearest neighbors in order: distances in float64, and their indices."""

  distances: Float[np.ndarray, 'n k']
  indices: Int[np.ndarray, 'n k']


class PrecisionRecall(NamedTuple):
  """Shares, 0 to 1: of realistic fakes, and of reals that G can generate."""

  precision: float
  recall: float


class DensityCoverage(NamedTuple):
  """Density, expected to be 1 for equal distributions; coverage, 0 to 1."""

  density: float
  coverage: float


class Memorisation(NamedTuple):
  """How close fakes are to the training set.

  Attributes:
    closer: The probability that a fake is closer to it than an unseen real.
    fake_median, held_out_median: The median distances to the nearest training
      example.
  """

  closer: float
  fake_median: float
  held_out_median: float


def nearest_neighbors(
  queries: Float[np.ndarray, 'n d'],
  base: Float[np.ndarray, 'm d'],
  k: int = 1,
) -> Neighbors:
  """Finds the k nearest neighbors of each query in `base` (Euclidean).

  The distances are in float64. The candidates are found in float32, so they are
  exact unless the (k + 5)th distance is within its rounding error.

  Args:
    queries, base: Features, [n, d] and [m, d].
    k: The number of neighbors; an example in both sets is its own neighbor.

  Raises:
    UserError: `base` has fewer than k examples.
  """
  if not 1 <= k <= len(base):
    raise UserError(
      f'k={k} must be between 1 and the number of examples, {len(base)}'
    )
  num_candidates = min(k + EXTRA_CANDIDATES, len(base))
  blocks = _blocks(base, BASE, base)
  distances, indices = [], []
  for rows, block in _blocks(queries, QUERIES, base):
    squares, positions = [], []
    for columns, part in blocks:
      block_squares, block_positions = _nearest_in_block(
        block, part, count=num_candidates
      )
      squares.append(np.asarray(block_squares))
      positions.append(np.asarray(block_positions) + columns.start)
    order = np.argsort(np.concatenate(squares, 1), 1)[:, :num_candidates]
    found = np.take_along_axis(np.concatenate(positions, 1), order, 1)
    query_indices = np.repeat(np.arange(rows.start, rows.stop), num_candidates)
    exact = _exact(queries, query_indices, base, found.ravel())
    exact = exact.reshape(found.shape)
    order = np.lexsort((found, exact))[:, :k]  # ties: the first index
    distances.append(np.take_along_axis(exact, order, 1))
    indices.append(np.take_along_axis(found, order, 1))
  return Neighbors(np.concatenate(distances), np.concatenate(indices))


def precision_recall(
  real: Float[np.ndarray, 'n d'], fake: Float[np.ndarray, 'm d'], k: int = 3
) -> PrecisionRecall:
  """Computes improved precision and recall.

  precision = mean_j 1[exists i: |y_j - x_i| <= r_k(x_i)], r_k the distance to
  the k-th nearest other of the same set; recall with x and y exchanged.

  Kynkäänniemi et al. 2019, equations 1 and 2, customarily with k = 3 and 50,000
  of each.

  Raises:
    UserError: A set has fewer than k + 1 examples.
  """
  shares = []
  for points, centres in ((fake, real), (real, fake)):
    balls_per_point, _ = _count_inside(
      points, centres, _radii(centres, k), closed=True
    )
    shares.append(float((balls_per_point > 0).mean()))
  return PrecisionRecall(*shares)


def density_coverage(
  real: Float[np.ndarray, 'n d'], fake: Float[np.ndarray, 'm d'], k: int = 5
) -> DensityCoverage:
  """Computes density and coverage.

  density = 1 / (k m) sum_{i, j} 1[|y_j - x_i| < r_k(x_i)]
  coverage = mean_i 1[exists j: |y_j - x_i| < r_k(x_i)]

  r_k(x_i) is the distance of the real x_i to the k-th nearest other one. Naeem
  et al. 2020, equations 3 and 4, customarily with k = 5 and 10,000 of each.

  Raises:
    UserError: A set has fewer than k + 1 examples.
  """
  if len(fake) < k + 1:
    raise _too_few(fake, k)
  balls_per_point, fakes_per_ball = _count_inside(
    fake, real, _radii(real, k), closed=False
  )
  density = float(balls_per_point.mean()) / k
  return DensityCoverage(density, float((fakes_per_ball > 0).mean()))


def memorisation(
  train: Float[np.ndarray, 'n d'],
  held_out: Float[np.ndarray, 'm d'],
  fake: Float[np.ndarray, 'l d'],
) -> Memorisation:
  """Tests whether fakes are closer to the training set than unseen reals are.

  closer = P(d(fake) < d(held_out)) + P(d(fake) = d(held_out)) / 2, d being the
  distance to the nearest training example.

  The Mann-Whitney statistic of Meehan et al. 2020, without their cells: 0.5 if
  fakes are as far as unseen data, 1 if they are copies, below 0.5 if they
  underfit.

  Raises:
    UserError: A set is empty.
  """
  if not (len(train) and len(held_out) and len(fake)):
    raise UserError(
      f'{len(train)} training, {len(held_out)} held-out and {len(fake)} fake '
      'examples: pass at least one of each'
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
  """Computes the distance of each example to its k-th nearest other one."""
  if len(features) < k + 1:
    raise _too_few(features, k)
  # k + 1, because each example is among its own neighbors, at distance 0.
  return nearest_neighbors(features, features, k + 1).distances[:, k]


def _too_few(features: Features, k: int) -> UserError:
  return UserError(
    f'{len(features)} examples are too few for {k} neighbours each: pass at '
    f'least {k + 1}, or reduce k'
  )


def _count_inside(
  points: Float[np.ndarray, 'n d'],
  centres: Float[np.ndarray, 'm d'],
  radii: Float[np.ndarray, ' m'],
  closed: bool,
) -> tuple[Int[np.ndarray, ' n'], Int[np.ndarray, ' m']]:
  """Counts the balls around each point, and the points in each ball.

  Args:
    points: Features.
    centres, radii: The balls.
    closed: Whether the sphere belongs to its ball.
  """
  balls_per_point = np.zeros(len(points), int)
  points_per_ball = np.zeros(len(centres), int)
  base = _blocks(centres, BASE, centres)
  for rows, block in _blocks(points, QUERIES, centres):
    for columns, centre in base:
      squares = jnp.asarray(radii[columns] ** 2, jnp.float32)
      per_point, per_ball, uncertain = _count_certain(block, centre, squares)
      balls_per_point[rows] += per_point
      points_per_ball[columns] += per_ball
      i, j = np.nonzero(np.asarray(uncertain))
      i, j = i + rows.start, j + columns.start
      exact = _exact(points, i, centres, j)
      hit = exact <= radii[j] if closed else exact < radii[j]
      np.add.at(balls_per_point, i[hit], 1)
      np.add.at(points_per_ball, j[hit], 1)
  return balls_per_point, points_per_ball


def _blocks(
  features: Float[np.ndarray, 'n d'], size: int, base: Float[np.ndarray, 'm d']
) -> list[tuple[slice, Float[Array, '_ d']]]:
  """Splits features into blocks: slices, and centred arrays on the device.

  The mean of `base` is subtracted, to reduce the rounding error in float32.
  """
  mean = base.mean(0, dtype=np.float64)  # so that little is lost in float32
  starts = range(0, len(features), size)
  parts = [slice(i, min(i + size, len(features))) for i in starts]
  return [(x, jnp.asarray(features[x] - mean, jnp.float32)) for x in parts]


def _squares(
  a: Float[Array, 'n d'], b: Float[Array, 'm d']
) -> tuple[Float[Array, 'n m'], Float[Array, 'n m']]:
  """Computes |a_i - b_j|^2, and |a_i|^2 + |b_j|^2."""
  scale = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :]
  return scale - 2 * jnp.matmul(a, b.T, precision='highest'), scale


@partial(jax.jit, static_argnames='count')
def _nearest_in_block(
  queries: Float[Array, 'n d'], base: Float[Array, 'm d'], count: int
) -> tuple[Float[Array, 'n k'], Int[Array, 'n k']]:
  """Returns the smallest squared distances in a block, and their positions."""
  squares, _ = _squares(queries, base)
  negative, positions = jax.lax.top_k(-squares, min(count, len(base)))
  return -negative, positions


@jax.jit
def _count_certain(
  points: Float[Array, 'n d'],
  centres: Float[Array, 'm d'],
  radii_squared: Float[Array, ' m'],
) -> tuple[Int[Array, ' n'], Int[Array, ' m'], Bool[Array, 'n m']]:
  """Counts the pairs surely inside, by point and by ball; marks the others."""
  squares, scale = _squares(points, centres)
  gaps = squares - radii_squared[None, :]
  inside = gaps < -ROUNDING * scale
  return inside.sum(1), inside.sum(0), jnp.abs(gaps) <= ROUNDING * scale


def _exact(
  a: Float[np.ndarray, 'n d'],
  i: Int[np.ndarray, ' pairs'],
  b: Float[np.ndarray, 'm d'],
  j: Int[np.ndarray, ' pairs'],
) -> Float[np.ndarray, ' pairs']:
  """Computes |a[i] - b[j]| in float64."""
  distances = np.empty(len(i))
  for start in range(0, len(i), QUERIES):
    part = slice(start, start + QUERIES)
    differences = np.subtract(a[i[part]], b[j[part]], dtype=np.float64)
    distances[part] = np.sqrt(np.einsum('pd,pd->p', differences, differences))
  return distances
