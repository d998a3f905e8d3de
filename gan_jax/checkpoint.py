"""Checkpoints: Orbax saves, resumes and reads them; arrays and JSON, no code.

A checkpoint is called by the rounds that led to it, and has the config and the
last metrics beside the state.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from gan_jax import parallel
from gan_jax.state import State

# Everything that a state has, by name.
STATE = State._fields


def folder(workdir: str | Path) -> epath.Path:
  """Where a run's checkpoints are."""
  return epath.Path(workdir).expanduser().resolve() / 'checkpoints'


class Checkpoints:
  """The checkpoints of a run that trains.

  Args:
    workdir: The run's.
    keep: How many of the newest are kept.
  """

  def __init__(self, workdir: str | Path, keep: int):
    self._checkpointer = ocp.training.Checkpointer(
      folder(workdir),
      preservation_policy=ocp.training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,
    )

  def resume(self, create: Callable[[], State]) -> State:
    """The newest state; where there is none yet, the one that is created."""
    newest = self._checkpointer.latest
    if newest is None:
      return parallel.create(create)
    abstract = parallel.on_every_device(jax.eval_shape(create))
    return State(**self._checkpointer.load(newest, abstract._asdict()))

  def save(
    self, step: int, state: State, metrics: Mapping[str, Any], config: Any
  ) -> None:
    """Saves in the background, once the save before is done."""
    self._checkpointer.save_async(
      step,
      state._asdict(),
      metrics=dict(metrics),
      custom_metadata={'config': config},
      force=True,  # else none is begun while another is in flight
    )

  def close(self) -> None:
    """Waits for the save in flight."""
    self._checkpointer.close()


def steps(workdir: str | Path) -> list[int]:
  """The steps that a run has checkpoints of, oldest first."""
  if not folder(workdir).exists():
    return []
  with ocp.training.Checkpointer(folder(workdir)) as checkpointer:
    return sorted(found.step for found in checkpointer.checkpoints)


def read(workdir: str | Path, names: tuple[str, ...], step: int) -> PyTree:
  """The named parts of the state, on one device, whatever wrote them.

  Reads these parts alone.
  """
  context = ocp.Context()
  context.pytree.loading.partial_load = True
  with (
    context,
    ocp.training.Checkpointer(folder(workdir), context=context) as checkpointer,
  ):
    metadata = checkpointer.metadata(step).metadata
    wanted = {name: metadata[name] for name in names}
    return checkpointer.load(step, parallel.on_one_device(wanted))
