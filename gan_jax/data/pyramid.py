"""Smaller copies of a prepared set, for the stages of progressive growing.

Beside each shard NAME are files NAME.sumsF.npy, for F = 2, 4, ... down to 4x4:
sums over squares of F x F pixels, as integers. Divided by F^2 they are exactly
the averages that the devices compute of the whole images; rounded to uint8 they
would not be. (Compilers may still scale both to [-1, 1] with another rounding
of the last bit.)
"""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import UInt

from gan_jax.data.records import Records, Shard, open_records
from gan_jax.data.source import Examples

# The file that marks a complete pyramid.
MARK = 'pyramid.json'
SMALLEST = 4
# Sums of 16 x 16 bytes fit into 16 bits: 256 x 255 = 65,280.
MAX_FACTOR_16 = 16


def factors(resolution: int) -> tuple[int, ...]:
  """Returns the factors of the levels: 2, 4, ... down to 4x4."""
  return tuple(_factors(resolution))


def _factors(resolution: int) -> Iterator[int]:
  factor = 2
  while resolution % factor == 0 and resolution // factor >= SMALLEST:
    yield factor
    factor *= 2


def is_written(folder: epath.Path) -> bool:
  """Whether a prepared set has a pyramid."""
  return (folder / MARK).exists()


def write(folder: epath.Path, builder: Any) -> None:
  """Writes the pyramid of a prepared set, shard by shard."""
  resolution = builder.info.features['image'].shape[0]
  for split in builder.info.splits:
    records = open_records(builder, split)
    for number, shard in enumerate(records.shards):
      _write_shard(folder, records, number, shard, resolution)
  (folder / MARK).write_text(json.dumps(factors(resolution)))


def _write_shard(
  folder: epath.Path,
  records: Records,
  number: int,
  shard: Shard,
  resolution: int,
) -> None:
  """Writes the levels of one shard; each is summed from the one before."""
  start = sum(other.count for other in records.shards[:number])
  examples = records.read(start + np.arange(shard.count))
  sums = np.stack([example['image'] for example in examples])
  for factor in factors(resolution):
    sums = sum_squares(sums)
    dtype = np.uint16 if factor <= MAX_FACTOR_16 else np.uint32
    fields = [('images', dtype, sums.shape[1:])]
    if 'label' in examples[0]:
      labels = np.asarray([example['label'] for example in examples], np.int32)
      fields.append(('labels', np.int32, labels.shape[1:]))
    table = np.empty(shard.count, fields)
    table['images'] = sums
    if 'label' in examples[0]:
      table['labels'] = labels
    with (folder / file_name(shard.name, factor)).open('wb') as file:
      np.save(file, table)


def sum_squares(
  images: UInt[np.ndarray, 'n H W c'],
) -> UInt[np.ndarray, 'n h w c']:
  """Sums squares of 2 x 2 pixels, exactly."""
  n, height, width, channels = images.shape
  squares = images.reshape(n, height // 2, 2, width // 2, 2, channels)
  return squares.sum((2, 4), dtype=np.uint32)


def file_name(shard: str, factor: int) -> str:
  """Returns the file of a level of a shard; factor 1: the shard itself."""
  return shard if factor == 1 else f'{shard}.sums{factor}.npy'


def fetch(records: Records, indices: np.ndarray, factor: int) -> Examples:
  """Reads the sums, and the labels, of the examples at `indices`."""
  opener = partial(np.load, mmap_mode='r')
  name = partial(file_name, factor=factor)
  found = None
  for number, rows, positions in records.by_shard(indices):
    table = records.opened(number, name, opener)
    if found is None:
      found = np.empty(len(indices), table.dtype)
    found[rows] = table[positions]
  return {entry: found[entry] for entry in found.dtype.names}
