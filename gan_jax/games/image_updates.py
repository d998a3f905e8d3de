"""The updates of both players of an image game: losses, penalties and ADA."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gan_jax.errors import UserError
from gan_jax.games.discriminate import (
  DiscOutput,
  class_loss,
  disc_metrics,
  one_hot_labels,
)
from gan_jax.games.game import (
  Aux,
  Context,
  Keys,
  Phase,
  Scalar,
  Update,
)
from gan_jax.games.image_networks import ADA_STATE, ImageNetworks, ada_state
from gan_jax.games.losses import GANLoss
from gan_jax.games.penalties import (
  GenPenalty,
  GenPenaltyInputs,
  Penalty,
  StatefulPenalty,
  WeightedPenalty,
  value_of,
)
from gan_jax.ops import axis
from gan_jax.pair import Pair


def disc_updates(
  networks: ImageNetworks,
  loss: GANLoss,
  penalties: Sequence[WeightedPenalty[Penalty]] = (),
  auxiliary: Pair[float] | None = None,
  clip: float | None = None,
  axis_name: str | None = None,
) -> tuple[Update, ...]:
  """Makes D's updates: its loss with penalties, then each lazy penalty."""

  def disc_loss(params, context, batch, fakes, keys, phase):
    disc_vars = {**context.variables.disc, 'params': params}
    out = networks.disc_output(disc_vars, context, batch, fakes, keys, phase)
    metrics = disc_metrics(loss, out.inputs.real_logits, out.inputs.fake_logits)
    total = loss.disc(out.inputs.real_logits, out.inputs.fake_logits)
    if auxiliary is not None:
      labels = one_hot_labels(batch, networks.classes)
      fake_labels = context.inputs['labels']
      metrics['class_loss'] = class_loss(out.real_classes, labels)
      metrics['class_loss'] += class_loss(out.fake_classes, fake_labels)
      total += auxiliary.disc * metrics['class_loss']
    new_state = {}
    for penalty in penalties:
      if penalty.every == 1:
        metrics[penalty.name], state = _disc_penalty(
          penalty, context, out, axis_name
        )
        total += weight_of(penalty, phase) * metrics[penalty.name]
        new_state.update(state)
    ada_state, ada_metrics = _adapt(
      networks, loss, context, out, phase, axis_name
    )
    metrics.update(ada_metrics)
    new_state.update(ada_state)
    return total, Aux(metrics, out.collections, _merge(context, new_state))

  def lazy_loss(penalty, params, context, batch, fakes, keys, phase):
    disc_vars = {**context.variables.disc, 'params': params}
    out = networks.disc_output(disc_vars, context, batch, fakes, keys, phase)
    value, new = _disc_penalty(penalty, context, out, axis_name)
    weight = weight_of(penalty, phase)
    aux = Aux({penalty.name: value}, game_state=_merge(context, new))
    return weight * value, aux

  project = None
  if clip is not None:
    project = partial(jax.tree.map, lambda p: jnp.clip(p, -clip, clip))
  lazy = (
    Update(
      partial(lazy_loss, p), p.every, name=f'weighted_{p.name}', project=project
    )
    for p in penalties
    if p.every > 1
  )
  return (Update(disc_loss, project=project), *lazy)


def gen_updates(
  networks: ImageNetworks,
  loss: GANLoss,
  penalties: Sequence[WeightedPenalty[GenPenalty]] = (),
  auxiliary: Pair[float] | None = None,
  axis_name: str | None = None,
) -> tuple[Update, ...]:
  """Makes G's updates: its loss with penalties, then each lazy penalty."""
  gen_penalty = partial(_gen_penalty, networks, axis_name)

  def gen_loss(params, context, batch, fakes, keys, phase):
    # `train_step` pulls the gradient of this loss back through the fakes.
    out = networks.disc_output(
      context.variables.disc, context, batch, fakes, keys, phase
    )
    total = loss.gen(out.inputs.real_logits, out.inputs.fake_logits)
    metrics, state = {}, {}
    if auxiliary is not None:
      labels = context.inputs['labels']
      metrics['class_loss'] = class_loss(out.fake_classes, labels)
      total += auxiliary.gen * metrics['class_loss']
    for penalty in penalties:
      if penalty.every == 1:
        weighted, metrics[penalty.name], new = gen_penalty(
          penalty, params, context, keys, phase
        )
        total, state = total + weighted, {**state, **new}
    return total, Aux(metrics, game_state=_merge(context, state))

  def lazy_loss(penalty, params, context, batch, fakes, keys, phase):
    del batch, fakes
    weighted, value, state = gen_penalty(penalty, params, context, keys, phase)
    aux = Aux({penalty.name: value}, game_state=_merge(context, state))
    return weighted, aux

  lazy = (
    Update(partial(lazy_loss, p), p.every, name=f'weighted_{p.name}')
    for p in penalties
    if p.every > 1
  )
  return (Update(gen_loss), *lazy)


def _disc_penalty(
  penalty: WeightedPenalty[Penalty],
  context: Context,
  out: DiscOutput,
  axis_name: str | None,
) -> tuple[Scalar, dict[str, PyTree]]:
  """Returns a penalty of D without its weight, and the new game state."""
  inputs, name = out.inputs, f'penalties/{penalty.name}'
  if isinstance(penalty.penalty, StatefulPenalty):
    mean = lambda x: axis.mean(jnp.mean(x), axis_name)
    inputs = inputs._replace(state=context.game_state[name], mean=mean)
  value, state = value_of(penalty, inputs)
  return value, {} if state is None else {name: state}


def _gen_penalty(
  networks: ImageNetworks,
  axis_name: str | None,
  penalty: WeightedPenalty[GenPenalty],
  params: PyTree,
  context: Context,
  keys: Keys,
  phase: Phase,
) -> tuple[Scalar, Scalar, dict[str, PyTree]]:
  """Returns a penalty of G with and without weight, and the new game state."""
  gen_vars = {**context.variables.gen, 'params': params}
  keys = penalty.own_keys(keys)
  shrink = penalty.penalty.batch_shrink
  if len(keys) % shrink:
    raise UserError(
      f'batch_shrink={shrink} of {penalty.name} must divide the batch size '
      f'per device, {len(keys)}: set it to 1, or another batch size'
    )
  part, keys = jax.tree.map(lambda x: x[::shrink], (context.inputs, keys))
  generate, latents = networks.penalty_inputs(gen_vars, part, phase)
  mean = lambda x: axis.mean(jnp.mean(x), axis_name)
  state = context.game_state[penalty.name]
  inputs = GenPenaltyInputs(generate, latents, keys, state, mean, params)
  value, state = penalty.penalty.value(inputs)
  return weight_of(penalty, phase) * value, value, {penalty.name: state}


def _adapt(
  networks: ImageNetworks,
  loss: GANLoss,
  context: Context,
  out: DiscOutput,
  phase: Phase,
  axis_name: str | None,
) -> tuple[dict[str, PyTree], dict[str, Array]]:
  """Returns the new state of the adaptive augmentation, and its metrics."""
  ada, state = networks.discriminate.ada, ada_state(context)
  if ada is None:
    return {}, {}
  metrics = {'ada_p': jnp.float32(ada.probability(state, phase.values))}
  if state is None:
    return {}, metrics
  signs = jnp.sign(loss.real_score(out.inputs.real_logits))
  signs = jnp.mean(signs.reshape(len(signs), -1), 1)  # of patches, per image
  signs = axis.gather(jax.lax.stop_gradient(signs), axis_name)
  metrics['ada_sign'] = jnp.mean(signs)
  return {ADA_STATE: ada.update(state, signs)}, metrics


def weight_of(penalty: WeightedPenalty, phase: Phase) -> Scalar:
  """Returns the weight of a penalty: the scheduled one if there is one."""
  return phase.values.get(penalty.schedule_key, penalty.weight)


def _merge(context: Context, state: dict[str, PyTree]) -> PyTree:
  """Merges new penalty states into the game state; None: nothing is new."""
  return {**context.game_state, **state} if state else None
