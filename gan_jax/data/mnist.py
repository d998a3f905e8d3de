"""MNIST and Fashion-MNIST, read from their IDX files."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from gan_jax.data.official import DatasetInfo, File, Found, Split
from gan_jax.data.preprocess import preprocess
from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError

IDX_UINT8 = 0x08
# Split -> the prefix of its files, and its number of images.
SPLITS = {'train': ('train', 60_000), 'test': ('t10k', 10_000)}

# Size in bytes and SHA-256 of the distributed file, and SHA-256 of its content,
# because the gzip header differs between copies.
MNIST_FILES = {
  'train-images-idx3-ubyte': (
    9_912_422,
    '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
    'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
  ),
  'train-labels-idx1-ubyte': (
    28_881,
    '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
    '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
  ),
  't10k-images-idx3-ubyte': (
    1_648_877,
    '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
    '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
  ),
  't10k-labels-idx1-ubyte': (
    4_542,
    'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
    'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
  ),
}
FASHION_MNIST_FILES = {
  'train-images-idx3-ubyte': (
    26_421_880,
    '3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84',
    'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
  ),
  'train-labels-idx1-ubyte': (
    29_515,
    'a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845',
    'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
  ),
  't10k-images-idx3-ubyte': (
    4_422_102,
    '346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073',
    '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
  ),
  't10k-labels-idx1-ubyte': (
    5_148,
    '67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5',
    '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
  ),
}


def unpack(path: Path) -> bytes:
  """Reads the content of a file, which may be gzipped."""
  try:
    with path.open('rb') as file:
      zipped = file.read(2) == b'\x1f\x8b'
    with (gzip.open if zipped else open)(path, 'rb') as file:
      return file.read()
  except (EOFError, OSError, ValueError, zlib.error) as error:
    raise UserError(f'{path} is damaged: {error}; download it again') from error


def parse_idx(raw: bytes, path: Path) -> np.ndarray:
  """Parses an IDX file of bytes into an array.

  The format: two zero bytes, the type (8 is uint8), the number of dimensions,
  each dimension as a big-endian uint32, and the data. `path` is for messages.
  """
  if raw[:3] != bytes([0, 0, IDX_UINT8]):
    raise UserError(f'{path} is not an IDX file of bytes: download it again')
  if len(raw) < 4 or len(raw) < 4 + 4 * raw[3]:
    raise UserError(
      f'{path} is damaged: it ends in its header; download it again'
    )
  shape = np.frombuffer(raw, '>u4', count=raw[3], offset=4).astype(int)
  data = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
  if data.size != np.prod(shape):
    raise UserError(
      f'{path} is damaged: it has {data.size} bytes of data, but needs '
      f'{np.prod(shape)}; download it again'
    )
  return data.reshape(shape)


def _make_info(
  name: str,
  homepage: str,
  base: str,
  classes: tuple[str, ...],
  files: dict[str, tuple[int, str, str]],
) -> DatasetInfo:
  """Describes a data set in the files of MNIST.

  Args:
    name, homepage, classes: As of `DatasetInfo`.
    base: The URL of the folder of the files.
    files: Name -> size in bytes, SHA-256, and SHA-256 of the content.
  """

  def read_split(prefix: str, official: int, found: Found, spec: DataSpec):
    names = f'{prefix}-images-idx3-ubyte', f'{prefix}-labels-idx1-ubyte'
    paths = [found[f'{file}.gz'] for file in names]
    raws = [unpack(path) for path in paths]
    images, labels = map(parse_idx, raws, paths)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
      raise UserError(
        f'{paths[0]} and {paths[1]} do not belong together: their shapes are '
        f'{images.shape} and {labels.shape}; download both again'
      )
    if labels.max(initial=0) >= len(classes):
      raise UserError(
        f'{paths[1]} has labels above {len(classes) - 1}: it is not of {name}'
      )
    # A full-sized split with other content is damaged, or of another data set.
    for file, path, raw in zip(names, paths, raws, strict=True):
      content = hashlib.sha256(raw).hexdigest()
      if len(images) >= official and content != files[file][2]:
        raise UserError(
          f'{path} is not the official file of {name}: the SHA-256 of its '
          f'content is {content[:16]}..., not {files[file][2][:16]}...'
        )
    preprocessed = (
      preprocess(Image.fromarray(image), spec) for image in images
    )
    return Split(len(images), zip(preprocessed, labels, strict=True))

  def read(found: Found, spec: DataSpec) -> tuple[dict[str, Split], bool]:
    splits = {
      split: read_split(prefix, official, found, spec)
      for split, (prefix, official) in SPLITS.items()
    }
    return splits, True

  return DatasetInfo(
    name=name,
    homepage=homepage,
    size=sum(official for _, official in SPLITS.values()),
    classes=classes,
    files=tuple(
      File((f'{file}.gz', file), f'{base}/{file}.gz', size, sha256)
      for file, (size, sha256, _) in files.items()
    ),
    read=read,
  )


MNIST = _make_info(
  'mnist',
  'https://www.tensorflow.org/datasets/catalog/mnist',
  'https://storage.googleapis.com/cvdf-datasets/mnist',
  tuple('0123456789'),
  MNIST_FILES,
)

FASHION_MNIST = _make_info(
  'fashion_mnist',
  'https://github.com/zalandoresearch/fashion-mnist',
  'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com',
  (
    'T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat',
    'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot',
  ),
  FASHION_MNIST_FILES,
)  # fmt: skip
