"""The state of a game: arrays only, so that a checkpoint is too."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, PyTree

from gan_jax.keys import Purpose
from gan_jax.pair import Pair, Variables, player_params


class State(NamedTuple):
  """All that a run must remember; everything else is derived from it.

  Attributes:
    iteration: Iterations played.
    attempt: How often the run has diverged and was rolled back.
    stage: The stage that the optimizer states belong to.
    key: Where all randomness of the attempt comes from (see keys.py).
    variables: Both players' variables.
    opt_state: Both players' optimizer states.
    ema: The exponential moving average of G's variables.
    game_state: What belongs to neither player (an image pool, say).
  """

  step: Int[Array, '']
  attempt: Int[Array, '']
  stage: Int[Array, '']
  key: Key[Array, '']
  variables: Pair[Variables]
  opt_state: Pair[PyTree]
  ema: Variables
  game_state: PyTree


def init_opt_state(
  tx: Pair[optax.GradientTransformation], variables: Pair[Variables]
) -> Pair[PyTree]:
  """The initial states of both optimizers."""
  params = player_params(variables)
  return Pair(tx.gen.init(params.gen), tx.disc.init(params.disc))


def create(
  key: Key[Array, ''],
  variables: Pair[Variables],
  game_state: PyTree,
  tx: Pair[optax.GradientTransformation],
  stage: int,
) -> State:
  """The state before the first iteration."""
  return State(
    step=jnp.int32(0),
    attempt=jnp.int32(0),
    stage=jnp.int32(stage),
    key=key,
    variables=variables,
    opt_state=init_opt_state(tx, variables),
    # A copy: the same buffers twice in one state cannot be donated.
    ema=jax.tree.map(jnp.copy, variables.gen),
    game_state=game_state,
  )


def next_attempt(state: State, key: Key[Array, ''], attempt: int) -> State:
  """The same state, before other data and other latents; `key`: the seed's."""
  key = jax.random.fold_in(key, Purpose.ATTEMPT)
  return state._replace(
    attempt=jnp.int32(attempt), key=jax.random.fold_in(key, attempt)
  )
