"""How many images a second the loader makes, of each kind of source.

  python tests/loader_speed.py [--folder=DIR] [--workers=0,1,2]

Makes a set of photographs in each form (of genuine ones where
../shared/data is, else of noise), and times batches of 64 at 64x64, workers
started, each kind three times: the median, and the slowest and the fastest.
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
from tables import constant_table

from gan_jax import data
from gan_jax.data.loader import load
from gan_jax.data.order import Stream
from gan_jax.modes.dispatch_timer import loaded

SHARED = Path(__file__).parents[2] / 'shared' / 'data'
SET, BATCH, RESOLUTION = 4000, 64, 64
# CelebA's files are of 178x218 and 7 KB each.
CELEBA, QUALITY = (178, 218), 80


def photographs():
  """SET pictures to begin with."""
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
  """JPEG like CelebA's, in a folder and in the archive; PNG of 64x64."""
  jpeg, png = folder / 'jpeg', folder / 'png'
  archive = folder / 'celeba' / 'img_align_celeba.zip'
  for path in (jpeg, png, archive.parent):
    path.mkdir(parents=True)
  with zipfile.ZipFile(archive, 'w') as zipped:
    for number, picture in enumerate(photographs(), 1):
      file = jpeg / f'{number:06}.jpg'
      large = picture.resize(CELEBA, Image.Resampling.BICUBIC)
      large.save(file, quality=QUALITY)
      zipped.write(file, f'img_align_celeba/{file.name}')
      small = picture.resize((RESOLUTION,) * 2, Image.Resampling.BICUBIC)
      small.save(png / f'{number:06}.png')
  size = sum(file.stat().st_size for file in jpeg.iterdir()) / SET
  print(f'{SET} images; {size / 1000:.1f} KB each as JPEG of 178x218')
  return {
    'JPEG 178x218, folder': (f'folder:{jpeg}', None),
    'PNG 64x64, folder': (f'folder:{png}', None),
    'prepared uint8 64x64': ('celeba', archive.parent),
  }


def images_per_second(source, workers):
  """Of batches made one after the other, as a run asks for them."""
  table = constant_table(2**40, 1, batch_size=BATCH, disc_steps=1)
  stream = Stream(0, source.size)
  make = partial(index_batch, stream, source, table, lambda n: slice(n))
  fed = load(make, range(table.total_steps), workers)
  return loaded(fed, BATCH, 2.0)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--folder', type=Path, default=None)
  parser.add_argument('--workers', default='0,1,2')
  parser.add_argument('--times', type=int, default=3)
  args = parser.parse_args()
  print(f'{os.cpu_count()} cores')
  with tempfile.TemporaryDirectory(dir=args.folder) as folder:
    for name, (source, files) in make_sets(Path(folder)).items():
      block = {
        'source': source,
        'resolution': RESOLUTION,
        'channels': 3,
        'crop': 178 if source == 'celeba' else None,
        'split': 'all',
        'dir': folder,
        'files': files and str(files),
        'max_device_bytes': 0,
      }
      made = data.make(ConfigDict({'data': block}))
      for workers in map(int, args.workers.split(',')):
        speeds = sorted(
          images_per_second(made, workers) for _ in range(args.times)
        )
        middle = speeds[len(speeds) // 2]
        print(
          f'{name:22} {workers} workers: {middle:8,.0f} images/s '
          f'({speeds[0]:,.0f} to {speeds[-1]:,.0f})',
          flush=True,
        )


if __name__ == '__main__':
  main()
