"""The image game: G maps latents to images, D classifies them as real or fake.

Its parts can be used by other games: the networks with their conditioning
(`ImageNetworks`) and the updates of each player.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.errors import UserError
from gan_jax.games.ada import Ada
from gan_jax.games.augment import Augment
from gan_jax.games.discriminate import (
  ONCE,
  DiscOutput,
  Discriminate,
  apply_training,
  class_loss,
  disc_metrics,
  one_hot_labels,
)
from gan_jax.games.game import (
  Aux,
  Batch,
  Context,
  Game,
  Keys,
  Output,
  Phase,
  Scalar,
  Update,
)
from gan_jax.games.latents import Latent, truncate
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
from gan_jax.pair import Pair, Variables

Images = Float[Array, 'n h w c']
# The key of the game state under which the adaptive augmentation has its own;
# no penalty has such a name.
ADA_STATE = 'disc/ada'


class ImageNetworks(NamedTuple):
  """G and D of an image game, with their inputs and conditioning.

  Attributes:
    gen: (z [n, d], keys [n], train, **conditioning) -> images [n, h, w, c].
    discriminate: Applies D to reals and fakes.
    conditioning: (phase, labels) -> keyword arguments of both networks.
    latent, latent_dim: The distribution of z, and d.
    classes: Number of classes; 0: unconditional.
  """

  gen: nn.Module
  discriminate: Discriminate
  conditioning: Callable[[Phase | None, Any], dict[str, Any]]
  latent: Latent
  latent_dim: int
  classes: int

  def init(self, key: Key[Array, ''], batch: Batch) -> Pair[Variables]:
    """Initializes both networks."""
    gen_key, disc_key, rest = jax.random.split(key, 3)
    keys = jax.random.split(rest, len(batch['images']))
    z = jnp.zeros((len(keys), self.latent_dim))
    conditioning = self.conditioning(None, one_hot_labels(batch, self.classes))
    return Pair(
      gen=self.gen.init(gen_key, z, keys, train=False, **conditioning),
      disc=self.discriminate.init(disc_key, batch, keys),
    )

  def sample_inputs(self, keys: Keys, batch: Batch, phase: Phase) -> PyTree:
    """Samples latents and keys, and uniform labels if the batch has none."""
    del phase
    pairs = jax.vmap(jax.random.split)(keys)
    sample_z = jax.vmap(lambda key: self.latent.draw(key, self.latent_dim))
    z = sample_z(pairs[:, 0])
    inputs = {'z': z, 'keys': pairs[:, 1]}
    if self.classes:
      if 'labels' not in batch:
        uniform = lambda key: jax.random.randint(key, (), 0, self.classes)
        label_keys = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys)
        batch = {'labels': jax.vmap(uniform)(label_keys)}
      inputs['labels'] = one_hot_labels(batch, self.classes)
    return inputs

  def generate(
    self, gen_vars: Variables, inputs: PyTree, phase: Phase
  ) -> tuple[Images, Variables]:
    """Applies G in training mode; returns images and new collections."""
    conditioning = self.conditioning(phase, inputs.get('labels'))
    return apply_training(
      self.gen, gen_vars, inputs['z'], inputs['keys'], **conditioning
    )

  def sample(self, gen_vars: Variables, inputs: PyTree, phase: Phase) -> Images:
    """Applies G in evaluation mode."""
    conditioning = self.conditioning(phase, inputs.get('labels'))
    return self.gen.apply(
      gen_vars, inputs['z'], inputs['keys'], train=False, **conditioning
    )

  def penalty_inputs(
    self, gen_vars: Variables, inputs: PyTree, phase: Phase
  ) -> tuple[Callable[[Array], Images], Array]:
    """Returns what penalties of G differentiate: (z) -> images, and z."""
    generate = lambda z: self.generate(gen_vars, {**inputs, 'z': z}, phase)[0]
    return generate, inputs['z']

  def disc_output(
    self,
    disc_vars: Variables,
    context: Context,
    batch: Batch,
    fakes: Images,
    keys: Keys,
    phase: Phase,
  ) -> DiscOutput:
    """Applies D to the reals and the fakes of an update."""
    labels = context.inputs.get('labels')
    ada, p = self.discriminate.ada, 0.0
    if ada is not None:
      p = ada.probability(ada_state(context), phase.values)
    return self.discriminate(disc_vars, batch, fakes, labels, keys, phase, p)


def image_game(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: GANLoss,
  latent: Latent,
  latent_dim: int,
  penalties: Sequence[WeightedPenalty[Penalty]] = (),
  gen_penalties: Sequence[WeightedPenalty[GenPenalty]] = (),
  augment: Augment | None = None,
  ada: Ada | None = None,
  pack: int = 1,
  clip: float | None = None,
  classes: int = 0,
  auxiliary: Pair[float] | None = None,
  axis_name: str | None = None,
  networks: type[ImageNetworks] = ImageNetworks,
  stage: Callable[[Phase | None], dict[str, Any]] = lambda phase: {},
  reals: Callable[[Images, Phase], Images] = lambda images, phase: images,
) -> Game:
  """Makes an image game, unconditional or class-conditional.

  Args:
    gen: (z [n, d], keys [n], train, **conditioning) -> images [n, h, w, c].
    disc: (images, keys [n], train, **conditioning) -> logits [n]; with
      `auxiliary`, also the logits of the classes: ([n], [n, classes]).
    loss: The losses of both players, on logits.
    latent: The distribution of z.
    latent_dim: d.
    penalties: Penalties of D.
    gen_penalties: Penalties of G.
    augment: The augmentation pipeline for reals and fakes; None: none.
    ada: The adaptive augmentation, after `augment`; None: none.
    pack: Number of images that `augment` stacks into one input of D.
    clip: D's parameters are clipped to +-clip (Arjovsky et al. 2017). None:
      they are not.
    classes: Number of classes. Both networks get one-hot `labels`
      [n, classes]. 0: unconditional.
    auxiliary: Weights of the auxiliary classifier's cross-entropy: of reals and
      fakes in D's loss, of fakes in G's (Odena et al. 2017, AC-GAN, equation
      3). None: D has no auxiliary classifier.
    axis_name: The device axis under pmap.
    networks: How G is applied.
    stage: (phase) -> further conditioning of both networks; phase is None at
      initialization.
    reals: (images, phase) -> the reals as D's input, before augmentation.

  Raises:
    UserError: The arguments do not fit together.
  """
  if classes and pack > 1:
    raise UserError(
      f'config.game.pack={pack} does not support conditional games: set it to '
      '1, or config.data.classes to 0'
    )
  _check_calls(gen, disc, [*stage(None), *(['labels'] if classes else [])])

  def conditioning(phase, labels):
    return {**stage(phase), **({} if labels is None else {'labels': labels})}

  discriminate = Discriminate(
    disc,
    conditioning,
    reals,
    augment,
    pack,
    classes,
    auxiliary is not None,
    ada,
  )
  networks = networks(
    gen, discriminate, conditioning, latent, latent_dim, classes
  )
  state = {p.name: p.penalty.init for p in gen_penalties}
  state |= {
    f'penalties/{p.name}': p.penalty.init
    for p in penalties
    if isinstance(p.penalty, StatefulPenalty)
  }
  if ada is not None and ada.target is not None:
    state[ADA_STATE] = ada.init()
  return Game(
    init=lambda key, batch: (networks.init(key, batch), state or ()),
    sample_inputs=networks.sample_inputs,
    generate=networks.generate,
    outputs={'images': Output(networks.sample)},
    updates=Pair(
      gen=gen_updates(networks, loss, gen_penalties, auxiliary, axis_name),
      disc=disc_updates(networks, loss, penalties, auxiliary, clip, axis_name),
    ),
    discriminate=partial(discriminate.single, loss),
    features=discriminate.features,
    interpolate=partial(_interpolate, latent),
    truncate=partial(truncate, latent) if latent.truncate else None,
    ema_copies=ONCE,  # an average of unit vectors is not a unit vector
  )


def disc_updates(
  networks: ImageNetworks,
  loss: GANLoss,
  penalties: Sequence[WeightedPenalty[Penalty]] = (),
  auxiliary: Pair[float] | None = None,
  clip: float | None = None,
  axis_name: str | None = None,
) -> tuple[Update, ...]:
  """Makes D's updates: its loss with penalties, then each lazy penalty."""

  def penalized(penalty, context, out):
    """Returns a penalty without its weight, and the new game state."""
    inputs, name = out.inputs, f'penalties/{penalty.name}'
    if isinstance(penalty.penalty, StatefulPenalty):
      mean = lambda x: axis.mean(jnp.mean(x), axis_name)
      inputs = inputs._replace(state=context.game_state[name], mean=mean)
    value, state = value_of(penalty, inputs)
    return value, {} if state is None else {name: state}

  def disc_loss(params, context, *step_inputs):
    disc_vars = {**context.variables.disc, 'params': params}
    out = networks.disc_output(disc_vars, context, *step_inputs)
    metrics = disc_metrics(loss, out.inputs)
    total = loss.disc(out.inputs.real_logits, out.inputs.fake_logits)
    if auxiliary is not None:
      batch, phase = step_inputs[0], step_inputs[-1]
      labels = one_hot_labels(batch, networks.classes)
      fake_labels = context.inputs['labels']
      metrics['class_loss'] = class_loss(out.real_classes, labels)
      metrics['class_loss'] += class_loss(out.fake_classes, fake_labels)
      total += auxiliary.disc * metrics['class_loss']
    phase, new = step_inputs[-1], {}
    for penalty in penalties:
      if penalty.every == 1:
        metrics[penalty.name], state = penalized(penalty, context, out)
        total += weight_of(penalty, phase) * metrics[penalty.name]
        new.update(state)
    adapted, more = _adapt(networks, loss, context, out, phase, axis_name)
    metrics.update(more)
    new.update(adapted)
    return total, Aux(metrics, out.collections, _merge(context, new))

  def lazy_loss(penalty, params, context, *step_inputs):
    disc_vars = {**context.variables.disc, 'params': params}
    out = networks.disc_output(disc_vars, context, *step_inputs)
    value, new = penalized(penalty, context, out)
    weight = weight_of(penalty, step_inputs[-1])
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

  def penalized(penalty, params, context, keys, phase):
    """Returns the weighted penalty, its value and the new game state."""
    gen_vars = {**context.variables.gen, 'params': params}
    keys = penalty.own_keys(keys)
    shrink = penalty.penalty.batch_shrink
    if len(keys) % shrink:
      raise UserError(
        f'batch_shrink={shrink} of {penalty.name} must divide the batch size '
        f'per device, {len(keys)}: set it to 1, or another batch size'
      )
    part, keys = jax.tree.map(lambda x: x[::shrink], (context.inputs, keys))
    make, latents = networks.penalty_inputs(gen_vars, part, phase)
    mean = lambda x: axis.mean(jnp.mean(x), axis_name)
    inputs = GenPenaltyInputs(
      make,
      latents,
      keys,
      context.game_state[penalty.name],
      mean,
      params,
    )
    value, state = penalty.penalty.value(inputs)
    return weight_of(penalty, phase) * value, value, {penalty.name: state}

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
        weighted, metrics[penalty.name], new = penalized(
          penalty, params, context, keys, phase
        )
        total, state = total + weighted, {**state, **new}
    return total, Aux(metrics, game_state=_merge(context, state))

  def lazy_loss(penalty, params, context, batch, fakes, keys, phase):
    del batch, fakes
    weighted, value, state = penalized(penalty, params, context, keys, phase)
    aux = Aux({penalty.name: value}, game_state=_merge(context, state))
    return weighted, aux

  lazy = (
    Update(partial(lazy_loss, p), p.every, name=f'weighted_{p.name}')
    for p in penalties
    if p.every > 1
  )
  return (Update(gen_loss), *lazy)


def ada_state(context: Context) -> PyTree:
  """Returns the state of the adaptive augmentation; None: p does not adapt."""
  state = context.game_state
  return state.get(ADA_STATE) if isinstance(state, dict) else None


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
  signs = axis.gather(jax.lax.stop_gradient(signs), axis_name)
  metrics['ada_sign'] = jnp.mean(signs)
  return {ADA_STATE: ada.update(state, signs)}, metrics


def weight_of(penalty: WeightedPenalty, phase: Phase) -> Scalar:
  """Returns the scheduled weight of a penalty, or else its constant one."""
  return phase.values.get(penalty.schedule_key, penalty.weight)


def _merge(context: Context, state: dict[str, PyTree]) -> PyTree:
  """Merges new penalty states into the game state; None: nothing is new."""
  return {**context.game_state, **state} if state else None


def _check_calls(gen: nn.Module, disc: nn.Module, names: Sequence[str]) -> None:
  """Raises UserError for networks that do not accept the game's arguments."""
  arguments = dict.fromkeys(('train', *names))
  for player, first, module in (
    ('generator', 'z', gen),
    ('discriminator', 'images', disc),
  ):
    signature = inspect.signature(type(module).__call__)
    if player == 'generator' and 'images' in signature.parameters:
      raise UserError(
        f'{type(module).__name__} maps images to images, but the generator of '
        'this game maps latents to images: choose another config.model.gen.name'
      )
    try:
      signature.bind(module, first, 'keys', **arguments)
      known = 'train' in signature.parameters  # not swallowed by **kwargs
    except TypeError:
      known = False
    if not known:
      takes = ', '.join(list(signature.parameters)[1:])
      raise UserError(
        f'the {player} is called with ({first}, keys, {", ".join(arguments)}), '
        f'but {type(module).__name__} takes ({takes}): change its __call__'
      )


def _interpolate(latent, a, b, t):
  inputs = {**a, 'z': latent.interpolate(a['z'], b['z'], t)}
  if 'labels' in a:  # interpolates the class embeddings, linear in the labels
    labels = (1 - t)[:, None] * a['labels'] + t[:, None] * b['labels']
    inputs['labels'] = labels
  return inputs
