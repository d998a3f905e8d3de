"""Everything else in the catalogue of TFDS, read without TensorFlow."""

import importlib.util
import io
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gan_jax.data import store
from gan_jax.data.decode import decode
from gan_jax.data.prepared import fingerprint_of, labels_in, records_of
from gan_jax.data.source import DataSpec, Examples, Source
from gan_jax.errors import UserError
from gan_jax.files import is_remote, local

UNDECODED = tfds.decode.SkipDecoding()


def open_set(wanted: DataSpec) -> Source:
  """A set that TFDS has prepared as array_record: `tfds:NAME[/CONFIG]`."""
  _check_named(wanted)
  builder = _find(wanted)
  if builder is None:
    raise UserError(
      f'{wanted.path} is not prepared in {store.data_dir(wanted)}: the same '
      'command with --mode=prepare prepares it (--config.data.dir names '
      'another place)'
    )
  if is_remote(builder.data_path):
    store.bring(builder.data_path)
    builder = tfds.builder_from_directory(local(builder.data_path))
  return _source(builder, wanted)


def is_prepared(wanted: DataSpec) -> bool:
  """Whether the set has been prepared."""
  _check_named(wanted)
  return _find(wanted) is not None


def prepare(wanted: DataSpec) -> None:
  """Downloads and prepares it with the official builder: needs TensorFlow."""
  _check_named(wanted)
  if there := _find(wanted):
    print(f'Prepared already: {there.data_path}')
    return
  if importlib.util.find_spec('tensorflow') is None:
    raise UserError(
      f'to prepare tfds:{wanted.path} the official builder needs TensorFlow: '
      "pip install -e '.[prepare]'"
    )
  try:
    tfds.builder(
      wanted.path, data_dir=store.data_dir(wanted), file_format='array_record'
    ).download_and_prepare()
  except Exception as error:  # of any builder, of the network
    line = ' '.join(str(error).split())[:300]
    raise UserError(
      f'{wanted.path} cannot be prepared: {type(error).__name__}: {line}'
    ) from error


def _find(wanted: DataSpec) -> Any:
  """The builder of a set that is prepared; None if it is not."""
  try:
    return tfds.core.read_only_builder.builder_from_files(
      wanted.path, data_dir=store.data_dir(wanted)
    )
  except (tfds.core.DatasetNotFoundError, ValueError):
    return None


def _check_named(wanted: DataSpec) -> None:
  if not wanted.path:
    raise UserError(
      'name a set of the catalogue: --config.data.source=tfds:oxford_flowers102'
    )


def _source(builder: Any, wanted: DataSpec) -> Source:
  format_ = builder.info.file_format
  if format_ is not tfds.core.FileFormat.ARRAY_RECORD:
    raise UserError(
      f'{builder.data_path} is prepared as {format_.value}, which has no '
      'random access: prepare it as array_record, in another --config.data.dir'
    )
  features = builder.info.features
  images = [
    name
    for name, feature in features.items()
    if isinstance(feature, tfds.features.Image)
  ]
  if not images:
    raise UserError(
      f'tfds:{wanted.path} has no images, but {", ".join(features)}'
    )
  labels = [
    name
    for name, feature in features.items()
    if isinstance(feature, tfds.features.ClassLabel)
  ]
  decoders = {images[0]: UNDECODED}
  records = records_of(builder, wanted.split, decoders)
  label = labels[0] if labels else None
  return Source(
    size=len(records),
    fetch=partial(_fetch, records, images[0], label, wanted),
    example_bytes=wanted.image_bytes + (4 if labels else 0),
    classes=tuple(features[label].names) if label else (),
    decodes=True,
    labels=partial(labels_in, records, label) if label else None,
    fingerprint=partial(fingerprint_of, records),
  )


def _fetch(
  records: Any,
  image: str,
  label: str | None,
  wanted: DataSpec,
  indices: np.ndarray,
) -> Examples:
  rows = records.__getitems__(indices.tolist())
  images = [decode(io.BytesIO(row[image]), wanted) for row in rows]
  for index, picture in zip(indices, images, strict=True):
    if picture is None:
      raise UserError(f'image {index} of tfds:{wanted.path} does not decode')
  examples = {'images': np.stack(images)}
  if label is not None:
    examples['labels'] = np.int32([row[label] for row in rows])
  return examples


def newest_version(folder: Path) -> Any:
  """The builder of the newest version of a set that is in `folder`."""
  found = [
    file.parent
    for file in folder.rglob('dataset_info.json')
    if tfds.core.Version.is_valid(file.parent.name)
  ]
  if not found:
    raise UserError(f'{folder} has no dataset_info.json: no set of TFDS')
  newest = max(found, key=lambda path: tfds.core.Version(path.name))
  return tfds.builder_from_directory(newest)


def encoded_examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
  """All examples of a split, in its order, their images undecoded."""
  decoders = {'image': UNDECODED}
  if builder.info.file_format is tfds.core.FileFormat.TFRECORD:
    for path in builder.info.splits[split].filepaths:
      for record in _tfrecords(path):
        yield builder.info.features.deserialize_example_np(
          record, decoders=decoders
        )
  else:
    yield from builder.as_data_source(split=split, decoders=decoders)


def _tfrecords(path: Any) -> Iterator[bytes]:
  """The records of a TFRecord file.

  Each is its length (uint64, little-endian), 4 bytes of checksum, the data, and
  4 bytes of checksum.
  """
  with path.open('rb') as file:
    while header := file.read(12):
      (length,) = struct.unpack('<Q', header[:8])
      record = file.read(length)
      if len(record) != length:
        raise UserError(f'{path} is damaged: it ends within a record')
      file.read(4)
      yield record
