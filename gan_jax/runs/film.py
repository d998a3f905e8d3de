"""Films: walks through latent space that end where they began."""

import io
import math
import numbers
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from gan_jax.bounds import check_counts
from gan_jax.errors import UserError
from gan_jax.files import write_whole
from gan_jax.plots.grid import show

if TYPE_CHECKING:
  from gan_jax.runs.run import Labels, Run

SUFFIXES = '.gif', '.mp4', '.webp'


def film(
  run: 'Run',
  output: str | Path,
  n: int = 16,
  seed: int = 0,
  labels: 'Labels | None' = None,
  truncation: float | None = None,
  seconds: float | int = 8,
  keyframes: int = 4,
  fps: int = 24,
  overwrite: bool = False,
) -> Path:
  """Saves a film of interpolations, which loops.

  Each cell of the grid goes from sample to sample (Run.interpolate), and back
  to the first.

  Args:
    run: The run.
    output: FILE.mp4 (needs ffmpeg on the PATH), FILE.webp or FILE.gif.
    n: The number of cells.
    seed: As for `sample`.
    labels: Of a conditional run: a class for each cell, or one for all. None:
      random classes, which change too.
    truncation: As in `Run.inputs`.
    seconds: The length of the film.
    keyframes: The number of samples that each cell visits.
    fps: Frames a second.
    overwrite: Whether to replace an existing file.

  Returns:
    The file.

  Raises:
    UserError: An argument is invalid, the file exists, or ffmpeg is missing.
  """
  output = Path(output).expanduser()
  _check(run, output, overwrite)
  check_counts(n=n, keyframes=keyframes)
  if keyframes < 2:
    raise UserError('keyframes of a film must be at least 2')
  for name, value in {'seconds': seconds, 'fps': fps}.items():
    is_finite = isinstance(value, numbers.Real) and math.isfinite(value)
    if not is_finite or not value > 0:
      raise UserError(f'{name} of a film must be a positive number')
  frames = _frames(run, n, seed, labels, truncation, seconds, keyframes, fps)
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == '.mp4':
      _write_mp4(output, frames, fps)
    else:
      _write_animation(output, frames, fps)
  except OSError as error:
    raise UserError(f'cannot write {output}: {error.strerror}') from error
  return output


def default_file(workdir: str | Path) -> Path:
  """Returns WORKDIR/film.mp4, or film.webp without ffmpeg."""
  suffix = '.webp' if shutil.which('ffmpeg') is None else '.mp4'
  return Path(workdir).expanduser() / f'film{suffix}'


def _check(run: 'Run', output: Path, overwrite: bool) -> None:
  if output.suffix not in SUFFIXES:
    raise UserError(f'{output}: a film is one of FILE{", FILE".join(SUFFIXES)}')
  if output.suffix == '.mp4' and shutil.which('ffmpeg') is None:
    raise UserError(
      f'{output} needs ffmpeg on the PATH: install it, or name a .webp or .gif'
    )
  if output.exists() and not overwrite:
    raise UserError(
      f'{output} exists: name another, or pass overwrite=True (--overwrite)'
    )
  if run._game.interpolate is None:
    raise UserError('a film needs latents, and this game has none')


def _frames(
  run: 'Run',
  n: int,
  seed: int,
  labels: 'Labels | None',
  truncation: float | None,
  seconds: float | int,
  keyframes: int,
  fps: int,
) -> Iterator[Image.Image]:
  """Yields the frames; the first would follow the last."""
  if labels is not None and np.ndim(labels):
    labels = np.tile(np.asarray(labels), keyframes)
  stops = run.inputs(n * keyframes, seed, truncation, labels)
  stop = lambda i: jax.tree.map(
    lambda x: x[i % keyframes * n : (i % keyframes + 1) * n], stops
  )
  total = max(keyframes, round(seconds * fps))
  for frame in range(total):
    at = frame * keyframes / total
    index = int(at)
    t = jnp.full((n,), at - index, jnp.float32)
    a, b = stop(index), stop(index + 1)
    images = run.generate(run._game.interpolate(a, b, t))
    if images.ndim != 4:
      raise UserError('a film needs images, but this run generates points')
    yield show(images)


def _write_animation(
  file: Path, frames: Iterator[Image.Image], fps: int
) -> None:
  first, *rest = frames
  encoded = io.BytesIO()
  first.save(
    encoded, format=file.suffix[1:].upper(), save_all=True, append_images=rest,
    duration=round(1000 / fps), loop=0,
  )  # fmt: skip
  write_whole(file, encoded.getvalue())


def _write_mp4(file: Path, frames: Iterator[Image.Image], fps: int) -> None:
  """Encodes H.264 that every browser plays: even sizes, 4:2:0 colours."""
  first = next(frames).convert('RGB')
  part = file.with_name(f'{file.stem}.part.mp4')
  command = [
    'ffmpeg', '-loglevel', 'error', '-y',
    '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-r', str(fps),
    '-s', f'{first.width}x{first.height}', '-i', '-',
    '-vf', 'pad=ceil(iw/2)*2:ceil(ih/2)*2', '-pix_fmt', 'yuv420p',
    '-movflags', '+faststart', str(part),
  ]  # fmt: skip
  with subprocess.Popen(
    command, stdin=subprocess.PIPE, stderr=subprocess.PIPE
  ) as process:
    try:
      process.stdin.write(first.tobytes())
      for frame in frames:
        process.stdin.write(frame.convert('RGB').tobytes())
    except BrokenPipeError:
      pass  # ffmpeg ended early, and says why
    _, problem = process.communicate()
  if process.returncode:
    part.unlink(missing_ok=True)
    line = ' '.join(problem.decode(errors='replace').split())[:200]
    raise UserError(f'ffmpeg could not write {file}: {line}')
  part.replace(file)
