"""A dispatch: several iterations that one call runs on the devices, a scan."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from gan_jax.games.game import Batch, Game, Phase
from gan_jax.pair import Pair
from gan_jax.training.state import State, init_opt_state
from gan_jax.training.step import Metrics, train_step


def start_stage(
  tx: Pair[optax.GradientTransformation], state: State, phase: Phase
) -> State:
  """Resets the optimizer states if a new stage begins (Karras et al. 2018).

  The state stores its stage. So the optimizer states are also reset if a run
  stops at the end of a stage and resumes in the next.
  """
  changed = state.stage != phase.stage
  opt_state = jax.tree.map(
    lambda new, old: jnp.where(changed, new, old),
    init_opt_state(tx, state.variables),
    state.opt_state,
  )
  return state._replace(stage=jnp.int32(phase.stage), opt_state=opt_state)


def train_dispatch(
  game: Game,
  tx: Pair[optax.GradientTransformation],
  read: Callable[..., Batch],
  axis_name: str | None,
  state: State,
  dataset: PyTree,
  indices: Pair[Batch | None],
  phases: Phase,
  frozen: PyTree,
) -> tuple[State, Metrics]:
  """Runs the iterations of one dispatch, all of one stage, in a scan.

  Args:
    game, tx, axis_name: As for `train_step`.
    read: (dataset, index batch, key, step, downsample) -> batch.
    state: The state before the dispatch.
    dataset: The data set if it is on the devices; otherwise {}.
    indices: Index batches of the iterations, stacked.
    phases: Phases of the iterations, stacked.
    frozen: What `game.frozen` returned. It is an argument so that it does not
      become a constant of the compiled program.

  Returns:
    The state after the dispatch, and metrics [steps, 2]: (sum, count) of each
    iteration.
  """

  def body(state: State, indices_and_phase):
    indices, phase = indices_and_phase
    downsample = 1 if game.downsample is None else game.downsample(phase)
    batches = Pair(
      *(
        part and read(dataset, part, state.key, state.step, downsample)
        for part in indices
      )
    )
    return train_step(game, tx, state, batches, phase, frozen, axis_name)

  state = start_stage(tx, state, phases)
  return jax.lax.scan(body, state, (indices, phases))
