"""The training state: arrays only, so that checkpoints hold only arrays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, PyTree

from gan_jax.keys import Purpose
from gan_jax.pair import Pair, Variables, player_params


class State(NamedTuple):
  """The training state; everything else is derived from it and the config.

  Attributes:
    step: Completed iterations.
    attempt: How often the run has diverged and was rolled back.
    stage: The stage that the optimizer states belong to.
    key: The random key of the attempt (see keys.py).
    variables: Both players' variables.
    opt_state: Both players' optimizer states.
    ema: The exponential moving average of G's variables.
    game_state: State that belongs to neither player, such as an image pool.
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
  """Returns the initial states of both optimizers."""
  params = player_params(variables)
  return Pair(tx.gen.init(params.gen), tx.disc.init(params.disc))


def create(
  key: Key[Array, ''],
  variables: Pair[Variables],
  game_state: PyTree,
  tx: Pair[optax.GradientTransformation],
  stage: int,
) -> State:
  """Creates the initial state."""
  return State(
    step=jnp.int32(0),
    attempt=jnp.int32(0),
    stage=jnp.int32(stage),
    key=key,
    variables=variables,
    opt_state=init_opt_state(tx, variables),
    # A copy: a buffer that occurs twice in the state cannot be donated.
    ema=jax.tree.map(jnp.copy, variables.gen),
    game_state=game_state,
  )


def next_attempt(state: State, key: Key[Array, ''], attempt: int) -> State:
  """Returns the state with another key, for other data and other latents.

  Args:
    state: The state of the restored checkpoint.
    key: The key of `config.seed`.
    attempt: The number of the new attempt.
  """
  key = jax.random.fold_in(key, Purpose.ATTEMPT)
  return state._replace(
    attempt=jnp.int32(attempt), key=jax.random.fold_in(key, attempt)
  )
