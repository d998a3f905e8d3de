"""CelebA, aligned and cropped: 202,599 faces of 178x218, 40 attributes.

Liu et al. 2015, "Deep learning face attributes in the wild".
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gan_jax.data.catalogue import encoded_examples, newest_version
from gan_jax.data.decode import decode, report, threaded
from gan_jax.data.official import (
  DatasetInfo,
  File,
  Found,
  Split,
  check_official,
)
from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError

# The images: the archive, its unpacked folder, or TFDS's data set celeb_a.
ARCHIVE, FOLDER, TFDS = 'img_align_celeba.zip', 'img_align_celeba', 'celeb_a'
PARTITION, ATTRIBUTES = 'list_eval_partition.txt', 'list_attr_celeba.txt'
SIZE = 178, 218
SPLITS = ('train', 'validation', 'test')
# The official partition: the number of the last image of each split.
ENDS = (162_770, 182_637, 202_599)

CLASSES = (
  '5_o_Clock_Shadow', 'Arched_Eyebrows', 'Attractive', 'Bags_Under_Eyes',
  'Bald', 'Bangs', 'Big_Lips', 'Big_Nose', 'Black_Hair', 'Blond_Hair', 'Blurry',
  'Brown_Hair', 'Bushy_Eyebrows', 'Chubby', 'Double_Chin', 'Eyeglasses',
  'Goatee', 'Gray_Hair', 'Heavy_Makeup', 'High_Cheekbones', 'Male',
  'Mouth_Slightly_Open', 'Mustache', 'Narrow_Eyes', 'No_Beard', 'Oval_Face',
  'Pale_Skin', 'Pointy_Nose', 'Receding_Hairline', 'Rosy_Cheeks', 'Sideburns',
  'Smiling', 'Straight_Hair', 'Wavy_Hair', 'Wearing_Earrings', 'Wearing_Hat',
  'Wearing_Lipstick', 'Wearing_Necklace', 'Wearing_Necktie', 'Young',
)  # fmt: skip


class Encoded(NamedTuple):
  """An image before decoding."""

  name: str
  data: bytes
  label: Any


# Split -> its number of images, and the images.
EncodedSplits = dict[str, tuple[int, Iterator[Encoded]]]


def _read(found: Found, spec: DataSpec) -> tuple[dict[str, Split], bool]:
  """Reads the splits, and whether they have labels."""
  images = found[ARCHIVE]
  if images.name == TFDS or (images / 'dataset_info.json').exists():
    encoded_splits, labelled = _read_tfds(images), True
  else:
    encoded_splits, labelled = _read_files(images, found), ATTRIBUTES in found
  total = sum(size for size, _ in encoded_splits.values())
  failed: list[str] = []

  def examples(encoded: Iterator[Encoded]) -> Iterator[tuple[np.ndarray, Any]]:
    decoded = threaded(lambda one: (one, _decode(one, spec)), encoded)
    for one, image in decoded:
      if image is None:
        failed.append(one.name)
      else:
        yield image, one.label
    unwritten.pop()
    if not unwritten:
      report(failed, total, str(images))

  splits = {
    split: Split(size, examples(encoded))
    for split, (size, encoded) in encoded_splits.items()
    if size
  }
  unwritten = list(splits)
  return splits, labelled


def _decode(one: Encoded, spec: DataSpec) -> np.ndarray | None:
  """Decodes and preprocesses an image; None: it cannot be decoded."""
  image = decode(io.BytesIO(one.data), spec)
  if image is None:
    return None
  size = Image.open(io.BytesIO(one.data)).size
  if size != SIZE:
    raise UserError(
      f'{one.name} has {size[0]}x{size[1]} pixels, but the aligned and cropped '
      f'CelebA has {SIZE[0]}x{SIZE[1]}: read other images with '
      '--config.data.source=folder:PATH'
    )
  return image


def _read_tfds(folder: Path) -> EncodedSplits:
  """Reads a copy of TFDS's celeb_a, in the order of its examples."""
  builder = newest_version(folder)

  def encoded(split: str) -> Iterator[Encoded]:
    for number, example in enumerate(encoded_examples(builder, split)):
      attributes = example['attributes']
      label = np.int32([attributes[name] for name in CLASSES])
      yield Encoded(f'{split} {number}', example['image'], label)

  return {
    split: (info.num_examples, encoded(split))
    for split, info in builder.info.splits.items()
  }


def _read_files(images: Path, found: Found) -> EncodedSplits:
  """Reads the official files, in the order of their names."""
  read = _archive(images) if images.is_file() else _folder(images)
  if not read:
    raise UserError(
      f'{images} has no .jpg files: it must hold the images of CelebA'
    )
  get_split = official_split
  if PARTITION in found:
    check_official(CELEBA.files[1], found[PARTITION])
    partition = _table(found[PARTITION], ())
    get_split = lambda name: SPLITS[partition(name)[0]]
  get_label = lambda name: None
  if ATTRIBUTES in found:
    check_official(CELEBA.files[2], found[ATTRIBUTES])
    table = _table(found[ATTRIBUTES], CLASSES)
    get_label = lambda name: np.int32(
      table(name) == 1
    )  # the table has 1 and -1
  else:
    file = CELEBA.files[2]
    print(
      f'The data set gets no labels: {ATTRIBUTES} ({file.bytes:,} bytes, from '
      f'{file.url}) is not beside {images}'
    )
  names: dict[str, list[str]] = {split: [] for split in SPLITS}
  for name in sorted(read):
    names[get_split(name)].append(name)
  encoded = lambda split: (
    Encoded(name, read[name](), get_label(name)) for name in names[split]
  )
  return {split: (len(names[split]), encoded(split)) for split in SPLITS}


def _folder(path: Path) -> dict[str, Callable[[], bytes]]:
  """Maps the names of the images in a folder to functions that read them."""

  def read(file: Path) -> bytes:
    try:
      return file.read_bytes()
    except OSError:
      return b''  # reported with the images that cannot be decoded

  return {
    file.name: partial(read, file)
    for file in path.rglob('*.jpg')
    if file.name[0] != '.'
  }


def _archive(path: Path) -> dict[str, Callable[[], bytes]]:
  """Maps the names of the images in the archive to functions that read them."""
  check_official(CELEBA.files[0], path)
  try:
    archive = zipfile.ZipFile(path)
  except (zipfile.BadZipFile, OSError) as error:
    size = CELEBA.files[0].bytes
    raise UserError(
      f'{path} is damaged ({error}): it has {path.stat().st_size:,} bytes, '
      f'the official file {size:,}; download it again'
    ) from error

  def read(member: str) -> bytes:
    try:
      return archive.read(member)
    except Exception:  # zipfile raises errors of many types
      return b''

  names = {member: Path(member).name for member in archive.namelist()}
  return {
    name: partial(read, member)
    for member, name in names.items()
    if name.endswith('.jpg') and name[0] != '.'
  }


def _table(path: Path, header: tuple[str, ...]) -> Callable[[str], np.ndarray]:
  """Parses a list_*.txt: returns a function (name of an image) -> its numbers.

  Each line is the name of an image and its numbers. A file with a header starts
  with the number of images and the names of the columns. A file without one has
  a single column, the split.
  """
  try:
    lines = path.read_text().splitlines()
  except (OSError, ValueError) as error:
    raise UserError(f'{path} cannot be read: {error}') from error
  skip = 2 if header else 0
  if header and tuple(lines[1].split() if len(lines) > 1 else ()) != header:
    raise UserError(
      f'{path} must have the {len(header)} attribute names of CelebA in its '
      'second line: download it again'
    )
  columns = len(header) or 1
  allowed = {-1, 1} if header else {0, 1, 2}
  rows = {}
  for number, line in enumerate(lines[skip:], start=skip + 1):
    name, *values = line.split() or ['']
    if not name:
      continue
    try:
      row = np.array(values, int).reshape(columns)
    except ValueError:
      row = np.empty(0)
    if not allowed.issuperset(row) or not len(row):
      raise UserError(
        f'{path}, line {number}: expected a name and {columns} of '
        f'{sorted(allowed)}, not {line[:60]!r}'
      )
    rows[name] = row

  def look_up(name: str) -> np.ndarray:
    if name not in rows:
      raise UserError(f'{path} does not list {name}: download it again')
    return rows[name]

  return look_up


def official_split(name: str) -> str:
  """Returns the official split of an image: 000001.jpg -> train."""
  number = Path(name).stem
  if not number.isdigit() or int(number) > ENDS[-1]:
    raise UserError(
      f'{name} is not an image of CelebA (000001.jpg to {ENDS[-1]}.jpg): read '
      'other images with --config.data.source=folder:PATH'
    )
  return SPLITS[np.searchsorted(ENDS, int(number))]


def _drive_url(identity: str) -> str:
  """Returns the URL of a file on Google Drive."""
  return f'https://drive.google.com/uc?export=download&id={identity}'


CELEBA = DatasetInfo(
  name='celeba',
  homepage='https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html',
  size=ENDS[-1],
  classes=CLASSES,
  attributes=True,
  files=(
    File(
      (ARCHIVE, FOLDER, TFDS),
      _drive_url('0B7EVK8r0v71pZjFTYXZWM3FlRnM'),
      1_443_490_838,
      '46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74',
    ),
    File(
      (PARTITION,),
      _drive_url('0B7EVK8r0v71pY0NSMzRuSXJEVkk'),
      2_836_386,
      'fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7',
      needed=False,
    ),
    File(
      (ATTRIBUTES,),
      _drive_url('0B7EVK8r0v71pblRyaVFSWGxPY0U'),
      26_721_026,
      'f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0',
      needed=False,
    ),
  ),
  read=_read,
)
