"""Saves many samples of a run: PNG files, or one .npz file."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import rich.progress
from jaxtyping import PyTree, Shaped

from gan_jax.bounds import check_counts
from gan_jax.errors import UserError
from gan_jax.files import write_whole
from gan_jax.plots.grid import write_png

if TYPE_CHECKING:
  from gan_jax.runs.run import Run

# Samples that are generated and written together: all that a kill can lose.
CHUNK = 256
# The file in a folder of samples that records how they were generated.
MANIFEST = 'generation.json'

Array = np.ndarray
# One seed or class, or several.
Several = int | Sequence[int] | np.ndarray


class _Part(NamedTuple):
  """A range of samples.

  Attributes:
    row: The number of the first sample among all samples.
    seed: The seed of the samples.
    first, n: The number of the first sample of this seed, and of samples.
  """

  row: int
  seed: int
  first: int
  n: int


def save_samples(
  run: 'Run',
  output: str | Path,
  n: int = 10_000,
  seeds: Several = 0,
  labels: Several | None = None,
  truncation: float | None = None,
  overwrite: bool = False,
) -> Path:
  """Saves `n` samples of each seed; continues where an earlier call stopped.

  >>> run.save_samples('samples', 10_000, truncation=0.7)
  >>> run.save_samples('samples.npz', 500, seeds=range(4), labels=3)

  Sample i of a seed is that of `run.sample`.

  Args:
    run: The run.
    output: A folder for PNG files, SEED_NUMBER.png; in a conditional run, each
      class has a sub-folder, so that `data.source=folder:OUTPUT` reads the
      labels too. Or FILE.npz, with the arrays `images` uint8 [n, h, w, c] (of a
      toy: `points` float32 [n, d]), `seeds` [n] and, of a conditional run,
      `labels` [n].
    n: The number of samples of each seed.
    seeds: One seed or several.
    labels: Of a conditional run: classes that the samples have in turn. None:
      random classes.
    truncation: As in `Run.inputs`.
    overwrite: Whether to delete what `output` holds. Without it, only the
      samples of an equal earlier call are added to; their number may differ.

  Returns:
    The folder or the file.

  Raises:
    UserError: An argument is invalid, or `output` holds something else.
  """
  output = Path(output).expanduser()
  seeds = np.atleast_1d(seeds).tolist()
  classes = None if labels is None else np.atleast_1d(labels)
  _check(run, n, seeds, classes)
  described = {
    'run': str(run.workdir),
    'step': run.step,
    'seeds': seeds,
    'labels': None if classes is None else classes.tolist(),
    'truncation': truncation,
  }

  def generate(part: _Part) -> tuple[Array, Array | None]:
    turn = None
    if classes is not None:
      turn = classes[np.arange(part.first, part.first + part.n) % len(classes)]
    inputs = run.inputs(part.n, part.seed, truncation, turn, first=part.first)
    return run.generate(inputs), classes_of(inputs)

  generate(_Part(0, seeds[0], 0, 1))  # a mistake shows before the first write
  save = _save_npz if output.suffix == '.npz' else _save_pngs
  try:
    save(output, generate, _parts(n, seeds), described, overwrite)
  except OSError as error:
    raise UserError(f'cannot write to {output}: {error.strerror}') from error
  return output


def classes_of(inputs: PyTree) -> Array | None:
  """Returns the class of each of the generator's inputs; None: no classes."""
  if not isinstance(inputs, Mapping) or 'labels' not in inputs:
    return None
  return np.asarray(inputs['labels']).argmax(-1)


def _check(
  run: 'Run', n: int, seeds: Sequence[int], classes: Array | None
) -> None:
  check_counts(n=n)
  are_seeds = all(isinstance(seed, int) and seed >= 0 for seed in seeds)
  if not seeds or len(set(seeds)) < len(seeds) or not are_seeds:
    raise UserError(f'seeds={seeds} must be different numbers from 0')
  if classes is not None and not classes.size:
    raise UserError('labels must name at least one class, or be None')


def _parts(n: int, seeds: Sequence[int]) -> list[_Part]:
  return [
    _Part(index * n + first, seed, first, min(CHUNK, n - first))
    for index, seed in enumerate(seeds)
    for first in range(0, n, CHUNK)
  ]


def _tracked(parts: Sequence[_Part]) -> Iterator[_Part]:
  """Yields the parts, and shows a progress bar in samples."""
  total = sum(part.n for part in parts)
  with rich.progress.Progress(
    rich.progress.TextColumn('{task.description}'),
    rich.progress.BarColumn(),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TimeRemainingColumn(),
  ) as bar:
    task = bar.add_task('Samples', total=total)
    for part in parts:
      yield part
      bar.advance(task, part.n)


def _save_pngs(
  folder: Path,
  generate: Callable[[_Part], tuple[Array, Array | None]],
  parts: Sequence[_Part],
  described: Mapping[str, Any],
  overwrite: bool,
) -> None:
  """Writes a file for each sample; complete parts are not generated again."""
  manifest = folder / MANIFEST
  _claim(folder, manifest, described, overwrite)
  folder.mkdir(parents=True, exist_ok=True)
  write_whole(manifest, json.dumps(described, indent=1) + '\n')
  present = {path.name for path in folder.rglob('*.png')}
  for part in _tracked(parts):
    numbers = range(part.first, part.first + part.n)
    names = [f'{part.seed}_{number:06}.png' for number in numbers]
    if present.issuperset(names):
      continue
    images, labels = generate(part)
    if images.ndim != 4:
      raise UserError('the samples of a toy are points: name a FILE.npz')
    for index, (name, image) in enumerate(zip(names, images, strict=True)):
      place = folder if labels is None else folder / f'{labels[index]:03}'
      if name not in present:
        place.mkdir(exist_ok=True)
        write_png(place / name, image)


def _save_npz(
  file: Path,
  generate: Callable[[_Part], tuple[Array, Array | None]],
  parts: Sequence[_Part],
  described: Mapping[str, Any],
  overwrite: bool,
) -> None:
  """Writes one file, by way of a folder FILE.npz.part of finished parts."""
  if file.exists() and not overwrite:
    raise UserError(f'{file} exists: name another, or pass overwrite=True')
  folder = file.with_name(f'{file.name}.part')
  total = sum(part.n for part in parts)
  _claim(folder, folder / MANIFEST, {**described, 'n': total}, overwrite)
  folder.mkdir(parents=True, exist_ok=True)
  write_whole(folder / MANIFEST, json.dumps({**described, 'n': total}) + '\n')
  arrays: dict[str, Array] = {}
  for part in _tracked(parts):
    done = folder / f'{part.row}.done'
    if done.exists():
      continue
    samples, labels = generate(part)
    columns = {
      'images' if samples.ndim == 4 else 'points': samples,
      'seeds': np.full(part.n, part.seed, np.int64),
      **({} if labels is None else {'labels': labels.astype(np.int32)}),
    }
    rows = slice(part.row, part.row + part.n)
    for name, column in columns.items():
      if name not in arrays:
        arrays[name] = _open(folder / f'{name}.npy', column, total)
      arrays[name][rows] = column
      arrays[name].flush()
    done.touch()
  whole = file.with_name(f'{file.name}.whole')
  with zipfile.ZipFile(whole, 'w') as archive:
    for path in sorted(folder.glob('*.npy')):
      archive.write(path, path.name)
  whole.replace(file)
  shutil.rmtree(folder)


def _open(
  file: Path, column: Shaped[np.ndarray, 'n ...'], total: int
) -> np.memmap:
  """Opens an array on disk with `total` rows like those of `column`."""
  if file.exists():
    return np.lib.format.open_memmap(file, 'r+')
  shape = total, *column.shape[1:]
  return np.lib.format.open_memmap(file, 'w+', column.dtype, shape)


def _claim(
  folder: Path, manifest: Path, described: Mapping[str, Any], overwrite: bool
) -> None:
  """Refuses or, with `overwrite`, deletes a folder of something else."""
  if folder.is_file():
    raise UserError(f'{folder} is a file: name a folder, or a FILE.npz')
  if not folder.exists() or not any(folder.iterdir()):
    return
  if not manifest.exists():  # not ours: never deleted
    raise UserError(f'{folder} holds other files: name an empty folder')
  earlier = json.loads(manifest.read_text())
  if overwrite:
    shutil.rmtree(folder)
  elif earlier != described:
    changed = [key for key in described if earlier.get(key) != described[key]]
    raise UserError(
      f'{folder} holds other samples (with another {", ".join(changed)}): '
      'name another folder, or pass overwrite=True (--overwrite)'
    )
