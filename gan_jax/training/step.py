"""One iteration of the game, pure: (state, batches, phase) -> (state, metrics).

The discriminator's steps with G frozen, the generator's step with D frozen,
the moving average of G. Written once, for any game and any devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from gan_jax.games.game import (
  Aux,
  Batch,
  Context,
  Game,
  Keys,
  Phase,
  Scalar,
  Update,
)
from gan_jax.keys import Purpose, example_keys
from gan_jax.ops import axis
from gan_jax.pair import Pair, Variables, player_params
from gan_jax.training.state import State, fresh

Metrics = dict[str, Any]


class _Static(NamedTuple):
  """What stays the same throughout an iteration."""

  game: Game
  tx: Pair[optax.GradientTransformation]
  phase: Phase
  frozen: PyTree
  axis_name: str | None


class _Carry(NamedTuple):
  """What lies on the table, and the moves change."""

  variables: Pair[Variables]
  opt_state: Pair[PyTree]
  game_state: PyTree


class _StepInputs(NamedTuple):
  """What a player holds in a step of its own."""

  batch: Batch
  inputs: PyTree
  fakes: PyTree
  keys: Keys
  step: Scalar  # the player's steps before this one


def train_step(
  game: Game,
  tx: Pair[optax.GradientTransformation],
  state: State,
  batches: Pair[Batch | None],
  phase: Phase,
  frozen: PyTree = (),
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Plays one iteration (Goodfellow et al. 2014, algorithm 1).

  Args:
    game: The game; its moves are made in their order.
    tx: The players' optimizers, without their learning rates.
    state: The state before the iteration.
    batches: What the players see. disc: leaves [disc_steps, n, ...]; gen:
      leaves [n', ...], or None: G moves on the fakes and the batch of D's
      last step.
    phase: What holds in this iteration.
    frozen: What `game.frozen` gave.
    axis_name: The devices' axis under pmap; None in the global view.

  Returns:
    The state after it, and the iteration's metrics, `gen/NAME` and `disc/NAME`:
    each (sum, count) over the steps in which it was computed.
  """
  rules = _Static(game, tx, phase, frozen, axis_name)

  def keys(purpose: Purpose, batch: Batch) -> Keys:
    return example_keys(state.key, purpose, batch['example'], state.step)

  def deal(batch: Batch) -> PyTree:
    return game.sample_inputs(keys(Purpose.DRAW, batch), batch, phase)

  def disc_step(table: _Carry, batch: Batch, i, inputs, fakes):
    hand = _StepInputs(
      batch, inputs, fakes, keys(Purpose.DISC, batch), phase.disc_step + i
    )
    return _step(rules, 'disc', table, hand)

  def play_and_step(table: _Carry, batch_and_i):
    batch, i = batch_and_i
    inputs = deal(batch)
    fakes, _ = game.generate(table.variables.gen, inputs, phase)
    return disc_step(table, batch, i, inputs, fakes)

  # Where G moves on the fakes of D's last step, that step is not in the scan:
  # its fakes are played once, and pulled back after D has moved.
  shared = batches.gen is None
  alone = phase.disc_steps - shared
  table = _Carry(state.variables, state.opt_state, state.game_state)
  disc_metrics = []
  if alone:
    first = jax.tree.map(lambda x: x[:alone], batches.disc)
    steps = first, jnp.arange(alone)
    table, metrics = jax.lax.scan(play_and_step, table, steps)
    disc_metrics.append(jax.tree.map(lambda x: x.sum(0), metrics))

  last = jax.tree.map(lambda x: x[-1], batches.disc)
  batch = last if shared else batches.gen
  inputs = deal(batch)
  gen_vars = table.variables.gen
  fakes, pull_back, collections = jax.vjp(
    lambda params: game.generate({**gen_vars, 'params': params}, inputs, phase),
    gen_vars['params'],
    has_aux=True,
  )
  if shared:
    table, metrics = disc_step(table, batch, alone, inputs, fakes)
    disc_metrics.append(metrics)

  # What the play left behind (BatchNorm statistics) is G's to keep, now that
  # G moves; after the plays for D alone it was discarded.
  table = _replace(table, 'gen', variables={**gen_vars, **collections})
  hand = _StepInputs(batch, inputs, fakes, keys(Purpose.GEN, batch), state.step)
  table, gen_metrics = _step(rules, 'gen', table, hand, pull_back)

  disc_metrics = jax.tree.map(lambda *parts: sum(parts), *disc_metrics)
  state = state._replace(
    step=state.step + 1,
    ema=_average(rules, state.ema, table.variables),
    **table._asdict(),
  )
  return state, axis.mean({**disc_metrics, **gen_metrics}, axis_name)


def _step(
  rules: _Static,
  player: str,
  table: _Carry,
  hand: _StepInputs,
  pull_back: Callable[[PyTree], tuple[PyTree]] | None = None,
) -> tuple[_Carry, Metrics]:
  """All moves of one player in one step of its own, the other one frozen."""
  hand = hand._replace(fakes=jax.lax.stop_gradient(hand.fakes))
  metrics = {}
  for index, move in enumerate(getattr(rules.game.updates, player)):

    def make(table, move=move, index=index):
      fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
      own = hand._replace(keys=fold(hand.keys, index))
      pull = pull_back if index == 0 else None
      grads, made, aux = _gradients(rules, player, table, own, move, pull)
      made[f'{move.name}_grad_norm'] = optax.tree.norm(grads)
      table = _update(rules, player, table, grads, aux, move)
      return table, {
        f'{player}/{name}': jnp.stack([x, jnp.ones_like(x)])
        for name, x in made.items()
      }

    def pass_by(table, make=make):
      shapes = jax.eval_shape(make, table)[1]
      nothing = lambda x: jnp.zeros(x.shape, x.dtype)
      return table, jax.tree.map(nothing, shapes)

    if move.every == 1:
      table, made = make(table)
    else:
      due = hand.step % move.every == 0
      table, made = jax.lax.cond(due, make, pass_by, table)
    metrics.update(made)
  return table, metrics


def _gradients(
  rules: _Static,
  player: str,
  table: _Carry,
  hand: _StepInputs,
  move: Update,
  pull_back: Callable[[PyTree], tuple[PyTree]] | None,
) -> tuple[PyTree, Metrics, Aux]:
  """The move's gradient: the direct one, and for G that through the fakes."""
  view = Context(table.variables, hand.inputs, table.game_state, rules.frozen)
  scale = move.every if move.rescale else 1

  def scaled_loss(params, fakes):
    loss, aux = move.loss(
      params, view, hand.batch, fakes, hand.keys, rules.phase
    )
    return scale * loss, (loss, aux)

  params = getattr(table.variables, player)['params']
  moved = (0,) if pull_back is None else (0, 1)
  grads, (loss, aux) = jax.grad(scaled_loss, moved, has_aux=True)(
    params, hand.fakes
  )
  total = grads[0]
  if pull_back is not None:
    (through_fakes,) = pull_back(grads[1])
    total = jax.tree.map(jnp.add, total, through_fakes)
  metrics = {move.name: loss, **aux.metrics}
  return axis.mean(total, rules.axis_name), metrics, aux


def _update(
  rules: _Static,
  player: str,
  table: _Carry,
  grads: PyTree,
  aux: Aux,
  move: Update,
) -> _Carry:
  """One step of the player's optimizer; what the loss handed back is kept."""
  variables = getattr(table.variables, player)
  before = getattr(table.opt_state, player)
  tx = getattr(rules.tx, player)
  rate = getattr(rules.phase.learning_rate, player)
  params = variables['params']
  updates, opt_state = tx.update(grads, before, params)
  moved = jax.tree.map(lambda p, u: p - rate * u, params, updates)
  if move.project is not None:
    moved = move.project(moved)
  active = _active(rules, player, table.variables)
  if active is not None:
    moved = _select(active, moved, params)
    opt_state = _select(_like(tx, opt_state, active), opt_state, before)
  table = _replace(
    table,
    player,
    variables={**variables, **(aux.collections or {}), 'params': moved},
    opt_state=opt_state,
  )
  if aux.game_state is None:
    return table
  return table._replace(game_state=aux.game_state)


def _replace(table: _Carry, player: str, **fields: PyTree) -> _Carry:
  """Replaces one player's part of the named fields."""
  pairs = {
    name: getattr(table, name)._replace(**{player: value})
    for name, value in fields.items()
  }
  return table._replace(**pairs)


def _active(
  rules: _Static, player: str, variables: Pair[Variables]
) -> PyTree | None:
  """A flag for each of the player's parameters; None: all are in play."""
  if rules.game.trainable is None:
    return None
  params = player_params(variables)
  both = rules.game.trainable(params, rules.phase)
  return jax.tree.broadcast(getattr(both, player), getattr(params, player))


def _like(tx: Any, opt_state: PyTree, active: PyTree) -> PyTree:
  """The flags `active` of the parameters, as flags of the optimizer's state."""
  return optax.tree_utils.tree_map_params(
    tx,
    lambda _, flag: flag,
    opt_state,
    active,
    transform_non_params=lambda _: True,
  )


def _select(flags: PyTree, new: PyTree, old: PyTree) -> PyTree:
  return jax.tree.map(lambda flag, n, o: n if flag else o, flags, new, old)


def _average(
  rules: _Static, ema: Variables, variables: Pair[Variables]
) -> Variables:
  """ema + (1 - decay) (now - ema), of what is in play."""

  def average(e, x):
    if not jnp.issubdtype(e.dtype, jnp.floating):
      return x
    return e + (1 - rules.phase.ema_decay) * (x - e)

  averaged = jax.tree.map(average, ema, variables.gen)
  active = _active(rules, 'gen', variables)
  if active is None:
    return averaged
  params = _select(active, averaged['params'], ema['params'])
  return {**averaged, 'params': params}


def start_stage(
  tx: Pair[optax.GradientTransformation], state: State, phase: Phase
) -> State:
  """A new stage begins with new optimizer states (Karras et al. 2018).

  The stage is compared with the one stored in the state, so that it makes no
  difference whether the run was stopped in between.
  """
  changed = state.stage != phase.stage
  opt_state = jax.tree.map(
    lambda new, old: jnp.where(changed, new, old),
    fresh(tx, state.variables),
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
  feed: Pair[Batch | None],
  phases: Phase,
  frozen: PyTree,
) -> tuple[State, Metrics]:
  """Plays the iterations of one dispatch, all of one stage, in a scan.

  Args:
    game, tx, axis_name: As for `train_step`.
    read: (dataset, fed, key, iteration, shrink) -> batch.
    state: The state before.
    dataset: What lies on the device.
    feed: What each iteration takes of the stream, stacked.
    phases: The iterations' phases, stacked.
    frozen: What `game.frozen` gave: an argument, so that it is no constant of
      the compiled program.

  Returns:
    The state after, and the metrics: [iterations, 2], (sum, count) of each
      iteration.
  """

  def body(state: State, fed_and_phase):
    fed, phase = fed_and_phase
    shrink = 1 if game.downsample is None else game.downsample(phase)
    batches = Pair(
      *(
        part and read(dataset, part, state.key, state.step, shrink)
        for part in fed
      )
    )
    return train_step(game, tx, state, batches, phase, frozen, axis_name)

  state = start_stage(tx, state, phases)
  return jax.lax.scan(body, state, (feed, phases))
