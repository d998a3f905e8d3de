"""The official data sets: their files, and how to download or find them."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath, epy

from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError

with epy.lazy_imports():  # only a download needs them
  import requests
  import tensorflow_datasets as tfds

TIMEOUT_SECONDS = 20
# The first name of each `File` -> its path.
Found = Mapping[str, Path]


class File(NamedTuple):
  """A file of an official data set.

  Attributes:
    names: Its possible names: first the distributed one, then, for example,
      the unpacked one.
    url, bytes, sha256: Of the distributed file.
    needed: Whether the data set cannot be prepared without it.
  """

  names: tuple[str, ...]
  url: str
  bytes: int
  sha256: str
  needed: bool = True


class Split(NamedTuple):
  """The examples of one split, to be written.

  Attributes:
    size: The number of examples, including those that cannot be decoded.
    examples: Pairs of a preprocessed image and its label.
  """

  size: int
  examples: Iterable[tuple[np.ndarray, Any]]


class DatasetInfo(NamedTuple):
  """An official data set.

  Attributes:
    name: Its name in `SOURCES`.
    homepage: A page that links to its files.
    size: Its number of images in all splits.
    classes: The names of its labels.
    files: Its files.
    read: (found, spec) -> its splits, and whether they have labels.
    attributes: Whether a label has a 0 or 1 for each of `classes`.
  """

  name: str
  homepage: str
  size: int
  classes: tuple[str, ...]
  files: tuple[File, ...]
  read: Callable[[Found, DataSpec], tuple[dict[str, Split], bool]]
  attributes: bool = False


def download(info: DatasetInfo, folder: epath.Path) -> Found:
  """Downloads the files with TFDS, which verifies and caches them.

  Raises:
    UserError: The download failed.
  """
  infos = {
    file.url: tfds.download.checksums.UrlInfo(
      size=tfds.core.utils.Size(file.bytes),
      checksum=file.sha256,
      filename=file.names[0],
    )
    for file in info.files
  }
  manager = tfds.download.DownloadManager(
    download_dir=folder,
    dataset_name=info.name,
    url_infos=infos,
    force_checksums_validation=True,
  )
  urls = {file.names[0]: file.url for file in info.files}
  download_folder = folder / info.name
  name = tfds.download.resource.get_dl_fname
  missing = [
    file.url
    for file in info.files
    if not (download_folder / name(file.url, file.sha256)).exists()
  ]
  try:
    if missing:  # fails fast without a network: TFDS retries for minutes
      requests.head(missing[0], timeout=TIMEOUT_SECONDS)
    return {k: Path(path) for k, path in manager.download(urls).items()}
  except Exception as error:  # requests and TFDS raise errors of many types
    raise UserError(
      f'cannot download {info.name} ({type(error).__name__}): '
      f'{where_to_get(info)}'
    ) from error


def locate(info: DatasetInfo, path: Path) -> Found:
  """Finds the official files at `path`: a folder of them, or one of them.

  Raises:
    UserError: `path`, or a needed file, does not exist.
  """
  if not path.exists():
    raise UserError(
      f'{path} does not exist: --config.data.files must name the folder of '
      'the official files'
    )
  names = {name for file in info.files for name in file.names}
  is_folder = any((path / name).exists() for name in names)
  matches = [p for p in (path, *path.parents) if p.name in names]
  named_file = matches[0] if matches and not is_folder else None
  root = named_file.parent if named_file else path
  found = {}
  for file in info.files:
    existing = [root / name for name in file.names if (root / name).exists()]
    if named_file in existing:
      found[file.names[0]] = path
    elif existing:
      found[file.names[0]] = existing[0]
    elif file.needed:
      raise UserError(
        f'{path} has no {" or ".join(file.names)}: {where_to_get(info)}'
      )
  return found


def check_official(file: File, path: Path) -> None:
  """Refuses a file with the official size but another content."""
  if not path.is_file() or path.stat().st_size != file.bytes:
    return
  with path.open('rb') as opened:
    digest = hashlib.file_digest(opened, 'sha256').hexdigest()
  if digest != file.sha256:
    raise UserError(
      f'{path} is damaged: its SHA-256 is {digest[:16]}..., the official one '
      f'{file.sha256[:16]}...; download it again'
    )


def where_to_get(info: DatasetInfo) -> str:
  """Tells the user where to download the files of a data set."""
  listed = [
    f'{file.names[0]} ({file.bytes:,} bytes'
    f'{"" if file.needed else ", optional"}) from {file.url}'
    for file in info.files
  ]
  return (
    f'download {", ".join(listed)} (see {info.homepage}) into a folder, and '
    'run the same command with --config.data.files=FOLDER'
  )
