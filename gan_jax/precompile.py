"""What the next stage needs is compiled while this one is played."""

from collections.abc import Callable
from concurrent import futures

from gan_jax.schedule import Table


class Precompiler:
  """Compiles ahead, in a thread, what the rows of a schedule need.

  A row whose phase has the same static fields as one before is compiled
  already. What fails here fails again where it is needed, and is told there.

  Args:
    table: The schedule.
    compile: (first round of a row) -> None.
  """

  def __init__(self, table: Table, compile: Callable[[int], None]):
    self._table, self._compile = table, compile
    self._known: set[object] = set()
    self._pool = futures.ThreadPoolExecutor(1)
    self._begun: futures.Future | None = None

  def wait(self, round: int) -> None:
    """Waits for what `round` needs, if that is being compiled."""
    if self._begun is not None and self._table.row(round).first_round == round:
      futures.wait([self._begun])
      self._begun = None

  def look_ahead(self, round: int) -> None:
    """Begins with what the row after that of `round` needs; once."""
    table, following = self._table, self._table.row(round).end_round
    self._known.add(table.signature(round))
    known = table.signature(following) in self._known
    if self._begun is None and following < table.total_rounds and not known:
      self._begun = self._pool.submit(self._compile, following)

  def close(self) -> None:
    """Waits for what is being compiled."""
    self._pool.shutdown(cancel_futures=True)
