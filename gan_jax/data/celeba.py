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

# The images: the archive, the folder it unpacks to, or TFDS's own celeb_a.
ARCHIVE, FOLDER, TFDS = 'img_align_celeba.zip', 'img_align_celeba', 'celeb_a'
PARTITION, ATTRIBUTES = 'list_eval_partition.txt', 'list_attr_celeba.txt'
SIZE = 178, 218
SPLITS = ('train', 'validation', 'test')
# The official partition, by the numbers of the images: where each split ends.
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
  """An image that is yet to be decoded."""

  name: str
  data: bytes
  label: Any


# Of each split: how many images there are, and the images.
Parts = dict[str, tuple[int, Iterator[Encoded]]]


def _read(found: Found, wanted: DataSpec) -> tuple[dict[str, Split], bool]:
  images = found[ARCHIVE]
  if images.name == TFDS or (images / 'dataset_info.json').exists():
    parts, labelled = _of_tfds(images), True
  else:
    parts, labelled = _of_files(images, found), ATTRIBUTES in found
  total = sum(size for size, _ in parts.values())
  bad: list[str] = []

  def examples(encoded: Iterator[Encoded]) -> Iterator[tuple[np.ndarray, Any]]:
    look = lambda one: (one, _decode(one, wanted))
    for one, image in threaded(look, encoded):
      if image is None:
        bad.append(one.name)
      else:
        yield image, one.label
    left.pop()
    if not left:
      report(bad, total, str(images))

  splits = {
    split: Split(size, examples(encoded))
    for split, (size, encoded) in parts.items()
    if size
  }
  left = list(splits)  # those that are not written yet
  return splits, labelled


def _decode(one: Encoded, wanted: DataSpec) -> np.ndarray | None:
  image = decode(io.BytesIO(one.data), wanted)
  if image is None:
    return None
  size = Image.open(io.BytesIO(one.data)).size
  if size != SIZE:
    raise UserError(
      f'{one.name} is of {size[0]}x{size[1]}, not of {SIZE[0]}x{SIZE[1]} as '
      'CelebA, aligned and cropped: --config.data.source=folder:PATH takes any'
    )
  return image


def _of_tfds(folder: Path) -> Parts:
  """The splits of a copy of TFDS's celeb_a, in the order that it has them."""
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


def _of_files(images: Path, found: Found) -> Parts:
  """The splits of the official files, in the order of their names."""
  read = _archive(images) if images.is_file() else _folder(images)
  if not read:
    raise UserError(f'{images} has no .jpg files')
  split_of = official_split
  if PARTITION in found:
    check_official(CELEBA.files[1], found[PARTITION])
    partition = _table(found[PARTITION], ())
    split_of = lambda name: SPLITS[partition(name)[0]]
  label_of = lambda name: None
  if ATTRIBUTES in found:
    check_official(CELEBA.files[2], found[ATTRIBUTES])
    table = _table(found[ATTRIBUTES], CLASSES)
    label_of = lambda name: np.int32(table(name) == 1)  # 1 and -1 there
  else:
    file = CELEBA.files[2]
    print(
      f'There will be no labels: {ATTRIBUTES} ({file.bytes:,} bytes, from '
      f'{file.url}) is not with {images}'
    )
  names: dict[str, list[str]] = {split: [] for split in SPLITS}
  for name in sorted(read):
    names[split_of(name)].append(name)
  encoded = lambda split: (
    Encoded(name, read[name](), label_of(name)) for name in names[split]
  )
  return {split: (len(names[split]), encoded(split)) for split in SPLITS}


def _folder(path: Path) -> dict[str, Callable[[], bytes]]:
  def read(file: Path) -> bytes:
    try:
      return file.read_bytes()
    except OSError:
      return b''  # no picture: it is reported with those that do not decode

  return {
    file.name: partial(read, file)
    for file in path.rglob('*.jpg')
    if file.name[0] != '.'
  }


def _archive(path: Path) -> dict[str, Callable[[], bytes]]:
  check_official(CELEBA.files[0], path)
  try:
    archive = zipfile.ZipFile(path)
  except (zipfile.BadZipFile, OSError) as error:
    size = CELEBA.files[0].bytes
    raise UserError(
      f'{path} is damaged ({error}): it weighs {path.stat().st_size:,} bytes, '
      f'the official one {size:,}'
    ) from error

  def read(member: str) -> bytes:
    try:
      return archive.read(member)
    except Exception:  # zipfile has many names for what is wrong
      return b''

  names = {member: Path(member).name for member in archive.namelist()}
  return {
    name: partial(read, member)
    for member, name in names.items()
    if name.endswith('.jpg') and name[0] != '.'
  }


def _table(path: Path, header: tuple[str, ...]) -> Callable[[str], np.ndarray]:
  """(name of an image) -> its numbers in one of the list_*.txt.

  A line an image: its name, and its numbers. One with a header begins with
  the number of images, and the names of the columns; one without has a column
  that tells the split.
  """
  try:
    lines = path.read_text().splitlines()
  except (OSError, ValueError) as error:
    raise UserError(f'{path} cannot be read: {error}') from error
  skip = 2 if header else 0
  if header and tuple(lines[1].split() if len(lines) > 1 else ()) != header:
    raise UserError(f'{path} does not have the {len(header)} names of CelebA')
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
        f'{path}, line {number}: a name and {columns} of {sorted(allowed)} are '
        f'expected, not {line[:60]!r}'
      )
    rows[name] = row

  def of(name: str) -> np.ndarray:
    if name not in rows:
      raise UserError(f'{path} does not list {name}')
    return rows[name]

  return of


def official_split(name: str) -> str:
  """The split that an image is in: 000001.jpg -> train."""
  number = Path(name).stem
  if not number.isdigit() or int(number) > ENDS[-1]:
    raise UserError(
      f'{name} is not one of 000001.jpg to {ENDS[-1]}.jpg: is this CelebA?'
    )
  return SPLITS[np.searchsorted(ENDS, int(number))]


def _drive(identity: str) -> str:
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
      _drive('0B7EVK8r0v71pZjFTYXZWM3FlRnM'),
      1_443_490_838,
      '46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74',
    ),
    File(
      (PARTITION,),
      _drive('0B7EVK8r0v71pY0NSMzRuSXJEVkk'),
      2_836_386,
      'fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7',
      needed=False,
    ),
    File(
      (ATTRIBUTES,),
      _drive('0B7EVK8r0v71pblRyaVFSWGxPY0U'),
      26_721_026,
      'f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0',
      needed=False,
    ),
  ),
  read=_read,
)
