"""The catalogue of TFDS, read without TensorFlow."""

import importlib.util
import io
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from gan_jax.data import store
from gan_jax.data.cache import Cache
from gan_jax.data.decode import decode
from gan_jax.data.records import Records, open_records
from gan_jax.data.source import DataSpec, Examples, Source, Upcoming
from gan_jax.errors import UserError
from gan_jax.files import is_remote, local

with epy.lazy_imports():  # TFDS takes a quarter of a second
  import tensorflow_datasets as tfds


def open_set(spec: DataSpec) -> Source:
  """Opens `tfds:NAME[/CONFIG]`, a data set that TFDS has prepared.

  Raises:
    UserError: The data set is not prepared, or not as array_record.
  """
  _check_path(spec)
  builder = _find(spec)
  if builder is None:
    raise UserError(
      f'{spec.path} is not prepared in {store.data_dir(spec)}: run the same '
      'command with --mode=prepare, or set --config.data.dir to the folder of '
      'the prepared set'
    )
  cached = None
  if spec.cache_bytes is not None:
    cached, builder = store.stream(builder.data_path, spec.cache_bytes)
  elif is_remote(builder.data_path):
    store.pull(builder.data_path)
    builder = tfds.builder_from_directory(local(builder.data_path))
  return _source(builder, spec, cached)


def is_prepared(spec: DataSpec) -> bool:
  """Whether TFDS has prepared the data set."""
  _check_path(spec)
  return _find(spec) is not None


def prepare(spec: DataSpec) -> None:
  """Downloads and prepares a data set with TFDS, which needs TensorFlow."""
  _check_path(spec)
  if builder := _find(spec):
    print(f'Already prepared: {builder.data_path}')
    return
  if importlib.util.find_spec('tensorflow') is None:
    raise UserError(
      f'preparing tfds:{spec.path} requires TensorFlow: run '
      "pip install -e '.[prepare]'"
    )
  try:
    tfds.builder(
      spec.path, data_dir=store.data_dir(spec), file_format='array_record'
    ).download_and_prepare()
  except Exception as error:  # each builder raises its own; so does the network
    line = ' '.join(str(error).split())[:300]
    raise UserError(
      f'cannot prepare {spec.path}: {type(error).__name__}: {line}'
    ) from error


def _find(spec: DataSpec) -> Any:
  """Returns the builder of a prepared data set; None: it is not prepared."""
  try:
    return tfds.core.read_only_builder.builder_from_files(
      spec.path, data_dir=store.data_dir(spec)
    )
  except (tfds.core.DatasetNotFoundError, ValueError):
    return None


def _check_path(spec: DataSpec) -> None:
  if not spec.path:
    raise UserError(
      'config.data.source=tfds: names no data set: add its name, as in '
      '--config.data.source=tfds:oxford_flowers102'
    )


def _source(builder: Any, spec: DataSpec, cached: Cache | None) -> Source:
  """Makes a source of the images and labels of a prepared data set."""
  format_ = builder.info.file_format
  if format_ is not tfds.core.FileFormat.ARRAY_RECORD:
    raise UserError(
      f'{builder.data_path} is prepared as {format_.value}, which does not '
      'support random access: prepare it as array_record, in another '
      '--config.data.dir'
    )
  features = builder.info.features
  images = [
    name
    for name, feature in features.items()
    if isinstance(feature, tfds.features.Image)
  ]
  if not images:
    raise UserError(
      f'tfds:{spec.path} has no images, only {", ".join(features)}: choose '
      'another data set'
    )
  labels = [
    name
    for name, feature in features.items()
    if isinstance(feature, tfds.features.ClassLabel)
  ]
  decoders = {images[0]: tfds.decode.SkipDecoding()}
  records = open_records(builder, spec.split, decoders, cached)
  label = labels[0] if labels else None
  return Source(
    size=len(records),
    fetch=partial(_fetch, records, images[0], label, spec),
    example_bytes=spec.image_bytes + (4 if labels else 0),
    classes=tuple(features[label].names) if label else (),
    decodes=True,
    labels=partial(records.labels, label) if label else None,
    fingerprint=records.fingerprint,
    blocks=records.blocks(spec),
    ahead=partial(_ahead, records) if cached else None,
  )


def _ahead(records: Records, upcoming: Upcoming, factor: int) -> None:
  """Announces shards; there are only whole images (factor 1)."""
  records.ahead(upcoming)


def _fetch(
  records: Records,
  image: str,
  label: str | None,
  spec: DataSpec,
  indices: np.ndarray,
) -> Examples:
  """Decodes the examples at `indices`.

  Args:
    records: Random access to the undecoded examples.
    image, label: The names of the features; `label` None: there are no labels.
  """
  encoded = records.read(indices)
  images = [decode(io.BytesIO(example[image]), spec) for example in encoded]
  for index, decoded in zip(indices, images, strict=True):
    if decoded is None:
      raise UserError(
        f'image {index} of tfds:{spec.path} cannot be decoded: prepare the '
        'data set again'
      )
  examples = {'images': np.stack(images)}
  if label is not None:
    examples['labels'] = np.int32([example[label] for example in encoded])
  return examples


def newest_version(folder: Path) -> Any:
  """Returns the builder of the newest version of a data set in `folder`."""
  versions = [
    file.parent
    for file in folder.rglob('dataset_info.json')
    if tfds.core.Version.is_valid(file.parent.name)
  ]
  if not versions:
    raise UserError(
      f'{folder} is not a data set of TFDS: it has no dataset_info.json'
    )
  newest = max(versions, key=lambda path: tfds.core.Version(path.name))
  return tfds.builder_from_directory(newest)


def encoded_examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
  """Yields all examples of a split in order, their images undecoded."""
  decoders = {'image': tfds.decode.SkipDecoding()}
  if builder.info.file_format is tfds.core.FileFormat.TFRECORD:
    for path in builder.info.splits[split].filepaths:
      for record in _tfrecords(path):
        yield builder.info.features.deserialize_example_np(
          record, decoders=decoders
        )
  else:
    yield from builder.as_data_source(split=split, decoders=decoders)


def _tfrecords(path: Any) -> Iterator[bytes]:
  """Yields the records of a TFRecord file.

  A record is its length (uint64, little-endian), a checksum of 4 bytes, the
  data, and another checksum of 4 bytes.
  """
  with path.open('rb') as file:
    while header := file.read(12):
      (length,) = struct.unpack('<Q', header[:8])
      record = file.read(length)
      if len(record) != length:
        raise UserError(
          f'{path} is damaged: it ends within a record; download it again'
        )
      file.read(4)
      yield record
