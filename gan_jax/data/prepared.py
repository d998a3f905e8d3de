"""Official data sets, prepared once: decoded, cropped, resized, kept as uint8.

TFDS writes and reads them (array_record); TensorFlow is not needed.
"""

import contextlib
import hashlib
import io
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from jaxtyping import Int32
from rich.progress import track

from gan_jax.data import store
from gan_jax.data.official import DatasetInfo, Split, download, locate
from gan_jax.data.source import DataSpec, Examples, Fingerprint, Source
from gan_jax.errors import UserError, suggest, warn
from gan_jax.files import held, is_remote, local, sha256_of

VERSION = '1.0.0'
# Records that are read at a time, where all are.
CHUNK = 4096


def open_or_prepare(original: DatasetInfo, wanted: DataSpec) -> Source:
  """The set as it was prepared; prepares it if it was not."""
  folder = _folder(original, wanted)
  here = local(folder)
  # A set on a disk that may only be read needs no lock.
  if is_remote(folder) or not store.is_prepared(here):
    _make_ready(original, wanted, anew=False)
  builder = tfds.builder_from_directory(here)
  total = _count(builder)
  if total < original.size:
    warn(
      f'{total:,} of the {original.size:,} images of {original.name} '
      f'are prepared; with all the files, --mode=prepare and '
      '--config.data.files=PATH prepare it anew'
    )
  return _open(builder, wanted.split, original.classes)


def is_prepared(original: DatasetInfo, wanted: DataSpec) -> bool:
  """Whether the set has been prepared."""
  return store.is_prepared(_folder(original, wanted))


def prepare(original: DatasetInfo, wanted: DataSpec) -> None:
  """Prepares the set; one of which only a part was prepared, anew."""
  _make_ready(original, wanted, anew=wanted.files is not None)


def _make_ready(original: DatasetInfo, wanted: DataSpec, anew: bool) -> None:
  """Sees to it that the set is here, and where it belongs.

  It is prepared if it is nowhere; with `anew` also if it has not all images,
  or no labels.
  """
  folder = _folder(original, wanted)
  here = local(folder)
  with _alone(here.parent):
    if store.bring(folder) and not (anew and _lacks(original, here)):
      given = '' if wanted.files is None else '; data.files was not read'
      print(f'Prepared already: {folder}{given}')
      return
    _prepare(original, wanted)
    store.send(folder)
  print(f'Prepared: {folder}')


def _lacks(original: DatasetInfo, folder: epath.Path) -> bool:
  """Whether images or labels are missing from a set."""
  builder = tfds.builder_from_directory(folder)
  whole = _count(builder) >= original.size
  return not whole or 'label' not in builder.info.features


def _open(builder: Any, split: str, classes: tuple[str, ...]) -> Source:
  """A split of a prepared set."""
  records = records_of(builder, split)
  features = builder.info.features
  labelled = 'label' in features
  image_bytes = int(np.prod(features['image'].shape))
  label_bytes = 4 * int(np.prod(features['label'].shape)) if labelled else 0
  return Source(
    size=len(records),
    fetch=partial(_fetch, records),
    example_bytes=image_bytes + label_bytes,
    classes=classes if labelled else (),
    labels=partial(labels_in, records, 'label') if labelled else None,
    fingerprint=partial(fingerprint_of, records),
  )


def records_of(builder: Any, split: str, decoders: Any = None) -> Any:
  """TFDS's random access to a split of a set that it has prepared."""
  try:
    records = builder.as_data_source(split=split, decoders=decoders)
    size = len(records)
  except (ValueError, NotImplementedError, AssertionError) as error:
    valid = builder.info.splits
    raise UserError(
      f'config.data.split={split!r} is none of {", ".join(valid)}, all, a sum '
      f'of them or a slice of one, as train[:90%]{suggest(split, valid)}'
    ) from error
  if not size:
    raise UserError(f'config.data.split={split!r} has no examples')
  return records


def labels_in(records: Any, name: str) -> Int32[np.ndarray, 'n ...']:
  """The labels of all records, of which nothing else is decoded."""
  feature = records.dataset_info.features[name]
  alone = tfds.features.FeaturesDict({name: feature})
  found = []
  for first in range(0, len(records), CHUNK):
    rows = range(first, min(first + CHUNK, len(records)))
    raw = records.data_source.__getitems__(list(rows))
    found += [alone.deserialize_example_np(record)[name] for record in raw]
  return np.asarray(found, np.int32)


def fingerprint_of(records: Any) -> Fingerprint:
  """By what is in the files that the records are in, and which of them."""
  told = hashlib.sha256()
  for part in records.dataset_info.splits[records.split].file_instructions:
    file = Path(part.filename)
    line = f'{file.name} {sha256_of(file)} {part.skip} {part.take}\n'
    told.update(line.encode())
  return Fingerprint(told.hexdigest(), told.hexdigest())


def _fetch(records: Any, indices: np.ndarray) -> Examples:
  rows = records.__getitems__(indices.tolist())
  examples = {'images': np.stack([row['image'] for row in rows])}
  if 'label' in rows[0]:
    labels = [row['label'] for row in rows]
    examples['labels'] = np.asarray(labels, np.int32)
  return examples


def _folder(original: DatasetInfo, wanted: DataSpec) -> epath.Path:
  dataset, variant = _dataset(original), _variant(wanted)
  return store.data_dir(wanted) / dataset / variant / VERSION


def _dataset(original: DatasetInfo) -> str:
  return f'gan_jax_{original.name}'


def _variant(wanted: DataSpec) -> str:
  """What is made of the pictures, as a name: 64x64_rgb_crop178."""
  colours = {1: 'grey', 3: 'rgb'}[wanted.channels]
  crop = '' if wanted.crop is None else f'_crop{wanted.crop}'
  return f'{wanted.resolution}x{wanted.resolution}_{colours}{crop}'


def _count(builder: Any) -> int:
  """How many images a prepared set has, in all splits."""
  splits = builder.info.splits.values()
  return sum(split.num_examples for split in splits)


def _prepare(original: DatasetInfo, wanted: DataSpec) -> None:
  """Finds or downloads the files, and writes the set, whole or not at all."""
  here = local(_folder(original, wanted))
  if wanted.files is None:
    kept = local(store.data_dir(wanted)) / 'downloads'
    found = download(original, kept)
  else:
    found = locate(original, Path(wanted.files).expanduser())
  splits, labelled = original.read(found, wanted)
  splits = {name: split for name, split in splits.items() if split.size}
  total = sum(split.size for split in splits.values())
  if not splits:
    raise UserError(f'there are no images in {wanted.files}')
  if total < original.size:
    warn(
      f'{total:,} of the {original.size:,} images of {original.name} are '
      'there; going on with them'
    )
  there = 0
  if store.is_prepared(here):
    there = _count(tfds.builder_from_directory(here))
  if total < there:
    raise UserError(
      f'{total:,} images would take the place of {there:,} in {here}: remove '
      'it if that is meant'
    )
  _check_space(here.parent, total * wanted.image_bytes)
  # Beside a set that is there already: that goes when this one is whole.
  new, old = here.parent / '.new', here.parent / '.old'
  for stale in (new, old):  # of a preparation that was killed
    stale.rmtree(missing_ok=True)
  _write(original, wanted, splits, labelled, new)
  if here.exists():
    here.rename(old)
  (new / _dataset(original) / _variant(wanted) / VERSION).rename(here)
  for stale in (new, old):
    stale.rmtree(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: epath.Path) -> Iterator[None]:
  """Waits until no other process of this machine prepares the same."""
  busy = lambda: print(
    'Waiting for another process, which is preparing the same'
  )
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(held(folder, busy))
    except OSError as error:
      raise UserError(
        f'cannot write to {folder}: {error.strerror}; --config.data.dir is '
        'where prepared sets go'
      ) from error
    yield


def _check_space(folder: epath.Path, needed: int) -> None:
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise UserError(
      f'{folder} has {free / 1e9:,.3f} GB left, and {needed / 1e9:,.3f} are '
      'needed: --config.data.dir names another place'
    )


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes the splits that it is given, in their order."""

  VERSION = tfds.core.Version(VERSION)

  def __init__(
    self,
    name: str,
    features: tfds.features.FeaturesDict,
    splits: Mapping[str, Iterable[tuple[int, Any]]],
    homepage: str,
    **where: Any,
  ):
    self.name = name
    self._given = features, splits, homepage
    super().__init__(**where)

  def _info(self) -> tfds.core.DatasetInfo:
    features, _, homepage = self._given
    return tfds.core.DatasetInfo(
      builder=self,
      features=features,
      homepage=homepage,
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    return {name: iter(examples) for name, examples in self._given[1].items()}

  def _generate_examples(self) -> Iterator[Any]:
    raise NotImplementedError  # the splits are generators already


def _write(
  original: DatasetInfo,
  wanted: DataSpec,
  splits: dict[str, Split],
  labelled: bool,
  folder: epath.Path,
) -> None:
  """Writes the set below `folder`, as TFDS does."""
  shape = (wanted.resolution, wanted.resolution, wanted.channels)
  tensor = partial(tfds.features.Tensor, encoding='bytes')  # 3x faster to read
  features = {'image': tensor(shape=shape, dtype=np.uint8)}
  if labelled:
    one = tfds.features.ClassLabel(names=original.classes)
    many = tensor(shape=(len(original.classes),), dtype=np.int32)
    features['label'] = many if original.attributes else one
  # The bar alone goes to where the user looks.
  console = rich.console.Console(file=sys.stdout)

  def keyed(name: str, split: Split) -> Iterator[tuple[int, Any]]:
    title = f'Preparing {original.name}, {name}'
    shown = track(split.examples, title, total=split.size, console=console)
    for number, (image, label) in enumerate(shown):
      yield number, {'image': image} | ({'label': label} if labelled else {})

  with _quiet():
    _Builder(
      _dataset(original),
      tfds.features.FeaturesDict(features),
      {name: keyed(name, split) for name, split in splits.items()},
      original.homepage,
      config=tfds.core.BuilderConfig(name=_variant(wanted)),
      data_dir=folder,
      file_format='array_record',
    ).download_and_prepare()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps from the user what TFDS says."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(before)
    tfds.enable_progress_bar()
