"""Checkpoints: Orbax saves, resumes and reads them; arrays and JSON, no code.

A checkpoint is called by the iterations that led to it, and has the config and
the last metrics beside the state. Orbax would read a file of which a byte has
changed, and say nothing: so the SHA-256 of each file is kept beside them.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from gan_jax import devices
from gan_jax.errors import UserError, warn
from gan_jax.files import is_remote, write_whole
from gan_jax.metrics import scores
from gan_jax.training.state import State

policies = ocp.training.preservation_policies

# Everything that a state has, by name.
STATE = State._fields


def folder(workdir: str | Path) -> epath.Path:
  """Where a run's checkpoints are."""
  path = epath.Path(workdir).expanduser() / 'checkpoints'
  return path if is_remote(path) else path.resolve()


class Best:
  """Preserves the best checkpoints by `scores.jsonl`, as an Orbax policy.

  Of scores that are not comparable (another metric, network, reference, number
  of samples, ...) none replaces the other's best.
  """

  def __init__(self, workdir: str | Path):
    self._workdir = workdir

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    """Whether each of the checkpoints is the best by some score."""
    del context
    try:
      known = scores.read(self._workdir)
    except (OSError, UserError):  # nothing is known: nothing is deleted
      return [True] * len(checkpoints)
    best = scores.best_steps(known, {info.step for info in checkpoints})
    return [info.step in best for info in checkpoints]


class Checkpoints:
  """The checkpoints of a run that trains.

  Args:
    workdir: The run's.
    keep: How many of the newest are kept; the best ones are kept too, whatever
      their age.
    always: The steps of those that are kept for ever.
  """

  def __init__(
    self, workdir: str | Path, keep: int, always: Sequence[int] = ()
  ):
    self._workdir = workdir
    self._policies = [
      policies.LatestN(keep),
      policies.CustomSteps(always),
      Best(workdir),
    ]
    self._writing: threading.Thread | None = None
    self._failure: str | None = None
    self._open()

  def _open(self) -> None:
    try:
      self._checkpointer = ocp.training.Checkpointer(
        folder(self._workdir),
        preservation_policy=policies.AnyPreservationPolicy(self._policies),
        cleanup_tmp_directories=True,
      )
    except OSError as error:
      raise UserError(
        f'cannot write to {folder(self._workdir)}: {error.strerror}'
      ) from error

  def resume(self, create: Callable[[], State]) -> State:
    """The newest state that can be read; if none was saved, a new one.

    Those that cannot be read are moved to WORKDIR/damaged.
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
        except Exception as error:  # whatever a damaged file leads to
          problem = f'{type(error).__name__}: {error}'
          if not self._may_be_damaged(newest.step, error):
            line = ' '.join(problem.split())[:300]
            raise UserError(
              f'the checkpoint of iteration {newest.step:,} is whole, and does '
              f'not fit, or cannot be reached; nothing was changed ({line})'
            ) from error
      self._set_aside(newest.step, problem)
      newest = self._checkpointer.latest
    raise UserError(
      f'no checkpoint of {self._workdir} can be read; they are in '
      f'{self._workdir}/damaged: name another --workdir to begin anew'
    )

  def _may_be_damaged(self, step: int, error: Exception) -> bool:
    """Whether a failure to load may be the files' fault.

    Not if their checksums agree: then it is the networks that have changed.
    """
    verified = _noted(self._workdir, step) is not None
    remote = is_remote(folder(self._workdir))
    return not (verified or remote or isinstance(error, OSError))

  def _set_aside(self, step: int, problem: str) -> None:
    self._checkpointer.close()
    devices.barrier(f'damaged {step}')
    if devices.is_main():
      line = ' '.join(problem.split())[:200]
      warn(
        f'the checkpoint of iteration {step:,} is damaged ({line}): it is '
        f'moved to {self._workdir}/damaged, and the one before is taken'
      )
      aside = folder(self._workdir).parent / 'damaged'
      aside.mkdir(exist_ok=True)
      if (aside / str(step)).exists():
        (aside / str(step)).rmtree()
      (folder(self._workdir) / str(step)).rename(aside / str(step))
      _checksums(self._workdir, step).unlink(missing_ok=True)
    devices.barrier(f'set aside {step}')
    self._open()

  def save(
    self, step: int, state: State, metrics: Mapping[str, Any], config: Any
  ) -> None:
    """Saves in the background, once the save before is done.

    One that fails is told of, and harms none that is there. (On several
    processes it ends the run: they could not agree on what there is.)
    """
    self._settle()
    if self._failure and devices.is_distributed():
      raise UserError(f'{self._failure}: the same command goes on')
    try:
      folder(self._workdir).mkdir(parents=True, exist_ok=True)
      response = self._checkpointer.save_async(
        step,
        state._asdict(),
        metrics=dict(metrics),
        custom_metadata={'config': config},
        force=True,  # else none is begun while another is in flight
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
      warn(f'{self._failure}; it is tried again at the next checkpoint')

  def _settle(self) -> None:
    """Waits for the save in flight."""
    if self._writing is None:
      return
    self._writing.join()
    self._writing = None
    if self._failure:  # Orbax would raise it again at the next save
      with contextlib.suppress(Exception):
        self._checkpointer.close()
      self._open()

  def finish(self) -> None:
    """Waits for the save in flight; an error if the last one failed."""
    self._settle()
    if self._failure:
      raise UserError(
        f'{self._failure}: {self._workdir} ends with the checkpoint before'
      )

  def close(self) -> None:
    """Waits for the save in flight."""
    self._settle()
    self._checkpointer.close()


def _checksums(workdir: str | Path, step: int) -> epath.Path:
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
  """Notes what is in the files of a checkpoint; forgets those that are gone."""
  file = _checksums(workdir, step)
  if is_remote(file):
    return  # a bucket checks what it keeps by itself
  file.parent.mkdir(exist_ok=True)
  write_whole(file, json.dumps(_digests(workdir, step), indent=1) + '\n')
  for other in file.parent.glob('*.json'):
    if not (folder(workdir) / other.stem).exists():
      other.unlink()


def _noted(workdir: str | Path, step: int) -> dict[str, str] | None:
  """The checksums of a checkpoint; None if there are none that can be read."""
  try:
    return json.loads(_checksums(workdir, step).read_text())
  except (OSError, ValueError):
    return None


def damage(workdir: str | Path, step: int) -> str:
  """What is wrong with the files of a checkpoint; `` if nothing is.

  One that the run was killed beside, before their checksums were noted, is
  taken as Orbax finds it: it is whole.
  """
  noted = _noted(workdir, step)
  if noted is None:
    return ''
  there = _digests(workdir, step)
  for name in sorted(noted.keys() | there.keys()):
    if name not in there:
      return f'{name} is missing'
    if noted.get(name) != there[name]:
      return f'{name} is not what was written'
  return ''


def steps(workdir: str | Path) -> list[int]:
  """The steps that a run has checkpoints of, oldest first; it may be going."""
  root = folder(workdir)
  if not root.exists():
    return []
  found = [path for path in root.iterdir() if path.name.isdigit()]
  if is_remote(root):  # where nothing is renamed when it is whole
    found = [path for path in found if (path / 'commit_success.txt').exists()]
  return sorted(int(path.name) for path in found)


def read(workdir: str | Path, names: tuple[str, ...], step: int) -> PyTree:
  """The named parts of the state, on one device, whatever wrote them.

  Reads these parts alone.
  """
  if problem := damage(workdir, step):
    raise UserError(
      f'the checkpoint of {workdir} at step {step} is damaged: {problem}'
    )
  context = ocp.Context()
  context.pytree.loading.partial_load = True
  with (
    context,
    ocp.training.Checkpointer(folder(workdir), context=context) as checkpointer,
  ):
    metadata = checkpointer.metadata(step).metadata
    wanted = {name: metadata[name] for name in names}
    return checkpointer.load(step, devices.local_shapes(wanted))
