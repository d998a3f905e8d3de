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


def join_networks(networks: dict[str, Variables]) -> Variables:
  """Joins the variables of a player's networks, by collection and network."""
  collections = {name for variables in networks.values() for name in variables}
  return {
    name: {
      network: variables[name]
      for network, variables in networks.items()
      if name in variables
    }
    for name in sorted(collections)
  }


def network_of(variables: Variables, network: str) -> Variables:
  """Returns the variables of one of several joined networks."""
  return {
    name: tree[network] for name, tree in variables.items() if network in tree
  }
