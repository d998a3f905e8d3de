"""The game of images: G makes them of latents, D tells them from the real."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.errors import UserError
from gan_jax.games.augment import Sight
from gan_jax.games.discriminate import (
  Discriminate,
  apply_training,
  class_loss,
  disc_metrics,
  one_hot_labels,
)
from gan_jax.games.game import Aux, Game, Phase, Update
from gan_jax.games.latents import Latent
from gan_jax.games.losses import GANLoss
from gan_jax.games.penalties import WeightedPenalty
from gan_jax.pair import Pair

Images = Float[Array, 'n h w c']


def image_game(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: GANLoss,
  latent: Latent,
  latent_dim: int,
  penalties: Sequence[WeightedPenalty] = (),
  sight: Sight | None = None,
  pack: int = 1,
  clip: float | None = None,
  classes: int = 0,
  auxiliary: Pair[float] | None = None,
  stage: Callable[[Phase | None], dict[str, Any]] = lambda phase: {},
  reals: Callable[[Images, Phase], Images] = lambda images, phase: images,
) -> Game:
  """The game, of images alone or of images of classes.

  Args:
    gen: (z [n, d], keys [n], train, **told) -> images [n, h, w, c].
    disc: (images, keys [n], train, **told) -> logits [n]; where there is
      `auxiliary`, and of each class: ([n], [n, classes]).
    loss: Both players', on logits.
    latent: The distribution of z.
    latent_dim: d.
    penalties: Of D.
    sight: What is made of reals and fakes before D sees them.
    pack: Images in what D judges as one, by `sight`.
    clip: D's parameters are held to +- so much (Arjovsky et al. 2017).
    classes: How many; both are told `labels` [n, classes], 1 for the class and
      0 for the others. 0: they are told none.
    auxiliary: What the cross-entropy of the classes weighs: of reals and fakes
      in D's loss, of fakes in G's (AC-GAN: Odena et al. 2017, equation 3).
    stage: (phase) -> what else both are told of it; of None: when they are
      made.
    reals: (images, phase) -> the reals as D is shown them.
  """

  if classes and pack > 1:
    raise UserError('config.game.pack is of images without classes')
  _check_calls(gen, disc, [*stage(None), *(['labels'] if classes else [])])

  def told(phase, labels):
    return {**stage(phase), **({} if labels is None else {'labels': labels})}

  ask = Discriminate(
    disc, told, reals, sight, pack, classes, sorts=auxiliary is not None
  )

  def init(key, batch):
    gen_key, disc_key, rest = jax.random.split(key, 3)
    keys = jax.random.split(rest, len(batch['images']))
    z = jnp.zeros((len(keys), latent_dim))
    how = told(None, one_hot_labels(batch, classes))
    variables = Pair(
      gen=gen.init(gen_key, z, keys, train=False, **how),
      disc=ask.init(disc_key, batch, keys),
    )
    return variables, ()

  def sample_inputs(keys, batch, phase):
    del phase
    pairs = jax.vmap(jax.random.split)(keys)
    z = jax.vmap(lambda key: latent.draw(key, latent_dim))(pairs[:, 0])
    inputs = {'z': z, 'keys': pairs[:, 1]}
    if classes:
      if 'labels' not in batch:  # all classes are alike
        any_of = lambda key: jax.random.randint(key, (), 0, classes)
        own = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys)
        batch = {'labels': jax.vmap(any_of)(own)}
      inputs['labels'] = one_hot_labels(batch, classes)
    return inputs

  def generate(gen_vars, inputs, phase):
    how = told(phase, inputs.get('labels'))
    return apply_training(gen, gen_vars, inputs['z'], inputs['keys'], **how)

  def sample(gen_vars, inputs, phase):
    how = told(phase, inputs.get('labels'))
    return gen.apply(gen_vars, inputs['z'], inputs['keys'], train=False, **how)

  def asked(disc_vars, view, batch, fakes, keys, phase):
    fake_labels = view.inputs.get('labels')
    return ask(disc_vars, batch, fakes, fake_labels, keys, phase)

  def disc_loss(params, view, *hand):
    disc_vars = {**view.variables.disc, 'params': params}
    said = asked(disc_vars, view, *hand)
    shown, metrics = said.shown, disc_metrics(loss, said.shown)
    total = loss.disc(shown.real_logits, shown.fake_logits)
    if auxiliary is not None:
      labels = one_hot_labels(hand[0], classes)
      fake_labels = view.inputs['labels']
      metrics['class_loss'] = class_loss(said.real_classes, labels)
      metrics['class_loss'] += class_loss(said.fake_classes, fake_labels)
      total += auxiliary.disc * metrics['class_loss']
    for penalty in penalties:
      if penalty.every == 1:
        metrics[penalty.name] = penalty.value(shown)
        total += penalty.weight * metrics[penalty.name]
    return total, Aux(metrics, collections=said.collections)

  def lazy_loss(penalty, params, view, *hand):
    disc_vars = {**view.variables.disc, 'params': params}
    value = penalty.value(asked(disc_vars, view, *hand).shown)
    return penalty.weight * value, Aux({penalty.name: value})

  def gen_loss(params, view, *hand):
    del params  # G's gradient is pulled back through the fakes
    said = asked(view.variables.disc, view, *hand)
    total, metrics = (
      loss.gen(said.shown.real_logits, said.shown.fake_logits),
      {},
    )
    if auxiliary is not None:
      labels = view.inputs['labels']
      metrics['class_loss'] = class_loss(said.fake_classes, labels)
      total += auxiliary.gen * metrics['class_loss']
    return total, Aux(metrics)

  project = None
  if clip is not None:
    project = partial(jax.tree.map, lambda p: jnp.clip(p, -clip, clip))
  lazy = tuple(
    Update(
      partial(lazy_loss, p), p.every, name=f'weighted_{p.name}', project=project
    )
    for p in penalties
    if p.every > 1
  )
  disc_moves = (Update(disc_loss, project=project), *lazy)
  return Game(
    init=init,
    sample_inputs=sample_inputs,
    generate=generate,
    sample=sample,
    updates=Pair(gen=(Update(gen_loss),), disc=disc_moves),
    discriminate=partial(ask.alone, loss),
    interpolate=partial(_interpolate, latent),
    truncate=partial(_truncate, latent) if latent.truncate else None,
  )


def _check_calls(gen: nn.Module, disc: nn.Module, names: Sequence[str]) -> None:
  """Refuses networks that cannot be called as the game calls them."""
  arguments = dict.fromkeys(('train', *names))
  for player, first, module in (
    ('generator', 'z', gen),
    ('discriminator', 'images', disc),
  ):
    signature = inspect.signature(type(module).__call__)
    try:
      signature.bind(module, first, 'keys', **arguments)
      known = 'train' in signature.parameters  # not swallowed by **kwargs
    except TypeError:
      known = False
    if not known:
      takes = ', '.join(list(signature.parameters)[1:])
      raise UserError(
        f'the {player} is called with ({first}, keys, {", ".join(arguments)}), '
        f'and {type(module).__name__} takes ({takes}): define its __call__ so'
      )


def _interpolate(latent, a, b, t):
  mixed = {**a, 'z': latent.interpolate(a['z'], b['z'], t)}
  if 'labels' in a:  # and so what a linear layer makes of them
    mixed['labels'] = (1 - t)[:, None] * a['labels'] + t[:, None] * b['labels']
  return mixed


def _truncate(latent, inputs, threshold):
  return {**inputs, 'z': latent.truncate(inputs['z'], threshold)}
