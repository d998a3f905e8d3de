"""Official data sets, prepared once: decoded, cropped, resized, kept as uint8.

TFDS downloads, writes and reads them (array_record); TensorFlow is not needed.
"""

import contextlib
import fcntl
import io
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import requests
import rich.console
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from rich.progress import track

from gan_jax.data.source import Examples, Source, Wanted
from gan_jax.errors import UserError, warn

VERSION = '1.0.0'
TIMEOUT_SECONDS = 20
# A file is looked for, and read, under the first of its names.
Found = Mapping[str, Path]


class File(NamedTuple):
  """A file of an official set.

  Attributes:
    names: What it is called; first as distributed, then unpacked, say.
    url, bytes, sha256: As distributed.
    needed: Whether the set can be prepared without it.
  """

  names: tuple[str, ...]
  url: str
  bytes: int
  sha256: str
  needed: bool = True


class Split(NamedTuple):
  """What is to be written of one split.

  Attributes:
    size: How many examples there are, before any that are broken.
    examples: Of them: (image, label), the image standardized.
  """

  size: int
  examples: Iterable[tuple[np.ndarray, Any]]


class Original(NamedTuple):
  """An official data set.

  Attributes:
    name: In `SOURCES`.
    homepage: Where people find its files.
    size: How many images it has, in all splits.
    classes: Names of its labels.
    files: Its files.
    read: (found, wanted) -> its splits, and whether they are labelled.
    attributes: Whether a label is a 0 or 1 for each of `classes`.
  """

  name: str
  homepage: str
  size: int
  classes: tuple[str, ...]
  files: tuple[File, ...]
  read: Callable[[Found, Wanted], tuple[dict[str, Split], bool]]
  attributes: bool = False


def open_or_prepare(original: Original, wanted: Wanted) -> Source:
  """The set as it was prepared; prepares it if it was not."""
  folder = _folder(original, wanted)
  if not _is_prepared(folder):
    _prepare(original, wanted)
  source = open_records(folder, wanted.split, original.classes)
  total = _count(folder)
  if total < original.size:
    warn(
      f'{total:,} of the {original.size:,} images of {original.name} '
      f'are prepared; with all the files, --mode=prepare and '
      '--config.data.files=PATH prepare it anew'
    )
  return source


def prepare(original: Original, wanted: Wanted) -> None:
  """Prepares the set; one of which only a part was prepared, anew."""
  folder = _folder(original, wanted)
  whole = _is_prepared(folder) and _count(folder) >= original.size
  if whole or (_is_prepared(folder) and wanted.files is None):
    print(f'Prepared already: {folder}')
  else:
    _prepare(original, wanted, anew=True)


def open_records(
  folder: epath.Path, split: str, classes: tuple[str, ...]
) -> Source:
  """The split of a set that was prepared in `folder`."""
  builder = tfds.builder_from_directory(folder)
  records = as_split(builder, split)
  features = builder.info.features
  labelled = 'label' in features
  image_bytes = int(np.prod(features['image'].shape))
  label_bytes = 4 * int(np.prod(features['label'].shape)) if labelled else 0
  return Source(
    size=len(records),
    fetch=partial(_fetch, records),
    example_bytes=image_bytes + label_bytes,
    classes=classes if labelled else (),
  )


def as_split(builder: Any, split: str, decoders: Any = None) -> Any:
  """TFDS's random access to a split of a set that it has prepared."""
  try:
    records = builder.as_data_source(split=split, decoders=decoders)
  except ValueError as error:
    raise UserError(
      f'config.data.split={split!r} is none of {", ".join(builder.info.splits)}'
      ' (or a sum or a slice of them, or all)'
    ) from error
  if not len(records):
    raise UserError(f'config.data.split={split!r} has no examples')
  return records


def _fetch(records: Any, indices: np.ndarray) -> Examples:
  rows = records.__getitems__(indices.tolist())
  examples = {'images': np.stack([row['image'] for row in rows])}
  if 'label' in rows[0]:
    labels = [row['label'] for row in rows]
    examples['labels'] = np.asarray(labels, np.int32)
  return examples


def data_dir(wanted: Wanted) -> epath.Path:
  """Where prepared sets are: `config.data.dir`, or as TFDS_DATA_DIR says."""
  return epath.Path(wanted.dir or tfds.core.constants.DATA_DIR).expanduser()


def _folder(original: Original, wanted: Wanted) -> epath.Path:
  return data_dir(wanted) / _dataset(original) / _variant(wanted) / VERSION


def _dataset(original: Original) -> str:
  return f'gan_jax_{original.name}'


def _variant(wanted: Wanted) -> str:
  """What is made of the pictures, as a name: 64x64_rgb_crop178."""
  colours = {1: 'grey', 3: 'rgb'}[wanted.channels]
  crop = '' if wanted.crop is None else f'_crop{wanted.crop}'
  return f'{wanted.resolution}x{wanted.resolution}_{colours}{crop}'


def _is_prepared(folder: epath.Path) -> bool:
  # TFDS gives a set its name when it is whole, and not before.
  return (folder / 'dataset_info.json').exists()


def _count(folder: epath.Path) -> int:
  splits = tfds.builder_from_directory(folder).info.splits
  return sum(split.num_examples for split in splits.values())


def _prepare(original: Original, wanted: Wanted, anew: bool = False) -> None:
  """Finds or downloads the files, and writes the set, whole or not at all."""
  folder = _folder(original, wanted)
  with _alone(folder):
    if _is_prepared(folder) and not anew:
      return  # by another process, while this one waited
    if wanted.files is None:
      found = _download(original, wanted)
    else:
      found = locate(original, Path(wanted.files).expanduser())
    splits, labelled = original.read(found, wanted)
    total = sum(split.size for split in splits.values())
    if total < original.size:
      warn(
        f'{total:,} of the {original.size:,} images of '
        f'{original.name} are there; going on with them'
      )
    _check_space(folder, total * wanted.image_bytes)
    for stale in folder.parent.glob(f'incomplete.*_{VERSION}'):
      stale.rmtree()  # of a preparation that was killed
    _write(original, wanted, splits, labelled)
  print(f'Prepared: {folder}')


@contextlib.contextmanager
def _alone(folder: epath.Path) -> Iterator[None]:
  """Waits until no other process is preparing the same."""
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = (folder.parent / '.lock').open('w')
  except OSError as error:
    raise UserError(
      f'cannot write to {folder.parent}: {error.strerror}; --config.data.dir '
      'is where prepared sets go'
    ) from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print('Waiting for another process, which is preparing the same')
      fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def _check_space(folder: epath.Path, needed: int) -> None:
  free = shutil.disk_usage(folder.parent).free
  if needed > free:
    raise UserError(
      f'{folder.parent} has {free / 1e9:,.1f} GB left, and {needed / 1e9:,.1f} '
      'are needed: --config.data.dir names another place'
    )


def _download(original: Original, wanted: Wanted) -> Found:
  infos = {
    file.url: tfds.download.checksums.UrlInfo(
      size=tfds.core.utils.Size(file.bytes),
      checksum=file.sha256,
      filename=file.names[0],
    )
    for file in original.files
  }
  manager = tfds.download.DownloadManager(
    download_dir=data_dir(wanted) / 'downloads',
    dataset_name=_dataset(original),
    url_infos=infos,
    force_checksums_validation=True,
  )
  urls = {file.names[0]: file.url for file in original.files}
  try:
    # TFDS tries for minutes where there is no network at all.
    requests.head(original.files[0].url, timeout=TIMEOUT_SECONDS)
    return {k: Path(path) for k, path in manager.download(urls).items()}
  except Exception as error:  # of requests, of TFDS, of Google Drive's pages
    raise UserError(
      f'{original.name} could not be downloaded ({type(error).__name__}): '
      f'{where_to_get(original)}'
    ) from error


def locate(original: Original, path: Path) -> Found:
  """The official files at `path`: it is one of them, or the folder of them."""
  names = {name for file in original.files for name in file.names}
  holds = any((path / name).exists() for name in names)
  inside = [p for p in (path, *path.parents) if p.name in names]
  pointed = inside[0] if inside and not holds else None
  root = pointed.parent if pointed else path
  found = {}
  for file in original.files:
    candidates = [root / name for name in file.names]
    candidates.sort(key=lambda candidate: candidate != pointed)
    there = [candidate for candidate in candidates if candidate.exists()]
    if there:
      found[file.names[0]] = there[0]
    elif file.needed:
      raise UserError(
        f'{path} has no {" or ".join(file.names)}: {where_to_get(original)}'
      )
  return found


def where_to_get(original: Original) -> str:
  """Tells how a user comes by the files of a set, in words."""
  listed = [
    f'{file.names[0]} ({file.bytes:,} bytes'
    f'{"" if file.needed else ", optional"}) from {file.url}'
    for file in original.files
  ]
  return (
    f'get {", ".join(listed)} (see {original.homepage}) into a folder, and go '
    'on with the same command and --config.data.files=FOLDER'
  )


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes the splits that it is given."""

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
    # In the order given, so that an example's number is its file's.
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
  original: Original, wanted: Wanted, splits: dict[str, Split], labelled: bool
) -> None:
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

  folder = _folder(original, wanted)
  if _is_prepared(folder):
    folder.rmtree()
  tfds.disable_progress_bar()
  with _quiet():
    builder = _Builder(
      _dataset(original),
      tfds.features.FeaturesDict(features),
      {name: keyed(name, split) for name, split in splits.items()},
      original.homepage,
      config=tfds.core.BuilderConfig(name=_variant(wanted)),
      data_dir=data_dir(wanted),
      file_format='array_record',
    )
    builder.download_and_prepare()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps from the user what TFDS says."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(before)
