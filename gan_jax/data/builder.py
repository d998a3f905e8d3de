"""Writes a data set as array_record, with TFDS and without TensorFlow.

This is a file of its own because its base class is a class of TFDS, whose
import takes a quarter of a second: import this file only to write.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from gan_jax.data.store import VERSION

# A set is written in shards of about this size: a fraction of a second of a
# network, and many of them in a cache.
SHARD_BYTES = 2**24


class _ShardConfig(tfds.core.utils.shard_utils.ShardConfig):
  """Decides the number of shards of a split."""

  def get_number_shards(
    self, total_size: int, num_examples: int, *args: Any
  ) -> int:
    return max(1, min(num_examples, round(total_size / SHARD_BYTES)))


class _DownloadConfig(tfds.download.DownloadConfig):
  """Makes TFDS use `_ShardConfig`."""

  def get_shard_config(self) -> tfds.core.utils.shard_utils.ShardConfig:
    return _ShardConfig()


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes the splits that it is given, in their order.

  Args:
    name: The name of the data set.
    features: What an example holds.
    splits: (number, example) of each split.
    homepage: The web page of the data set.
    **kwargs: Of the base class.
  """

  VERSION = tfds.core.Version(VERSION)

  def __init__(
    self,
    name: str,
    features: tfds.features.FeaturesDict,
    splits: Mapping[str, Iterable[tuple[int, Any]]],
    homepage: str,
    **kwargs: Any,
  ):
    self.name = name
    self._contents = features, splits, homepage
    super().__init__(file_format='array_record', **kwargs)

  def write(self) -> None:
    """Writes the data set, and hides the output of TFDS."""
    with _quiet():
      self.download_and_prepare(download_config=_DownloadConfig())

  def _info(self) -> tfds.core.DatasetInfo:
    features, _, homepage = self._contents
    return tfds.core.DatasetInfo(
      builder=self,
      features=features,
      homepage=homepage,
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    return {
      name: iter(examples) for name, examples in self._contents[1].items()
    }

  def _generate_examples(self) -> Iterator[Any]:
    raise NotImplementedError  # not called: the splits are generators


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Hides the output of TFDS."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(before)
    tfds.enable_progress_bar()
