"""Executors: where trials run.

A row of `EXECUTORS` is a function (launcher, parallel_trials, address,
resources) -> `Executor`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from gan_jax.errors import UserError
from gan_jax.registry import choose
from gan_jax.sweep.local import LocalExecutor
from gan_jax.sweep.process import RunningTrial
from gan_jax.sweep.ray_cluster import RayExecutor


@runtime_checkable
class Executor(Protocol):
  """Starts trials.

  Attributes:
    description: Where trials run, for the user.
  """

  description: str

  def connect(self) -> None:
    """Prepares to start trials; a dry run does not call this."""

  def command(self, flags: Sequence[str], index: int) -> str:
    """Returns the command line that a user would type for a trial."""

  def parallel(self) -> int:
    """Returns the number of trials that can run at the same time now."""

  def start(
    self, flags: Sequence[str], workdir: str, log: Path
  ) -> RunningTrial:
    """Starts the run of launch.py with these flags."""


EXECUTORS: dict[str, Callable[..., Executor]] = {
  'local': LocalExecutor,
  'ray': RayExecutor,
}


def make(
  launcher: str,
  executor: str = 'local',
  parallel_trials: int | None = None,
  address: str | None = None,
  resources: Sequence[str] | None = None,
) -> Executor:
  """Makes an executor.

  Args:
    launcher: The path of `launch.py`.
    executor: The name of a row of `EXECUTORS`.
    parallel_trials: The number of trials that run at the same time, at most;
      None: as many as there are accelerators, or as fit on the cluster.
    address, resources: Of `ray`: its address, and what a trial occupies,
      NAME=NUMBER.
  """
  if parallel_trials is not None and parallel_trials < 1:
    raise UserError(f'--parallel_trials={parallel_trials} must be 1 or more')
  make_executor = choose('--executor', executor, EXECUTORS)
  if executor != 'ray' and (address or resources):
    raise UserError('--address and --resources need --executor=ray')
  return make_executor(
    launcher=launcher,
    parallel_trials=parallel_trials,
    address=address,
    resources=resources or (),
  )
