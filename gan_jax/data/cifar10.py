"""CIFAR-10, read from its binary version."""

import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from gan_jax.data.official import (
  DatasetInfo,
  File,
  Found,
  Split,
  check_official,
)
from gan_jax.data.preprocess import preprocess
from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError

ARCHIVE, FOLDER = 'cifar-10-binary.tar.gz', 'cifar-10-batches-bin'
BATCHES = {
  'train': tuple(f'data_batch_{i}.bin' for i in range(1, 6)),
  'test': ('test_batch.bin',),
}
OFFICIAL_BATCH = 10_000
# A record: the label, then the red, green and blue planes, row by row.
RECORD_BYTES = 1 + 3 * 32 * 32


def _read(found: Found, spec: DataSpec) -> tuple[dict[str, Split], bool]:
  """Reads the splits, and whether they have labels."""
  path = found[ARCHIVE]
  check_official(CIFAR10.files[0], path)
  batches = _batches(path)
  splits = {}
  for split, names in BATCHES.items():
    raw = b''.join(batches[name] for name in names)
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD_BYTES)
    labels = records[:, 0]
    counts = np.bincount(labels, minlength=10)
    official = OFFICIAL_BATCH * len(names)
    # The content has no published checksum, but the official splits are
    # balanced.
    if len(counts) > 10 or (
      len(labels) >= official and set(counts) != {official // 10}
    ):
      raise UserError(
        f'{path} is not CIFAR-10: the numbers of images of each class in '
        f'{split} are {counts.tolist()}'
      )
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    pixels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    images = (preprocess(Image.fromarray(image), spec) for image in pixels)
    splits[split] = Split(len(labels), zip(images, labels, strict=True))
  return splits, True


def _batches(path: Path) -> dict[str, bytes]:
  """Reads the batches by name, from the archive or its unpacked folder."""
  try:
    if path.is_dir():
      batches = {file.name: file.read_bytes() for file in path.glob('*.bin')}
    else:
      with tarfile.open(path) as archive:
        batches = {
          Path(member.name).name: archive.extractfile(member).read()
          for member in archive
          if member.isfile() and member.name.endswith('.bin')
        }
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise UserError(f'{path} is damaged: {error}; download it again') from error
  for name in (name for names in BATCHES.values() for name in names):
    if name not in batches:
      raise UserError(f'{path} has no {name}: download it again')
    if not batches[name] or len(batches[name]) % RECORD_BYTES:
      raise UserError(
        f'{name} in {path} is damaged: {len(batches[name]):,} bytes, not a '
        f'multiple of {RECORD_BYTES:,}; download it again'
      )
  return batches


CIFAR10 = DatasetInfo(
  name='cifar10',
  homepage='https://www.cs.toronto.edu/~kriz/cifar.html',
  size=60_000,
  classes=(
    'airplane', 'automobile', 'bird', 'cat', 'deer',
    'dog', 'frog', 'horse', 'ship', 'truck',
  ),
  files=(
    File(
      (ARCHIVE, FOLDER),
      f'https://www.cs.toronto.edu/~kriz/{ARCHIVE}',
      170_052_171,
      'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
    ),
  ),
  read=_read,
)  # fmt: skip
