"""One round of the game, pure: (state, batches, phase) -> (state, metrics).

The discriminator's steps with G frozen, the generator's step with D frozen,
the moving average of G. Written once, for any game and any devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from gan_jax.games.game import Aux, Batch, Game, Move, View
from gan_jax.keys import Purpose, example_keys
from gan_jax.ops import axis
from gan_jax.schedule import Phase
from gan_jax.state import Pair, State, player_params

Metrics = dict[str, Any]


class _Table(NamedTuple):
  """What lies on the table during a round, and the moves change."""

  variables: Pair
  opt_state: Pair
  game_state: PyTree


def play_round(
  game: Game,
  tx: Pair[optax.GradientTransformation],
  state: State,
  batches: Pair[Batch | None],
  phase: Phase,
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Plays one round (Goodfellow et al. 2014, algorithm 1).

  Args:
    game: The game; its moves are made in their order.
    tx: The players' optimizers, without their learning rates.
    state: The state before the round.
    batches: What the players see. disc: leaves [disc_steps, n, ...]; gen:
      leaves [n', ...], or None: G moves on the fakes and the batch of D's
      last step.
    phase: What holds in this round.
    axis_name: The devices' axis under pmap; None in the global view.

  Returns:
    The state after it, and the round's metrics: `gen/NAME`, `disc/NAME`; the
    mean over D's steps; NaN for a lazy move that was not made.
  """

  def deal(batch: Batch) -> PyTree:
    keys = example_keys(state.key, Purpose.DRAW, batch['example'], state.round)
    return game.draw(keys, batch, phase)

  def disc_step(table: _Table, batch: Batch, step, inputs, fakes):
    keys = example_keys(state.key, Purpose.DISC, batch['example'], state.round)
    step = phase.disc_step + step
    return _step(
      game, tx, 'disc', table, batch, inputs, fakes, keys, phase, step,
      axis_name,
    )  # fmt: skip

  def play_and_step(table: _Table, xs):
    batch, step = xs
    inputs = deal(batch)
    fakes, _ = game.play(table.variables.gen, inputs, phase)
    return disc_step(table, batch, step, inputs, fakes)

  table = _Table(state.variables, state.opt_state, state.game_state)
  steps = phase.disc_steps
  # Where G moves on the fakes that D has just seen, they are played once, and
  # pulled back after D has moved.
  shared = batches.gen is None
  alone = steps - 1 if shared else steps
  disc_metrics = []
  if alone:
    xs = jax.tree.map(lambda x: x[:alone], batches.disc), jnp.arange(alone)
    table, metrics = jax.lax.scan(play_and_step, table, xs)
    disc_metrics.append(metrics)

  batch = jax.tree.map(lambda x: x[-1], batches.disc) if shared else batches.gen
  inputs = deal(batch)

  def play(params):
    return game.play({**table.variables.gen, 'params': params}, inputs, phase)

  fakes, pull_back, collections = jax.vjp(
    play, table.variables.gen['params'], has_aux=True
  )
  if shared:
    table, metrics = disc_step(table, batch, steps - 1, inputs, fakes)
    disc_metrics.append(jax.tree.map(lambda x: x[None], metrics))

  keys = example_keys(state.key, Purpose.GEN, batch['example'], state.round)
  table, gen_metrics = _step(
    game, tx, 'gen', table, batch, inputs, fakes, keys, phase, state.round,
    axis_name, pull_back, collections,
  )  # fmt: skip

  disc_metrics = jax.tree.map(
    lambda *parts: jnp.nanmean(jnp.concatenate(parts)), *disc_metrics
  )
  metrics = axis.mean({**disc_metrics, **gen_metrics}, axis_name)
  state = state._replace(
    round=state.round + 1,
    variables=table.variables,
    opt_state=table.opt_state,
    game_state=table.game_state,
    ema=_average(state.ema, table.variables.gen, phase.ema_decay),
  )
  return state, metrics


def _step(
  game, tx, player, table, batch, inputs, fakes, keys, phase, step, axis_name,
  pull_back=None, collections=None,
):  # fmt: skip
  """All moves of one player in one step of its own, the other one frozen."""
  metrics = {}
  fakes = jax.lax.stop_gradient(fakes)
  for index, move in enumerate(getattr(game.moves, player)):

    def make(table, move=move, index=index):
      variables = getattr(table.variables, player)
      if index == 0 and collections is not None:
        # What the play has left behind (BatchNorm statistics) is G's own.
        variables = {**variables, **collections}
        table = table._replace(
          variables=table.variables._replace(**{player: variables})
        )
      view = View(table.variables, inputs, table.game_state, game.frozen)
      pull = pull_back if index == 0 else None
      grads, name_to_value, aux = _gradients(
        move, variables['params'], view, batch, fakes, keys, phase, pull
      )
      grads = axis.mean(grads, axis_name)
      table = _update(game, tx, player, table, grads, aux, phase)
      return table, {f'{player}/{k}': v for k, v in name_to_value.items()}

    if move.every == 1:
      table, made = make(table)
    else:
      skipped = jax.tree.map(
        lambda x: jnp.full(x.shape, jnp.nan, x.dtype),
        jax.eval_shape(make, table)[1],
      )
      table, made = jax.lax.cond(
        step % move.every == 0,
        make,
        lambda table, skipped=skipped: (table, skipped),
        table,
      )
    metrics.update(made)
  return table, metrics


def _gradients(
  move: Move, params, view, batch, fakes, keys, phase, pull_back
) -> tuple[PyTree, Metrics, Aux]:
  """The move's gradient, directly and, for G, through the fakes."""
  scale = move.every if move.rescale else 1

  def scaled(params, fakes):
    loss, aux = move.loss(params, view, batch, fakes, keys, phase)
    return scale * loss, (loss, aux)

  argnums = (0,) if pull_back is None else (0, 1)
  grads, (loss, aux) = jax.grad(scaled, argnums, has_aux=True)(params, fakes)
  total = grads[0]
  if pull_back is not None:
    total = jax.tree.map(jnp.add, total, pull_back(grads[1])[0])
  return total, {move.name: loss, **aux.metrics}, aux


def _update(game, tx, player, table, grads, aux, phase) -> _Table:
  """One step of one player's optimizer; keeps what the loss handed back."""
  variables = getattr(table.variables, player)
  old_opt_state = getattr(table.opt_state, player)
  player_tx = getattr(tx, player)
  rate = getattr(phase.learning_rate, player)
  old = variables['params']
  updates, opt_state = player_tx.update(grads, old_opt_state, old)
  params = jax.tree.map(lambda p, u: p - rate.astype(p.dtype) * u, old, updates)
  if game.active is not None:
    active = getattr(game.active(player_params(table.variables), phase), player)
    active = jax.tree.broadcast(active, old)
    params = _select(active, params, old)
    in_play = optax.tree_utils.tree_map_params(
      player_tx,
      lambda _, flag: flag,
      opt_state,
      active,
      transform_non_params=lambda _: True,
    )
    opt_state = _select(in_play, opt_state, old_opt_state)
  variables = {**variables, **(aux.collections or {}), 'params': params}
  return _Table(
    table.variables._replace(**{player: variables}),
    table.opt_state._replace(**{player: opt_state}),
    table.game_state if aux.game_state is None else aux.game_state,
  )


def _select(flags: PyTree, new: PyTree, old: PyTree) -> PyTree:
  return jax.tree.map(lambda flag, n, o: n if flag else o, flags, new, old)


def _average(ema: PyTree, now: PyTree, decay) -> PyTree:
  """ema + (1 - decay) (now - ema): exact where nothing has changed."""

  def average(e, x):
    if not jnp.issubdtype(e.dtype, jnp.floating):
      return x
    return e + (1 - decay).astype(e.dtype) * (x - e)

  return jax.tree.map(average, ema, now)


def enter_stage(
  tx: Pair[optax.GradientTransformation], state: State, phase: Phase
) -> State:
  """A new stage begins with new optimizer states (Karras et al. 2017).

  The stage is compared with the one stored in the state, so that it makes no
  difference whether the run was stopped in between.
  """
  changed = state.stage != phase.stage
  params = player_params(state.variables)
  fresh = Pair(tx.gen.init(params.gen), tx.disc.init(params.disc))
  return state._replace(
    stage=jnp.int32(phase.stage),
    opt_state=jax.tree.map(
      lambda new, old: jnp.where(changed, new, old), fresh, state.opt_state
    ),
  )


def play_dispatch(
  game: Game,
  tx: Pair[optax.GradientTransformation],
  read: Callable[..., Batch],
  axis_name: str | None,
  state: State,
  dataset: PyTree,
  feed: Pair[Batch | None],
  phases: Phase,
  frozen: PyTree,
) -> tuple[State, Metrics]:
  """Plays the rounds of one dispatch, all of one stage, in a scan.

  Args:
    game, tx, axis_name: As for `play_round`.
    read: (dataset, fed, key, round) -> batch.
    state: The state before.
    dataset: What lies on the device.
    feed: What each round takes of the stream, stacked.
    phases: The rounds' phases, stacked.
    frozen: `game.frozen`: an argument, so that it is no constant of the
      compiled program.

  Returns:
    The state after, and the metrics, each the mean over the rounds.
  """
  game = game._replace(frozen=frozen)

  def body(state: State, xs):
    fed, phase = xs
    batches = Pair(
      *(
        None if part is None else read(dataset, part, state.key, state.round)
        for part in fed
      )
    )
    return play_round(game, tx, state, batches, phase, axis_name)

  state = enter_stage(tx, state, phases)
  state, metrics = jax.lax.scan(body, state, (feed, phases))
  return state, jax.tree.map(jnp.nanmean, metrics)
