"""Measures the speed of the loader in images/s for each type of source.

  python tests/loader_speed.py [--folder=DIR] [--workers=0,1,2]

Writes photographs in each form (genuine ones if ../shared/data exists, else
noise), and times batches of 64 at 64x64 after the workers started. Prints the
median, the slowest and the fastest of three measurements of each type.
"""

import argparse
import io
import os
import tarfile
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from schedules import one_segment_schedule

from gan_jax import data
from gan_jax.data.loader import load
from gan_jax.data.order import Stream
from gan_jax.modes.dispatch_timer import loader_speed
from gan_jax.training.feed import index_batch

SHARED = Path(__file__).parents[2] / 'shared' / 'data'
SET, BATCH, RESOLUTION = 4000, 64, 64
# CelebA's files have 178x218 pixels and 7 KB each.
CELEBA, QUALITY = (178, 218), 80


def photographs():
  """Yields SET images."""
  path = SHARED / 'cifar10_jpg.tar.xz'
  if not path.exists():
    rng = np.random.default_rng(0)
    for _ in range(SET):
      yield Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8))
    return
  with tarfile.open(path) as archive:
    files = (member for member in archive if member.name.endswith('.jpg'))
    for _, member in zip(range(SET), files, strict=False):
      yield Image.open(io.BytesIO(archive.extractfile(member).read()))


def make_sets(folder):
  """Writes JPEGs like CelebA's, in a folder and an archive; and 64x64 PNGs."""
  jpeg, png = folder / 'jpeg', folder / 'png'
  archive = folder / 'celeba' / 'img_align_celeba.zip'
  for path in (jpeg, png, archive.parent):
    path.mkdir(parents=True)
  with zipfile.ZipFile(archive, 'w') as zipped:
    for number, image in enumerate(photographs(), 1):
      file = jpeg / f'{number:06}.jpg'
      large = image.resize(CELEBA, Image.Resampling.BICUBIC)
      large.save(file, quality=QUALITY)
      zipped.write(file, f'img_align_celeba/{file.name}')
      small = image.resize((RESOLUTION,) * 2, Image.Resampling.BICUBIC)
      small.save(png / f'{number:06}.png')
  size = sum(file.stat().st_size for file in jpeg.iterdir()) / SET
  print(f'{SET} images; {size / 1000:.1f} KB each as JPEG of 178x218')
  return {
    'JPEG 178x218, folder': (f'folder:{jpeg}', None),
    'PNG 64x64, folder': (f'folder:{png}', None),
    'prepared uint8 64x64': ('celeba', archive.parent),
  }


def images_per_second(source, workers):
  """Measures the loader on consecutive batches, as in a run."""
  schedule = one_segment_schedule(2**36, 1, batch_size=BATCH, disc_steps=1)
  stream = Stream(0, source.size)
  make = partial(index_batch, stream, source, schedule, lambda n: slice(n))
  batches = load(make, range(schedule.total_steps), workers)
  return loader_speed(batches, BATCH, 2.0)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--folder', type=Path, default=None)
  parser.add_argument('--workers', default='0,1,2')
  parser.add_argument('--times', type=int, default=3)
  args = parser.parse_args()
  print(f'{os.cpu_count()} cores')
  with tempfile.TemporaryDirectory(dir=args.folder) as folder:
    for name, (source_name, files) in make_sets(Path(folder)).items():
      block = {
        'source': source_name,
        'resolution': RESOLUTION,
        'channels': 3,
        'crop': 178 if source_name == 'celeba' else None,
        'split': 'all',
        'dir': folder,
        'files': files and str(files),
        'max_device_bytes': 0,
      }
      source = data.make(ConfigDict({'data': block}))
      for workers in map(int, args.workers.split(',')):
        speeds = sorted(
          images_per_second(source, workers) for _ in range(args.times)
        )
        median = speeds[len(speeds) // 2]
        print(
          f'{name:22} {workers} workers: {median:8,.0f} images/s '
          f'({speeds[0]:,.0f} to {speeds[-1]:,.0f})',
          flush=True,
        )


if __name__ == '__main__':
  main()
