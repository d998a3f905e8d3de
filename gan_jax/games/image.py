"""The image game: G maps latents to images, D classifies them as real or fake.

Its parts can be used by other games: the networks with their conditioning
(games/image_networks.py) and the updates of each player
(games/image_updates.py).
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn

from gan_jax.errors import UserError
from gan_jax.games.ada import Ada
from gan_jax.games.augment import Augment
from gan_jax.games.discriminate import (
  ONCE,
  Discriminate,
)
from gan_jax.games.game import (
  Game,
  Output,
  Phase,
)
from gan_jax.games.image_networks import ADA_STATE, ImageNetworks, Images
from gan_jax.games.image_updates import disc_updates, gen_updates
from gan_jax.games.latents import Latent, truncate
from gan_jax.games.losses import GANLoss
from gan_jax.games.penalties import (
  GenPenalty,
  Penalty,
  StatefulPenalty,
  WeightedPenalty,
)
from gan_jax.pair import Pair


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
