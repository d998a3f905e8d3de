"""Where the weights of a feature network are on this machine."""

import glob
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gan_jax import safetensors_weights, torch_weights
from gan_jax.errors import UserError
from gan_jax.files import cache_folder

# The cache folders of other programs, and the variables that move them.
MOVED = {'huggingface': 'HF_HOME', 'torch': 'TORCH_HOME'}


class WeightsFile(NamedTuple):
  """A file of weights that the user downloads once.

  Attributes:
    network: The name of the network in messages.
    variable: The environment variable that names another file.
    patterns: Where the file may be in ~/.cache, `*` for any name, or in the
      folders of MOVED. The first place is the one that messages name.
    source: What to download from where.
  """

  network: str
  variable: str
  patterns: tuple[str, ...]
  source: str

  def is_available(self) -> bool:
    """Whether `find()` finds a file."""
    return any(map(_files, self._places()))

  def find(self, path: str | Path | None = None) -> Path:
    """Returns `path`; without it, the first file found.

    Raises:
      UserError: There is no file.
    """
    places = self._places(path)
    for place in places:
      if files := _files(place):
        return files[0]
    raise UserError(
      f'no weights of {self.network} at {" or ".join(map(str, places))}: '
      f'{self.where_to_get()}'
    )

  def where_to_get(self) -> str:
    """Tells the user where to download the weights."""
    folder = (cache_folder().parent / self.patterns[0]).parent
    return f'download {self.source} into {folder}, or set {self.variable}=FILE'

  def _places(self, path: str | Path | None = None) -> list[Path]:
    """Lists where the file may be, with `*` for any name."""
    if named := path or os.environ.get(self.variable):
      return [Path(named)]
    return list(map(_place, self.patterns))


def _place(pattern: str) -> Path:
  program, _, rest = pattern.partition('/')
  moved = os.environ.get(MOVED.get(program, ''))
  return Path(moved) / rest if moved else cache_folder().parent / pattern


def _files(place: Path) -> list[Path]:
  """Lists the files at a place."""
  matching = sorted(glob.glob(str(place))) if '*' in str(place) else [place]
  return [path for path in map(Path, matching) if path.is_file()]


def read(path: Path) -> dict[str, np.ndarray]:
  """Reads named tensors, in the format of safetensors or of PyTorch.

  Raises:
    UserError: The file is damaged, or has another format.
  """
  if safetensors_weights.is_safetensors(path):
    return safetensors_weights.read(path)
  return torch_weights.read(path)
