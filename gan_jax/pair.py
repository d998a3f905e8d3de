"""What both players have, each its own: a pair."""

from typing import Any, Generic, NamedTuple, TypeVar

from jaxtyping import PyTree

T = TypeVar('T')

# A player's Flax variables: {'params': ..., 'batch_stats': ..., ...}.
Variables = dict[str, Any]


class _Pair(NamedTuple):
  gen: Any
  disc: Any


# In two classes: type checkers at run time refuse a generic NamedTuple.
class Pair(_Pair, Generic[T]):
  """What both players have, each its own: Pair(gen, disc)."""

  __slots__ = ()


def player_params(variables: Pair[Variables]) -> Pair[PyTree]:
  """The trained parameters of both players."""
  return Pair(*(player['params'] for player in variables))
