"""A value for each player: Pair(gen, disc)."""

from typing import Any, Generic, NamedTuple, TypeVar

from jaxtyping import PyTree

T = TypeVar('T')

# A player's Flax variables: {'params': ..., 'batch_stats': ..., ...}.
Variables = dict[str, Any]


class _Pair(NamedTuple):
  gen: Any
  disc: Any


# Two classes, because runtime type checkers refuse a generic NamedTuple.
class Pair(_Pair, Generic[T]):
  """A value for each player, such as parameters or learning rates."""

  __slots__ = ()


def player_params(variables: Pair[Variables]) -> Pair[PyTree]:
  """Returns the trained parameters of both players."""
  return Pair(*(player['params'] for player in variables))
