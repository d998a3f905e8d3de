"""What an official data set is, and how its files are come by."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import requests
import tensorflow_datasets as tfds
from etils import epath

from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError

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


class DatasetInfo(NamedTuple):
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
  read: Callable[[Found, DataSpec], tuple[dict[str, Split], bool]]
  attributes: bool = False


def download(original: DatasetInfo, folder: epath.Path) -> Found:
  """Downloads the files by TFDS's manager, which checks and keeps them."""
  infos = {
    file.url: tfds.download.checksums.UrlInfo(
      size=tfds.core.utils.Size(file.bytes),
      checksum=file.sha256,
      filename=file.names[0],
    )
    for file in original.files
  }
  manager = tfds.download.DownloadManager(
    download_dir=folder,
    dataset_name=original.name,
    url_infos=infos,
    force_checksums_validation=True,
  )
  urls = {file.names[0]: file.url for file in original.files}
  kept = folder / original.name
  name = tfds.download.resource.get_dl_fname
  missing = [
    file.url
    for file in original.files
    if not (kept / name(file.url, file.sha256)).exists()
  ]
  try:
    if missing:  # TFDS tries for minutes where there is no network at all
      requests.head(missing[0], timeout=TIMEOUT_SECONDS)
    return {k: Path(path) for k, path in manager.download(urls).items()}
  except Exception as error:  # of requests, of TFDS, of Google Drive's pages
    raise UserError(
      f'{original.name} could not be downloaded ({type(error).__name__}): '
      f'{where_to_get(original)}'
    ) from error


def locate(original: DatasetInfo, path: Path) -> Found:
  """The official files at `path`: it is one of them, or the folder of them."""
  if not path.exists():
    raise UserError(
      f'there is no {path}: --config.data.files is to name a '
      'folder with the official files'
    )
  names = {name for file in original.files for name in file.names}
  holds = any((path / name).exists() for name in names)
  inside = [p for p in (path, *path.parents) if p.name in names]
  pointed = inside[0] if inside and not holds else None
  root = pointed.parent if pointed else path
  found = {}
  for file in original.files:
    there = [root / name for name in file.names if (root / name).exists()]
    if pointed in there:
      found[file.names[0]] = path
    elif there:
      found[file.names[0]] = there[0]
    elif file.needed:
      raise UserError(
        f'{path} has no {" or ".join(file.names)}: {where_to_get(original)}'
      )
  return found


def check_official(file: File, path: Path) -> None:
  """Refuses what is of the official weight, and is not the official file."""
  if not path.is_file() or path.stat().st_size != file.bytes:
    return
  with path.open('rb') as opened:
    digest = hashlib.file_digest(opened, 'sha256').hexdigest()
  if digest != file.sha256:
    raise UserError(
      f'{path} is damaged: its SHA-256 is {digest[:16]}..., the official one '
      f'{file.sha256[:16]}...'
    )


def where_to_get(original: DatasetInfo) -> str:
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
