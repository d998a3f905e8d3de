"""The log of a run: progress bar, metrics, sample grids."""

import contextlib
import datetime
import errno
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.progress
import tensorboardX

from gan_jax.errors import warn
from gan_jax.files import Mirror, is_remote, write_whole
from gan_jax.plots.grid import write_gif, write_png

# Logged values by name.
Scalars = Mapping[str, float | int | None]


class RunLog:
  """Writes metrics and samples to the workdir and shows a progress bar.

  The files are `metrics.jsonl`, TensorBoard events and `samples/*.png`.

  Args:
    workdir: The workdir of the run; None on a process that does not write.
    step: The iteration at which the run starts or resumes. Metrics of later
      iterations, from before a kill or a rollback, are removed.
    attempt: How often the run has diverged and was rolled back before `step`.
    images: Reals shown to D before `step`.
    total_images: The length of the whole run.
    wandb: Whether to log to Weights & Biases too.
    animated: Whether to make `training.gif` from all sample grids at the end.
  """

  def __init__(
    self,
    workdir: str | Path | None,
    *,
    step: int,
    attempt: int,
    images: int,
    total_images: int,
    wandb: bool,
    animated: bool = False,
  ):
    self._total_images, self._animated = total_images, animated
    self._last = (time.perf_counter(), images)
    self._first_image, self._evaluated_seconds = images, 0.0
    self._outputs = contextlib.ExitStack()
    self._workdir = None
    self._unwritten: list[str] = []
    self._failing = False
    if workdir is None:
      return
    # Object storage cannot append to a file: a remote workdir is written
    # locally and uploaded.
    self._mirror = Mirror(workdir)
    frames = ('samples/*.png',) if animated else ()
    self._mirror.fetch('metrics.jsonl', 'tensorboard/*', *frames)
    self._outputs.callback(self._mirror.send)
    self._workdir = self._mirror.path
    enter = self._outputs.enter_context
    (self._workdir / 'samples').mkdir(parents=True, exist_ok=True)
    self._metrics = self._workdir / 'metrics.jsonl'
    self._jsonl = _open_until(self._metrics, step)
    self._outputs.callback(lambda: self._jsonl.close())
    self._tensorboard = enter(
      tensorboardX.SummaryWriter(
        str(self._workdir / 'tensorboard'), purge_step=step + 1
      )
    )
    self._wandb = None
    if wandb:
      self._wandb = _start_wandb(workdir, self._workdir, attempt)
      self._outputs.callback(self._wandb.finish)
    self._console = rich.console.Console()
    self._bar = None
    if self._console.is_terminal:
      self._bar = enter(_bar(self._console))
      self._task = self._bar.add_task(
        'compiling', total=total_images, completed=images, rate=''
      )

  def __enter__(self) -> 'RunLog':
    return self

  def __exit__(self, *exception: Any) -> None:
    with self._tolerant():
      self._outputs.close()

  def log(
    self,
    step: int,
    images: int,
    means: Scalars,
    until: int,
    evaluated_seconds: float = 0.0,
  ) -> None:
    """Writes a line of metrics and updates the progress bar.

    The speed is the mean since the last line, without the seconds of an
    evaluation; the first speed includes the compilation.

    Args:
      step, images: Iterations, and reals shown to D, so far.
      means: The metrics.
      until: The estimate of the remaining time ends at this image, where the
        cost of an iteration may change.
      evaluated_seconds: Duration of an evaluation since the last line.
    """
    now = (time.perf_counter(), images)
    trained_seconds = now[0] - self._last[0] - evaluated_seconds
    speed = (now[1] - self._last[1]) / trained_seconds
    self._last = now
    self._evaluated_seconds += evaluated_seconds
    if self._workdir is None:
      return
    scalars = {**means, 'images_per_second': float(f'{speed:.5g}')}
    line = {'step': step, 'images': images, **scalars}
    self._unwritten.append(_as_json(line))
    with self._tolerant():
      self._write_lines()
      self._add_scalars(step, scalars)
    if self._wandb:
      self._wandb.log(line, step=step)
    self._show(line, until)

  def amend(self, step: int, images: int, means: Scalars) -> None:
    """Adds metrics to the line of `step`, at which the run resumes.

    If the file has no such line, one is appended.
    """
    if self._workdir is None:
      return
    line = {'step': step, 'images': images}
    with self._tolerant():
      lines = self._metrics.read_text().splitlines(keepends=True)
      if lines and _step_of(lines[-1]) == step:
        line = json.loads(lines.pop())
      lines.append(_as_json({**line, **means}))
      write_whole(self._metrics, ''.join(lines))
      self._jsonl.close()
      self._jsonl = self._metrics.open('ab', buffering=0)
      self._add_scalars(step, means)
    if self._wandb:
      self._wandb.log({**line, **means}, step=step)

  def _add_scalars(self, step: int, scalars: Scalars) -> None:
    for name, value in scalars.items():
      if math.isfinite(value):
        self._tensorboard.add_scalar(name, value, step)

  def samples(
    self, step: int, images: int, picture: np.ndarray, output: str = ''
  ) -> None:
    """Writes a sample grid, uint8 [h, w, c], to samples/IMAGES.png.

    That of a named output is written to samples/IMAGES_OUTPUT.png.
    """
    if self._workdir is None:
      return
    suffix, tag = f'_{output}' * bool(output), f'/{output}' * bool(output)
    folder = self._workdir / 'samples'
    with self._tolerant():
      write_png(folder / f'{images:010d}{suffix}.png', picture)
      self._tensorboard.add_image(
        f'samples{tag}', picture, step, dataformats='HWC'
      )
      if self._animated and images >= self._total_images:
        frames = sorted(folder.glob(f'{"[0-9]" * 10}{suffix}.png'))
        write_gif(frames, self._workdir / f'training{suffix}.gif')

  def _write_lines(self) -> None:
    """Appends all pending lines, each completely or not at all."""
    while self._unwritten:
      end = os.fstat(self._jsonl.fileno()).st_size
      line = self._unwritten[0].encode()
      try:
        if self._jsonl.write(line) != len(line):
          raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      except OSError:
        self._jsonl.truncate(end)
        raise
      self._unwritten.pop(0)

  def keep(self) -> None:
    """Flushes all outputs. Call this before a checkpoint is saved."""
    if self._workdir is None:
      return
    with self._tolerant():
      self._tensorboard.flush()
      self._mirror.send()

  @contextlib.contextmanager
  def _tolerant(self) -> Iterator[None]:
    """Turns write errors into one warning, so that a full disk ends no run."""
    try:
      yield
      self._failing = False
    except OSError as error:
      if not self._failing:
        warn(
          f'cannot write to {self._workdir} ({error.strerror}): training '
          'continues, and the metrics are written when there is space'
        )
      self._failing = True

  def _show(self, line: dict[str, Any], until: int) -> None:
    """Updates the progress bar; without a terminal, prints a line."""
    losses = '  '.join(
      f'{player} {line[f"{player}/loss"]:.3f}'
      for player in ('disc', 'gen')
      if f'{player}/loss' in line
    )
    speed = line['images_per_second']
    digits = 0 if speed >= 10 else 2
    rate = f'{speed:,.{digits}f} images/s'
    trained = max(line['images'] - self._first_image, 1)
    evaluation = self._evaluated_seconds / trained
    seconds = int((until - line['images']) * (1 / speed + evaluation))
    left = f'{datetime.timedelta(seconds=seconds)} left'
    if until < self._total_images:
      left += f' to image {until:,}'
    if self._bar:
      self._bar.update(
        self._task,
        completed=line['images'],
        description=losses,
        rate=f'{rate}  {left}',
      )
      return
    print(
      f'iteration {line["step"]:,}  '
      f'{line["images"]:,}/{self._total_images:,} images  {losses}  {rate}  '
      f'{left}',
      flush=True,
    )


def _bar(console: rich.console.Console) -> rich.progress.Progress:
  return rich.progress.Progress(
    rich.progress.TextColumn('{task.description}'),
    rich.progress.BarColumn(),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TextColumn('images'),
    rich.progress.TextColumn('{task.fields[rate]}'),
    console=console,
  )


def _open_until(path: Path, step: int):
  """Opens `metrics.jsonl` to append; removes lines of later iterations."""
  if path.exists():
    kept = []
    for line in path.read_text(errors='replace').splitlines(keepends=True):
      # Also removes an incomplete last line, which a kill leaves behind.
      if line.endswith('\n') and _step_of(line) <= step:
        kept.append(line)
    write_whole(path, ''.join(kept))
  return path.open('ab', buffering=0)


def _as_json(line: Scalars) -> str:
  """Formats a line as JSON, with null for values that are not finite."""
  finite = {
    k: None if v is None or not math.isfinite(v) else v for k, v in line.items()
  }
  return json.dumps(finite) + '\n'


def _step_of(line: str) -> int | float:
  try:
    return json.loads(line)['step']
  except (ValueError, KeyError, TypeError):
    return math.inf  # a damaged line is removed


def _start_wandb(workdir: str | Path, folder: Path, attempt: int) -> Any:
  """Starts or resumes a W&B run: one for each attempt.

  The steps of a W&B run cannot decrease, as they do after a rollback. The
  attempts of one run form a group.
  """
  import wandb

  folder = folder.resolve()
  where = str(workdir) if is_remote(workdir) else str(folder)
  identity = hashlib.sha256(f'{where} {attempt}'.encode()).hexdigest()[:16]
  return wandb.init(
    dir=str(folder),
    name=f'{folder.name}, attempt {attempt}' if attempt else folder.name,
    group=folder.name,
    project='gan_jax',
    id=identity,
    resume='allow',
  )
