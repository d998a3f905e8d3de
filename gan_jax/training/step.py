"""The training step, a pure function of the state, the batches and the phase.

One iteration is the discriminator updates with G frozen, the generator updates
with D frozen, and the EMA update of G. It is the same for all games and all
parallel strategies.
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
from gan_jax.training.state import State

Metrics = dict[str, Any]


class _Static(NamedTuple):
  """The arguments of the training step that all its updates share."""

  game: Game
  tx: Pair[optax.GradientTransformation]
  phase: Phase
  frozen: PyTree
  axis_name: str | None


class _Carry(NamedTuple):
  """The part of the state that updates change."""

  variables: Pair[Variables]
  opt_state: Pair[PyTree]
  game_state: PyTree


class _StepInputs(NamedTuple):
  """The inputs that all updates of a player share in one of its steps.

  Attributes:
    batch: Real examples.
    inputs: The inputs of G that the fakes were generated from.
    fakes: The fakes.
    keys: One per example.
    step: Number of earlier steps of this player.
  """

  batch: Batch
  inputs: PyTree
  fakes: PyTree
  keys: Keys
  step: Scalar


def train_step(
  game: Game,
  tx: Pair[optax.GradientTransformation],
  state: State,
  batches: Pair[Batch | None],
  phase: Phase,
  frozen: PyTree = (),
  axis_name: str | None = None,
) -> tuple[State, Metrics]:
  """Runs one iteration (Goodfellow et al. 2014, algorithm 1).

  Args:
    game: The game. Each player's updates are applied in their order.
    tx: The players' optimizers, without learning rates.
    state: The state before the iteration.
    batches: Real examples. disc has leaves [disc_steps, n, ...]. gen has leaves
      [n', ...], or is None: then G reuses the fakes and the batch of the last D
      update.
    phase: The phase of this iteration.
    frozen: What `game.frozen` returned.
    axis_name: The device axis under pmap; None under jit.

  Returns:
    The next state, and metrics `gen/NAME` and `disc/NAME`: each is (sum, count)
    over the steps that computed it.
  """
  static = _Static(game, tx, phase, frozen, axis_name)
  # If G is updated on the fakes of the last D update, that D update is not in
  # the scan: its fakes are generated once, and G's gradient is pulled back
  # through them after D's update.
  shared = batches.gen is None
  scanned = phase.disc_steps - shared
  carry = _Carry(state.variables, state.opt_state, state.game_state)
  disc_metrics = []
  if scanned:
    first = jax.tree.map(lambda x: x[:scanned], batches.disc)
    carry, metrics = _scan_disc_steps(static, state, carry, first, scanned)
    disc_metrics.append(metrics)

  last = jax.tree.map(lambda x: x[-1], batches.disc)
  batch = last if shared else batches.gen
  inputs = _sample_inputs(static, state, batch)
  gen_vars = carry.variables.gen
  fakes, pull_back, collections = jax.vjp(
    lambda params: game.generate({**gen_vars, 'params': params}, inputs, phase),
    gen_vars['params'],
    has_aux=True,
  )
  if shared:
    carry, metrics = _disc_step(
      static, state, carry, batch, scanned, inputs, fakes
    )
    disc_metrics.append(metrics)

  # G keeps the collections (BatchNorm statistics) of this forward pass only;
  # those of the passes for D's other updates are discarded.
  carry = _replace(carry, 'gen', variables={**gen_vars, **collections})
  keys = _keys(state, Purpose.GEN, batch)
  step_inputs = _StepInputs(batch, inputs, fakes, keys, state.step)
  carry, gen_metrics = _update_player(
    static, 'gen', carry, step_inputs, pull_back
  )
  disc_metrics = jax.tree.map(lambda *parts: sum(parts), *disc_metrics)
  state = state._replace(
    step=state.step + 1,
    ema=_average(static, state.ema, carry.variables),
    **carry._asdict(),
  )
  return state, axis.mean({**disc_metrics, **gen_metrics}, axis_name)


def _keys(state: State, purpose: Purpose, batch: Batch) -> Keys:
  """Returns the keys of the examples of a batch."""
  return example_keys(state.key, purpose, batch['example'], state.step)


def _sample_inputs(static: _Static, state: State, batch: Batch) -> PyTree:
  """Samples the inputs of G for a batch."""
  keys = _keys(state, Purpose.INPUTS, batch)
  return static.game.sample_inputs(keys, batch, static.phase)


def _disc_step(
  static: _Static,
  state: State,
  carry: _Carry,
  batch: Batch,
  i: Scalar,
  inputs: PyTree,
  fakes: PyTree,
) -> tuple[_Carry, Metrics]:
  """Makes D's step `i` of the iteration, on given fakes."""
  step = static.phase.disc_step + i
  keys = _keys(state, Purpose.DISC, batch)
  step_inputs = _StepInputs(batch, inputs, fakes, keys, step)
  return _update_player(static, 'disc', carry, step_inputs)


def _scan_disc_steps(
  static: _Static, state: State, carry: _Carry, batches: Batch, count: int
) -> tuple[_Carry, Metrics]:
  """Makes D's first `count` steps, each on new fakes; sums their metrics."""

  def body(carry: _Carry, batch_and_i):
    batch, i = batch_and_i
    inputs = _sample_inputs(static, state, batch)
    fakes, _ = static.game.generate(carry.variables.gen, inputs, static.phase)
    return _disc_step(static, state, carry, batch, i, inputs, fakes)

  carry, metrics = jax.lax.scan(body, carry, (batches, jnp.arange(count)))
  return carry, jax.tree.map(lambda x: x.sum(0), metrics)


def _update_player(
  static: _Static,
  player: str,
  carry: _Carry,
  step_inputs: _StepInputs,
  pull_back: Callable[[PyTree], tuple[PyTree]] | None = None,
) -> tuple[_Carry, Metrics]:
  """Applies all due updates of one player, with the other player frozen."""
  fakes = jax.lax.stop_gradient(step_inputs.fakes)
  step_inputs = step_inputs._replace(fakes=fakes)
  metrics = {}
  for index, update in enumerate(getattr(static.game.updates, player)):

    def apply(carry, update=update, index=index):
      fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
      own_keys = fold(step_inputs.keys, index)
      update_inputs = step_inputs._replace(keys=own_keys)
      pull = pull_back if index == 0 else None
      grads, values, aux = _gradients(
        static, player, carry, update_inputs, update, pull
      )
      values[f'{update.name}_grad_norm'] = optax.tree.norm(grads)
      carry = _apply_update(static, player, carry, grads, aux, update)
      return carry, {
        f'{player}/{name}': jnp.stack([x, jnp.ones_like(x)])
        for name, x in values.items()
      }

    def skip(carry, apply=apply):
      shapes = jax.eval_shape(apply, carry)[1]
      zeros = lambda x: jnp.zeros(x.shape, x.dtype)
      return carry, jax.tree.map(zeros, shapes)

    if update.every == 1:
      carry, values = apply(carry)
    else:
      due = step_inputs.step % update.every == 0
      carry, values = jax.lax.cond(due, apply, skip, carry)
    metrics.update(values)
  return carry, metrics


def _gradients(
  static: _Static,
  player: str,
  carry: _Carry,
  step_inputs: _StepInputs,
  update: Update,
  pull_back: Callable[[PyTree], tuple[PyTree]] | None,
) -> tuple[PyTree, Metrics, Aux]:
  """Computes the gradient of one update; G's includes that through the fakes.

  Returns:
    The gradient (averaged over devices), the metrics, and the loss's Aux.
  """
  context = Context(
    carry.variables, step_inputs.inputs, carry.game_state, static.frozen
  )
  scale = update.every if update.rescale else 1

  def scaled_loss(params, fakes):
    batch, keys = step_inputs.batch, step_inputs.keys
    loss, aux = update.loss(params, context, batch, fakes, keys, static.phase)
    return scale * loss, (loss, aux)

  params = getattr(carry.variables, player)['params']
  differentiated = (0,) if pull_back is None else (0, 1)
  grads, (loss, aux) = jax.grad(scaled_loss, differentiated, has_aux=True)(
    params, step_inputs.fakes
  )
  total = grads[0]
  if pull_back is not None:
    (through_fakes,) = pull_back(grads[1])
    total = jax.tree.map(jnp.add, total, through_fakes)
  metrics = {update.name: loss, **aux.metrics}
  return axis.mean(total, static.axis_name), metrics, aux


def _apply_update(
  static: _Static,
  player: str,
  carry: _Carry,
  grads: PyTree,
  aux: Aux,
  update: Update,
) -> _Carry:
  """Applies one optimizer step and stores the collections and game state."""
  variables = getattr(carry.variables, player)
  old_opt_state = getattr(carry.opt_state, player)
  tx = optax.with_extra_args_support(getattr(static.tx, player))
  rate = getattr(static.phase.learning_rate, player)
  old = variables['params']
  steps, opt_state = tx.update(
    grads, old_opt_state, old, **_hyperparameters(static.phase, player)
  )
  params = jax.tree.map(lambda p, u: p - rate * u, old, steps)
  if update.project is not None:
    params = update.project(params)
  trainable = _trainable(static, player, carry.variables)
  if trainable is not None:
    params = _select(trainable, params, old)
    mask = _mask_like(tx, opt_state, trainable)
    opt_state = _select(mask, opt_state, old_opt_state)
  carry = _replace(
    carry,
    player,
    variables={**variables, **(aux.collections or {}), 'params': params},
    opt_state=opt_state,
  )
  if aux.game_state is None:
    return carry
  return carry._replace(game_state=aux.game_state)


def _hyperparameters(phase: Phase, player: str) -> dict[str, Scalar]:
  """Returns the scheduled hyperparameters of an optimizer, such as b1."""
  prefix = f'optimizer.{player}.'
  return {
    name.removeprefix(prefix): value
    for name, value in phase.values.items()
    if name.startswith(prefix)
  }


def _replace(carry: _Carry, player: str, **fields: PyTree) -> _Carry:
  """Replaces one player's half of the named fields."""
  pairs = {
    name: getattr(carry, name)._replace(**{player: value})
    for name, value in fields.items()
  }
  return carry._replace(**pairs)


def _trainable(
  static: _Static, player: str, variables: Pair[Variables]
) -> PyTree | None:
  """Returns a bool per parameter of the player; None: all are trainable."""
  if static.game.trainable is None:
    return None
  params = player_params(variables)
  both = static.game.trainable(params, static.phase)
  return jax.tree.broadcast(getattr(both, player), getattr(params, player))


def _mask_like(tx: Any, opt_state: PyTree, trainable: PyTree) -> PyTree:
  """Maps the flags of the parameters to the optimizer state."""
  return optax.tree_utils.tree_map_params(
    tx,
    lambda _, flag: flag,
    opt_state,
    trainable,
    transform_non_params=lambda _: True,
  )


def _select(flags: PyTree, new: PyTree, old: PyTree) -> PyTree:
  return jax.tree.map(lambda flag, n, o: n if flag else o, flags, new, old)


def _average(
  static: _Static, ema: Variables, variables: Pair[Variables]
) -> Variables:
  """Updates the EMA of G: ema + (1 - decay) (variables - ema).

  Frozen parameters keep their average. Collections are averaged too, except
  those in `Game.ema_copies`, which are copied.
  """

  def average(e, x):
    if not jnp.issubdtype(e.dtype, jnp.floating):
      return x
    return e + (1 - static.phase.ema_decay) * (x - e)

  copied = static.game.ema_copies
  averaged = {
    name: now if name in copied else jax.tree.map(average, ema[name], now)
    for name, now in variables.gen.items()
  }
  trainable = _trainable(static, 'gen', variables)
  if trainable is None:
    return averaged
  params = _select(trainable, averaged['params'], ema['params'])
  return {**averaged, 'params': params}
