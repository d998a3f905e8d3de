"""Where trials run: a row for each kind of machine.

A row is a function (launcher, parallel_trials, slices, zone, remote) -> the
places, in each of which `start` makes of launch.py's flags a running trial,
which can be polled and stopped (process.py).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gan_jax.errors import UserError
from gan_jax.registry import choose
from gan_jax.sweep import local, tpu
from gan_jax.sweep.process import Place

EXECUTORS: dict[str, Callable[..., list[Place]]] = {
  'local': local.places,
  'tpu': tpu.places,
}


class Machines(NamedTuple):
  """What is said of them, by flags.

  Attributes:
    executor: A row of EXECUTORS.
    parallel_trials: How many trials at a time; None: as many as there are
      accelerators or slices.
    slices, zone, remote: Of `tpu`.
  """

  executor: str = 'local'
  parallel_trials: int | None = None
  slices: Sequence[str] = ()
  zone: str | None = None
  remote: str = 'cd gan_jax'

  def places(self, launcher: str) -> list[Place]:
    """Where trials may run, one each; `launcher`: launch.py, where it is."""
    given, several = self._asdict(), self.parallel_trials
    if several is not None and several < 1:
      raise UserError(f'--parallel_trials={several} is to be 1 or more')
    row = choose('--executor', given.pop('executor'), EXECUTORS)
    return row(launcher=launcher, **given)
