"""Executors: the kinds of machines that trials run on.

A row of `EXECUTORS` is a function (launcher, parallel_trials, slices, zone,
remote) -> workers. A `Worker` runs one trial at a time: `start` turns flags of
`launch.py` into a running trial, which can be polled and stopped
(`process.py`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gan_jax.errors import UserError
from gan_jax.registry import choose
from gan_jax.sweep import local, tpu
from gan_jax.sweep.process import Worker

EXECUTORS: dict[str, Callable[..., list[Worker]]] = {
  'local': local.make_workers,
  'tpu': tpu.make_workers,
}


class ExecutorOptions(NamedTuple):
  """The flags that choose where trials run.

  Attributes:
    executor: The name of a row of `EXECUTORS`.
    parallel_trials: The number of trials that run at the same time; None: one
      for each accelerator or slice.
    slices, zone, remote: Options of `tpu`.
  """

  executor: str = 'local'
  parallel_trials: int | None = None
  slices: Sequence[str] = ()
  zone: str | None = None
  remote: str = 'cd gan_jax'

  def workers(self, launcher: str) -> list[Worker]:
    """Makes the workers; `launcher` is the path of `launch.py`."""
    options = self._asdict()
    if self.parallel_trials is not None and self.parallel_trials < 1:
      raise UserError(
        f'--parallel_trials={self.parallel_trials} must be 1 or more'
      )
    make_workers = choose('--executor', options.pop('executor'), EXECUTORS)
    return make_workers(launcher=launcher, **options)
