"""The inputs of metrics, collected from batches of images."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32, Shaped

from gan_jax.metrics.moments import Moments, merge, moments
from gan_jax.metrics.path_length import PATHS


class MetricInputs(NamedTuple):
  """The inputs of the metrics, for one set of images; None: no metric needs it.

  Attributes:
    count: The number of images.
    moments: The moments of the features of all images.
    features: The features of the first images; of all, for `all_features`.
    images: The first images: uint8, or points of a toy.
    probabilities: The class probabilities of all images.
    labels: The labels of all images: of the data, or those that the fakes were
      generated for.
    given, targets: What each of `images` was made from, and what it should
      equal, for `pairs`.
    lengths: Path lengths of a generator, by the keys of path_length.PATHS.
  """

  count: int
  moments: Moments | None = None
  features: Float[np.ndarray, 'm d'] | None = None
  images: Shaped[np.ndarray, 'm h w c'] | None = None
  probabilities: Float[np.ndarray, 'n k'] | None = None
  labels: Int32[np.ndarray, ' n'] | None = None
  given: Shaped[np.ndarray, 'm H W d'] | None = None
  targets: Shaped[np.ndarray, 'm h w c'] | None = None
  lengths: dict[str, Float[np.ndarray, ' n']] | None = None


def collect(
  batches: Iterable[dict[str, np.ndarray]],
  needs: set[str],
  count: int,
  num_kept: int,
) -> MetricInputs:
  """Collects the inputs of the metrics from batches of extracted arrays.

  Moments are accumulated over the batches, so the features of all images are
  never in memory together.

  Args:
    batches: Dicts of 'features', 'probabilities', 'images', 'labels', and path
      lengths, as `needs` asks.
      The last batch may contain surplus examples.
    needs: The needs of the metrics.
    count: The number of images.
    num_kept: The number of images whose features and pixels are kept.
  """
  total_moments, remaining_count = None, count
  parts_by_name: dict[str, list[np.ndarray]] = {}
  remaining = {'features': num_kept, 'images': num_kept}
  remaining |= {'probabilities': count, 'labels': count}
  remaining |= dict.fromkeys(PATHS, count)
  if 'pairs' in needs:
    needs = needs | {'images', 'given', 'targets'}
    remaining |= dict.fromkeys(('given', 'targets'), num_kept)
  if 'all_features' in needs:
    needs, remaining['features'] = needs | {'features'}, count
  for batch in batches:
    batch = {name: rows[:remaining_count] for name, rows in batch.items()}
    remaining_count -= len(next(iter(batch.values())))
    if 'moments' in needs:
      part = moments(batch['features'])
      total_moments = (
        part if total_moments is None else merge(total_moments, part)
      )
    for name in needs & batch.keys():
      rows = batch[name][: remaining[name]]
      remaining[name] -= len(rows)
      parts_by_name.setdefault(name, []).append(rows)
  joined = {
    name: np.concatenate(parts) for name, parts in parts_by_name.items()
  }
  lengths = {n: joined.pop(n) for n in PATHS if n in joined}
  return MetricInputs(count, total_moments, **joined, lengths=lengths or None)
