"""Measures how far block-shuffled orders are from uniform permutations.

  python tests/shuffle_quality.py [--seeds=10]

A set of 65,536 images in 64 shards, sorted by 16 classes, in batches of 64. For
each window: the distance in an epoch between examples that are neighbours in
storage, as a share of the epoch; the share of pairs in a batch that are from
the same shard; and the total variation between the classes of a batch and
those of the set. A uniform permutation is measured in the same way.
"""

import argparse

import numpy as np

from gan_jax.data.order import Stream
from gan_jax.data.source import Blocks

SHARDS, SHARD, CLASSES, BATCH = 64, 1024, 16, 64
SIZE = SHARDS * SHARD
WINDOWS = (1, 2, 4, 8, 16, 32, 64, None)


def neighbor_distances(order):
  """Returns |position of i - position of i + 1| / size, for all i."""
  positions = np.argsort(order)
  return np.abs(np.diff(positions)) / len(order)


def same_block_share(order, sizes, batch):
  """Returns the share of the pairs in a batch that are from one block."""
  blocks = np.searchsorted(np.cumsum(sizes), order, side='right')
  counts = _counts(blocks, len(sizes), batch)
  return (counts * (counts - 1)).sum(1).mean() / (batch * (batch - 1))


def class_variation(order, labels, batch):
  """Returns the mean total variation of the classes of a batch."""
  counts = _counts(labels[order], labels.max() + 1, batch)
  share = np.bincount(labels) / len(labels)
  return np.abs(counts / batch - share).sum(1).mean() / 2


def _counts(values, kinds, batch):
  """Returns how often each value is in each whole batch: [batches, kinds]."""
  rows = values[: len(values) // batch * batch].reshape(-1, batch)
  return np.stack([(rows == kind).sum(1) for kind in range(kinds)], 1)


def measure(window, seed):
  """Returns the measures of an epoch: see the module."""
  sizes = (SHARD,) * SHARDS
  blocks = window and Blocks(sizes, window)
  order = Stream(seed, SIZE, blocks=blocks).indices(np.arange(SIZE))
  distances = neighbor_distances(order)
  labels = np.arange(SIZE) // (SIZE // CLASSES)
  return (
    np.median(distances),
    np.quantile(distances, 0.9),
    same_block_share(order, sizes, BATCH),
    class_variation(order, labels, BATCH),
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--seeds', type=int, default=10)
  args = parser.parse_args()
  print(
    '| window | median distance | 90% of distances | same shard | classes |'
  )
  print('|---|---|---|---|---|')
  for window in WINDOWS:
    values = np.array([measure(window, seed) for seed in range(args.seeds)])
    cells = [
      f'{mean:.4f} ± {std:.4f}'
      for mean, std in zip(values.mean(0), values.std(0), strict=True)
    ]
    name = f'{window} of {SHARDS} shards' if window else 'uniform'
    print(f'| {name} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
  main()
