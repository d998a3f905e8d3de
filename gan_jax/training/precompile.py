"""Compiles the program of the next stage while the current one trains."""

import contextlib
import threading
from collections.abc import Callable

from gan_jax import devices
from gan_jax.training.schedule import Schedule
from gan_jax.training.state import State


class Precompiler:
  """Compiles the programs of later segments in a background thread.

  Segments with equal signatures share a program. Errors are ignored here: the
  same error occurs, and is reported, where the program is needed.

  Args:
    schedule: The schedule.
    compile: (first step of a segment, shapes of the state) -> None.
  """

  def __init__(self, schedule: Schedule, compile: Callable[[int, State], None]):
    self._schedule, self._compile = schedule, compile
    self._signatures: set[object] = set()
    self._thread: threading.Thread | None = None

  def wait(self, step: int) -> None:
    """Waits for the program of `step` if a segment begins there."""
    begins = self._schedule.segment_at(step).first_step == step
    if self._thread is not None and begins:
      self._thread.join()
      self._thread = None

  def look_ahead(self, step: int, state: State) -> None:
    """Starts to compile the program of the segment that follows `step`'s."""
    schedule = self._schedule
    following = schedule.segment_at(step).end_step
    self._signatures.add(schedule.signature(step))
    known = schedule.signature(following) in self._signatures
    if self._thread is None and following < schedule.total_steps and not known:
      self._thread = threading.Thread(
        target=self._try,
        args=(following, devices.shapes_of(state)),
        daemon=True,  # the process can exit while it compiles
      )
      self._thread.start()

  def _try(self, step: int, state: State) -> None:
    with contextlib.suppress(Exception):
      self._compile(step, state)
