"""Checkpoints: saved and restored by Orbax, as arrays and JSON, never code.

A checkpoint is named by its iteration. It holds the state, the config and the
last metrics. Orbax does not detect corrupted files, so the SHA-256 of each file
is stored in WORKDIR/checksums.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from etils import epath, epy
from jaxtyping import PyTree

from gan_jax import devices
from gan_jax.errors import UserError, warn
from gan_jax.files import is_remote, write_whole
from gan_jax.metrics import scores
from gan_jax.training.state import State

with epy.lazy_imports():  # Orbax takes a quarter of a second
  from orbax import checkpoint as ocp

# The names of all fields of a state.
STATE = State._fields


def folder(workdir: str | Path) -> epath.Path:
  """Returns the folder of a run's checkpoints."""
  path = epath.Path(workdir).expanduser() / 'checkpoints'
  return path if is_remote(path) else path.resolve()


class Best:
  """An Orbax policy that preserves the best checkpoints by `scores.jsonl`.

  Scores with different protocols (metric, feature network, reference, number
  of samples, ...) are not compared: each protocol has its own best checkpoint.
  """

  def __init__(self, workdir: str | Path):
    self._workdir = workdir

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    """Returns for each checkpoint whether it is the best by some score."""
    del context
    try:
      known = scores.read(self._workdir)
    except (OSError, UserError):  # without scores, delete nothing
      return [True] * len(checkpoints)
    best = scores.best_steps(known, {info.step for info in checkpoints})
    return [info.step in best for info in checkpoints]


class Checkpoints:
  """Saves and restores the checkpoints of a training run.

  Args:
    workdir: The workdir of the run.
    keep: Number of the newest checkpoints to keep. The best checkpoints are
      always kept.
    always: Steps whose checkpoints are always kept.
  """

  def __init__(
    self, workdir: str | Path, keep: int, always: Sequence[int] = ()
  ):
    self._workdir = workdir
    policies = ocp.v1.training.preservation_policies
    self._policies = [
      policies.LatestN(keep),
      policies.CustomSteps(always),
      Best(workdir),
    ]
    self._writing: threading.Thread | None = None
    self._failure: str | None = None
    self._open()

  def _open(self) -> None:
    any_of = ocp.v1.training.preservation_policies.AnyPreservationPolicy
    try:
      self._checkpointer = ocp.v1.training.Checkpointer(
        folder(self._workdir),
        preservation_policy=any_of(self._policies),
        cleanup_tmp_directories=True,
      )
    except OSError as error:
      raise UserError(
        f'cannot write to {folder(self._workdir)}: {error.strerror}'
      ) from error

  def resume(self, create: Callable[[], State]) -> State:
    """Restores the newest readable checkpoint, or creates a new state.

    Damaged checkpoints are moved to WORKDIR/damaged.

    Raises:
      UserError: No checkpoint can be read, or an intact one does not match the
        state.
    """
    self._settle()
    newest = self._checkpointer.latest
    if newest is None:
      return devices.create(create)
    abstract = devices.replicated_shapes(jax.eval_shape(create))
    while newest is not None:
      problem = damage(self._workdir, newest.step)
      if not problem:
        try:
          loaded = self._checkpointer.load(newest, abstract._asdict())
          return State(**loaded)
        except Exception as error:  # a damaged file can cause any exception
          problem = f'{type(error).__name__}: {error}'
          if not self._may_be_damaged(newest.step, error):
            line = ' '.join(problem.split())[:300]
            raise UserError(
              f'the checkpoint of iteration {newest.step:,} is intact, but it '
              'does not match the networks of this config, or the storage is '
              f'unreachable; nothing was changed ({line})'
            ) from error
      self._set_aside(newest.step, problem)
      newest = self._checkpointer.latest
    raise UserError(
      f'no checkpoint of {self._workdir} can be read; all were moved to '
      f'{self._workdir}/damaged: choose another --workdir to start a new run'
    )

  def _may_be_damaged(self, step: int, error: Exception) -> bool:
    """Returns whether a failure to load may come from damaged files.

    If the checksums match, the files are intact and the networks have changed.
    """
    verified = _read_checksums(self._workdir, step) is not None
    remote = is_remote(folder(self._workdir))
    return not (verified or remote or isinstance(error, OSError))

  def _set_aside(self, step: int, problem: str) -> None:
    self._checkpointer.close()
    devices.barrier(f'damaged {step}')
    if devices.is_main():
      line = ' '.join(problem.split())[:200]
      warn(
        f'the checkpoint of iteration {step:,} is damaged ({line}): moving it '
        f'to {self._workdir}/damaged and trying the previous checkpoint'
      )
      aside = folder(self._workdir).parent / 'damaged'
      aside.mkdir(exist_ok=True)
      if (aside / str(step)).exists():
        (aside / str(step)).rmtree()
      (folder(self._workdir) / str(step)).rename(aside / str(step))
      _checksum_file(self._workdir, step).unlink(missing_ok=True)
    devices.barrier(f'set aside {step}')
    self._open()

  def save(
    self, step: int, state: State, metrics: Mapping[str, Any], config: Any
  ) -> None:
    """Saves in the background, after the previous save has finished.

    A failed save prints a warning and leaves earlier checkpoints intact.

    Raises:
      UserError: The previous save failed in a distributed run, where the
        processes could disagree on which checkpoints exist.
    """
    self._settle()
    if self._failure and devices.is_distributed():
      raise UserError(f'{self._failure}: run the same command to resume')
    try:
      folder(self._workdir).mkdir(parents=True, exist_ok=True)
      response = self._checkpointer.save_async(
        step,
        state._asdict(),
        metrics=dict(metrics),
        custom_metadata={'config': config},
        force=True,  # otherwise Orbax skips it while a save is in progress
      )
    except Exception as error:
      self._fail(step, error)
      return

    def finish() -> None:
      try:
        response.result()
        if devices.is_main():
          _write_checksums(self._workdir, step)
        self._failure = None
      except Exception as error:
        self._fail(step, error)

    self._writing = threading.Thread(target=finish)
    self._writing.start()

  def _fail(self, step: int, error: Exception) -> None:
    line = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    self._failure = f'iteration {step:,} could not be saved ({line})'
    if devices.is_main():
      warn(f'{self._failure}; the next checkpoint will try again')

  def _settle(self) -> None:
    """Waits for the save in progress."""
    if self._writing is None:
      return
    self._writing.join()
    self._writing = None
    if self._failure:  # Orbax would raise it again at the next save
      with contextlib.suppress(Exception):
        self._checkpointer.close()
      self._open()

  def finish(self) -> None:
    """Waits for the save in progress.

    Raises:
      UserError: The last save failed.
    """
    self._settle()
    if self._failure:
      raise UserError(
        f'{self._failure}: the last checkpoint of {self._workdir} is older'
      )

  def close(self) -> None:
    """Waits for the save in progress and closes the checkpointer."""
    self._settle()
    self._checkpointer.close()


def _checksum_file(workdir: str | Path, step: int) -> epath.Path:
  return folder(workdir).parent / 'checksums' / f'{step}.json'


def _digests(workdir: str | Path, step: int) -> dict[str, str]:
  root = folder(workdir) / str(step)
  return {
    str(file.relative_to(root)): _digest(file)
    for file in sorted(Path(root).rglob('*'))
    if file.is_file()
  }


def _digest(file: Path) -> str:
  with file.open('rb') as opened:
    return hashlib.file_digest(opened, 'sha256').hexdigest()


def _write_checksums(workdir: str | Path, step: int) -> None:
  """Writes a checkpoint's checksums; removes those of deleted checkpoints."""
  file = _checksum_file(workdir, step)
  if is_remote(file):
    return  # object storage verifies its own data
  file.parent.mkdir(exist_ok=True)
  write_whole(file, json.dumps(_digests(workdir, step), indent=1) + '\n')
  for other in file.parent.glob('*.json'):
    if not (folder(workdir) / other.stem).exists():
      other.unlink()


def _read_checksums(workdir: str | Path, step: int) -> dict[str, str] | None:
  """Reads the checksums of a checkpoint; None if they cannot be read."""
  try:
    return json.loads(_checksum_file(workdir, step).read_text())
  except (OSError, ValueError):
    return None


def damage(workdir: str | Path, step: int) -> str:
  """Describes the damage to a checkpoint's files; '' if they are intact.

  A checkpoint without checksums (the run was killed before they were written)
  counts as intact: Orbax only lists completed checkpoints.
  """
  expected = _read_checksums(workdir, step)
  if expected is None:
    return ''
  found = _digests(workdir, step)
  for name in sorted(expected.keys() | found.keys()):
    if name not in found:
      return f'{name} is missing'
    if expected.get(name) != found[name]:
      return f'{name} does not match its checksum'
  return ''


def steps(workdir: str | Path) -> list[int]:
  """Lists the steps of a run's checkpoints, oldest first.

  The run may still be training.
  """
  root = folder(workdir)
  if not root.exists():
    return []
  found = [path for path in root.iterdir() if path.name.isdigit()]
  if is_remote(root):  # object storage cannot rename a completed checkpoint
    found = [path for path in found if (path / 'commit_success.txt').exists()]
  return sorted(int(path.name) for path in found)


def read_state(
  workdir: str | Path, create: Callable[[], State], step: int
) -> State:
  """Reads the whole state of a checkpoint.

  Raises:
    UserError: The checkpoint is damaged, or of other networks or optimizers.
  """
  if problem := damage(workdir, step):
    raise UserError(
      f'the checkpoint of {workdir} at step {step} is damaged: {problem}'
    )
  abstract = devices.replicated_shapes(jax.eval_shape(create))
  with ocp.v1.training.Checkpointer(folder(workdir)) as checkpointer:
    try:
      return State(**checkpointer.load(step, abstract._asdict()))
    except (KeyError, TypeError, ValueError) as error:
      line = ' '.join(f'{error}'.split())[:200]
      raise UserError(
        f'the state of {workdir} does not fit: its networks or optimizers are '
        f'others; set --config.init.state=False to take weights only ({line})'
      ) from error


def read(workdir: str | Path, names: tuple[str, ...], step: int) -> PyTree:
  """Reads only the named parts of the state, onto one device.

  The checkpoint may come from any number of devices.

  Raises:
    UserError: The checkpoint is damaged.
  """
  if problem := damage(workdir, step):
    raise UserError(
      f'the checkpoint of {workdir} at step {step} is damaged: {problem}'
    )
  context = ocp.v1.Context()
  context.pytree.loading.partial_load = True
  with (
    context,
    ocp.v1.training.Checkpointer(
      folder(workdir), context=context
    ) as checkpointer,
  ):
    metadata = checkpointer.metadata(step).metadata
    parts = {name: metadata[name] for name in names}
    return checkpointer.load(step, devices.local_shapes(parts))
