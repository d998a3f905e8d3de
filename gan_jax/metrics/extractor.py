"""The extractor: computes from images what the metrics need."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Int32, PyTree, Shaped

from gan_jax import devices
from gan_jax.data.order import Stream
from gan_jax.data.source import Source
from gan_jax.errors import UserError
from gan_jax.metrics.features import Features
from gan_jax.metrics.path_length import distance_features

# Size limits of a batch: number of images, and pixels in total.
MAX_BATCH, MAX_BATCH_PIXELS = 250, 2**22
Batches = Iterable[dict[str, jax.Array]]
# Is called between the batches and the metrics of an evaluation; raises to end
# it. With several processes, all of them make the same calls.
CheckStop = Callable[[], None]


class Extractor:
  """Extracts from images what metrics need.

  Args:
    needs: The needs of the metrics, and `labels`; without path lengths.
    features: Their features; None: they need none.
    num_kept: The number of images whose features and pixels are kept.
    image: An image [1, h, w, c], as the metrics get them.

  Attributes:
    weights: Those of the features, on every device.
  """

  def __init__(
    self,
    needs: set[str],
    features: Features | None,
    num_kept: int,
    image: Shaped[np.ndarray, '1 h w c'],
  ):
    self.needs, self._features, self._num_kept = needs, features, num_kept
    self._image = image
    self.weights = devices.replicate(features.weights) if features else ()
    self._extract_rows = devices.jit_over_rows(
      lambda rows, weights: self.extract(weights, **rows)
    )

  def extract(
    self,
    weights: PyTree,
    images: Shaped[Array, 'n h w c'],
    labels: Int32[Array, ' n'] | None = None,
  ) -> dict[str, Array]:
    """Extracts from a batch what the metrics need."""
    inputs = {} if labels is None else {'labels': labels}
    if self.needs & {'images', 'pairs'}:
      inputs['images'] = images
    if self.needs - {'images', 'pairs', 'labels'}:
      extracted = self._features.extract(weights, images)
      if self.needs & {'moments', 'features', 'all_features'}:
        inputs['features'] = extracted['features']
      if 'probabilities' in self.needs:
        inputs['probabilities'] = extracted['probabilities']
    return inputs

  def check(self, metrics: Sequence[str], has_paths: bool) -> int | None:
    """Checks the features before training, by tracing them on one image.

    Args:
      metrics: The names of the metrics.
      has_paths: Whether path lengths are measured, on images of floats.

    Returns:
      The number of classes of the probabilities; None: no metric needs them.

    Raises:
      UserError: The features do not take such images, or a metric needs more.
    """
    shape, kind = ', '.join(map(str, self._image.shape[1:])), 'uint8'
    name = self._features and self._features.name
    where = f'config.evaluation.features={name}'
    try:
      inputs = jax.eval_shape(self.extract, self.weights, self._image)
      if has_paths:
        kind = 'float'
        unit = partial(distance_features, self._features)
        jax.eval_shape(unit, self.weights, self._image / np.float32(255))
    except UserError:
      raise
    except KeyError as error:
      raise UserError(
        f'{where} returns no {error}, which one of {", ".join(metrics)} needs: '
        'use a classifier'
      ) from error
    except Exception as error:  # a custom function can raise anything
      line = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
      raise UserError(
        f'{where} must accept {kind} images [n, {shape}], but raises {line}'
      ) from error
    if 'features' in inputs and inputs['features'].ndim != 2:
      sides = ', '.join(map(str, inputs['features'].shape[1:]))
      raise UserError(f'{where} must return features [n, d], not [n, {sides}]')
    if 'probabilities' not in inputs:
      return None
    return inputs['probabilities'].shape[1]

  def batch_size(self, count: int) -> int:
    """Returns the size of a batch, for this number of images in total."""
    pixels = self._image.shape[1] * self._image.shape[2]
    return devices.round_up_batch_size(
      max(1, min(MAX_BATCH, count, MAX_BATCH_PIXELS // pixels))
    )

  def batches(self, source: Source, count: int) -> Batches:
    """Yields metric inputs of `count` images of a source, in random order."""
    size, order = self.batch_size(count), self.order(source, count)
    rows = devices.process_rows()(size)
    for first in range(0, count, size):
      positions = np.arange(first, first + size) % source.size
      examples = source.fetch(order[positions[rows]])
      if 'labels' not in self.needs:
        examples = {'images': examples['images']}
      yield self._extract_rows(devices.shard_rows(examples), self.weights)

  def order(self, source: Source, count: int) -> Int32[np.ndarray, ' n']:
    """Returns the indices of the images, in the order of a shuffle.

    Those of a source that is fetched shard by shard are sorted: first those
    whose features are kept, and then the other ones of the first `count`. So
    both are the same images as those of any other source.
    """
    order = Stream(0, source.size).indices(np.arange(source.size))
    if source.ahead is not None:
      ends = min(self._num_kept, count), count
      order = np.concatenate([np.sort(x) for x in np.split(order, ends)])
    return order


def fetched(
  batches: Batches, check_stop: CheckStop = lambda: None
) -> Iterator[dict[str, np.ndarray]]:
  """Yields batches on the host, while the devices compute the next one."""
  pending = None
  check_stop()
  for batch in batches:
    if pending is not None:
      yield devices.fetch(pending)
    pending = batch
    check_stop()
  if pending is not None:
    yield devices.fetch(pending)
