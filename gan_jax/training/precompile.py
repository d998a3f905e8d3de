"""What the next stage needs is compiled while this one is played."""

import contextlib
import threading
from collections.abc import Callable

from gan_jax import devices
from gan_jax.training.schedule import Table
from gan_jax.training.state import State


class Precompiler:
  """Compiles ahead, in a thread, what the rows of a schedule need.

  A row whose phase has the same static fields as one before is compiled
  already. What fails here fails again where it is needed, and is told there.

  Args:
    table: The schedule.
    compile: (first iteration of a row, the state's shapes) -> None.
  """

  def __init__(self, table: Table, compile: Callable[[int, State], None]):
    self._table, self._compile = table, compile
    self._known: set[object] = set()
    self._begun: threading.Thread | None = None

  def wait(self, step: int) -> None:
    """Waits for what `step` needs, if that is being compiled."""
    if self._begun is not None and self._table.row(step).first_step == step:
      self._begun.join()
      self._begun = None

  def look_ahead(self, step: int, state: State) -> None:
    """Begins with what the row after that of `step` needs; once."""
    table, following = self._table, self._table.row(step).end_step
    self._known.add(table.signature(step))
    known = table.signature(following) in self._known
    if self._begun is None and following < table.total_steps and not known:
      # Nobody who leaves waits for it.
      self._begun = threading.Thread(
        target=self._try,
        args=(following, devices.as_it_lies(state)),
        daemon=True,
      )
      self._begun.start()

  def _try(self, step: int, state: State) -> None:
    with contextlib.suppress(Exception):
      self._compile(step, state)
