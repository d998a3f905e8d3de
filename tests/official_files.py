"""Files in the exact formats of the official data sets, with known content."""

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from gan_jax.data.celeba import CLASSES

CELEBA_SIZE = 178, 218


def write_idx(path, array):
  """Writes a gzipped IDX file of bytes: big-endian sizes, then the data."""
  header = bytes([0, 0, 8, array.ndim])
  sizes = b''.join(int(n).to_bytes(4, 'big') for n in array.shape)
  with gzip.open(path, 'wb', compresslevel=1) as file:
    file.write(header + sizes + array.astype(np.uint8).tobytes())


def write_mnist(folder, train=30, test=10):
  """Writes MNIST's four files; image i has level i and label i % 10."""
  for prefix, n in (('train', train), ('t10k', test)):
    levels = np.arange(n) % 256
    images = np.broadcast_to(levels[:, None, None], (n, 28, 28))
    write_idx(folder / f'{prefix}-images-idx3-ubyte.gz', images)
    write_idx(folder / f'{prefix}-labels-idx1-ubyte.gz', np.arange(n) % 10)


def cifar10_batches(per_batch=20):
  """Makes the six batches; image i has red i, green 100, blue its column."""
  names = [f'data_batch_{i}.bin' for i in range(1, 6)] + ['test_batch.bin']
  batches = {}
  for name in names:
    records = np.zeros((per_batch, 1 + 3072), np.uint8)
    records[:, 0] = np.arange(per_batch) % 10
    planes = records[:, 1:].reshape(per_batch, 3, 32, 32)
    planes[:, 0] = np.arange(per_batch)[:, None, None] % 256
    planes[:, 1] = 100
    planes[:, 2] = np.arange(32)
    batches[name] = records.tobytes()
  return batches


def write_cifar10(folder, batches):
  """Writes cifar-10-binary.tar.gz, with members cifar-10-batches-bin/*.bin."""
  with tarfile.open(folder / 'cifar-10-binary.tar.gz', 'w:gz') as archive:
    for name, content in {**batches, 'batches.meta.txt': b'cat\n'}.items():
      member = tarfile.TarInfo(f'cifar-10-batches-bin/{name}')
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))


def face(number):
  """Makes a JPEG of 178x218: level `number`, in a white frame of 9 pixels."""
  width, height = CELEBA_SIZE
  pixels = np.full((height, width, 3), 255, np.uint8)
  pixels[9:-9, 9:-9] = number
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG', quality=95)
  return file.getvalue()


def attributes(number):
  """Returns the bits of `number` as 1 and -1, from the first attribute on."""
  return [1 if number >> bit & 1 else -1 for bit in range(40)]


def write_celeba(folder, n=20):
  """Writes all five files: 60% are train, 20% validation, 20% test."""
  names = [f'{number:06}.jpg' for number in range(1, n + 1)]
  with zipfile.ZipFile(folder / 'img_align_celeba.zip', 'w') as archive:
    archive.writestr('img_align_celeba/', '')
    for number, name in enumerate(names, 1):
      archive.writestr(f'img_align_celeba/{name}', face(number))
  header = f'{n}\n' + ' '.join(CLASSES) + ' \n'
  rows = [
    name + ' ' + ' '.join(f'{value:2}' for value in attributes(number))
    for number, name in enumerate(names, 1)
  ]
  (folder / 'list_attr_celeba.txt').write_text(header + '\n'.join(rows) + '\n')
  part = lambda i: 0 if i < 0.6 * n else 1 if i < 0.8 * n else 2
  write_lines = lambda file, lines: (folder / file).write_text(
    ''.join(f'{line}\n' for line in lines)
  )
  write_lines(
    'list_eval_partition.txt',
    [f'{name} {part(i)}' for i, name in enumerate(names)],
  )
  write_lines('identity_CelebA.txt', [f'{name} {1}' for name in names])
  write_lines(
    'list_landmarks_align_celeba.txt',
    [n, 'lefteye_x lefteye_y', *[f'{name}  69  109' for name in names]],
  )


class _CelebA(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes TFDS's celeb_a, with 12, 4 and 4 faces."""

  name = 'celeb_a'
  VERSION = tfds.core.Version('2.1.0')

  def _info(self):
    features = {
      'image': tfds.features.Image(shape=(218, 178, 3), encoding_format='jpeg'),
      'landmarks': {'lefteye_x': np.int64},
      'attributes': {name: np.bool_ for name in CLASSES},
      'identity': {'Identity_No': np.int64},
    }
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
    )

  def _split_generators(self, manager):
    parts = {'train': (1, 13), 'validation': (13, 17), 'test': (17, 21)}
    return {split: self._faces(*ends) for split, ends in parts.items()}

  def _generate_examples(self):
    raise NotImplementedError

  def _faces(self, first, end):
    for number in range(first, end):
      values = zip(CLASSES, attributes(number), strict=True)
      yield (
        number,
        {
          'image': io.BytesIO(face(number)),
          'landmarks': {'lefteye_x': 69},
          'attributes': {name: value == 1 for name, value in values},
          'identity': {'Identity_No': 1},
        },
      )


def write_celeb_a(folder, file_format):
  """Writes a copy of TFDS's celeb_a, as array_record or the older tfrecord."""
  builder = _CelebA(data_dir=folder, file_format='array_record')
  builder.download_and_prepare()
  if file_format == 'tfrecord':
    for path in builder.data_path.glob('*.array_record*'):
      _as_tfrecord(path)
    info = builder.data_path / 'dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))


def _as_tfrecord(path):
  """Converts a file: each example with its length and two empty checksums."""
  reader = ArrayRecordReader(str(path))
  records = [reader.read([i])[0] for i in range(reader.num_records())]
  renamed = path.with_name(path.name.replace('array_record', 'tfrecord'))
  renamed.write_bytes(
    b''.join(
      struct.pack('<QI', len(record), 0) + record + bytes(4)
      for record in records
    )
  )
  path.unlink()
