"""BiGAN: an image game whose generator has an encoder beside it.

D tells pairs (x, E(x)) of reals from pairs (G(z), z) of fakes; at the optimum,
E is G's inverse (Donahue et al. 2017; Dumoulin et al. 2017, ALI).
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.games.discriminate import ONCE, apply_training, disc_metrics
from gan_jax.games.game import Aux, Batch, Game, Keys, Output, Phase, Update
from gan_jax.games.latents import Latent, truncate
from gan_jax.games.losses import GANLoss
from gan_jax.pair import Pair, Variables, join_networks, network_of

Logits = Float[Array, ' n']


def bigan_game(
  gen: nn.Module,
  disc: nn.Module,
  encoder: nn.Module,
  *,
  loss: GANLoss,
  latent: Latent,
  latent_dim: int,
) -> Game:
  """Makes the game of BiGAN.

  Args:
    gen: (z [n, d], keys, train) -> images [n, h, w, c].
    disc: (images, keys, train, labels) -> logits [n]; z is passed as `labels`.
    encoder: (images, keys, train) -> (unused, z [n, d]).
    loss: The losses. The encoder's is G's with the pairs exchanged.
    latent, latent_dim: The distribution of z, and d.
  """

  def init(key: Key[Array, ''], batch: Batch) -> tuple[Pair[Variables], PyTree]:
    gen_key, encoder_key, disc_key = jax.random.split(key, 3)
    images = batch['images']
    keys, z = jax.random.split(key, len(images)), jnp.zeros((1, latent_dim))
    z = jnp.broadcast_to(z, (len(images), latent_dim))
    players = {
      'gen': gen.init(gen_key, z, keys, train=False),
      'encoder': encoder.init(encoder_key, images, keys, train=False),
    }
    disc_vars = disc.init(disc_key, images, keys, train=False, labels=z)
    return Pair(gen=join_networks(players), disc=disc_vars), ()

  def sample_inputs(keys: Keys, batch: Batch, phase: Phase) -> PyTree:
    """Samples latents; in training, the encoder's images are inputs too."""
    del phase
    pairs = jax.vmap(jax.random.split)(keys)
    z = jax.vmap(lambda key: latent.draw(key, latent_dim))(pairs[:, 0])
    real = {'images': batch['images']} if 'images' in batch else {}
    return {'z': z, 'keys': pairs[:, 1], **real}

  def generate(
    gen_vars: Variables, inputs: PyTree, phase: Phase
  ) -> tuple[PyTree, Variables]:
    del phase
    keys = inputs['keys']
    fold = jax.vmap(lambda key: jax.random.fold_in(key, 1))
    images, new_gen = apply_training(
      gen, network_of(gen_vars, 'gen'), inputs['z'], keys
    )
    outputs, new_encoder = apply_training(
      encoder,
      network_of(gen_vars, 'encoder'),
      inputs['images'],
      fold(keys),
    )
    _, z = outputs
    collections = join_networks({'gen': new_gen, 'encoder': new_encoder})
    return {'images': images, 'z': z}, collections

  def sample(gen_vars: Variables, inputs: PyTree, phase: Phase) -> Array:
    del phase
    z, keys = inputs['z'], inputs['keys']
    return gen.apply(network_of(gen_vars, 'gen'), z, keys, train=False)

  def logits_of(
    disc_vars: Variables, context, fakes: PyTree, keys: Keys
  ) -> tuple[Logits, Logits, Variables]:
    """Returns D's logits of both kinds of pairs, and its collections."""
    keys = jax.vmap(jax.random.split)(keys)
    x, z = context.inputs['images'], context.inputs['z']
    real, new = apply_training(
      disc, disc_vars, x, keys[:, 0], labels=fakes['z']
    )
    disc_vars = {**disc_vars, **new}
    fake, newer = apply_training(
      disc, disc_vars, fakes['images'], keys[:, 1], ONCE, labels=z
    )
    return real, fake, {**new, **newer}

  def disc_loss(params, context, batch, fakes, keys, phase):
    disc_vars = {**context.variables.disc, 'params': params}
    real, fake, collections = logits_of(disc_vars, context, fakes, keys)
    metrics = disc_metrics(loss, real, fake)
    return loss.disc(real, fake), Aux(metrics, collections)

  def gen_loss(params, context, batch, fakes, keys, phase):
    real, fake, _ = logits_of(context.variables.disc, context, fakes, keys)
    of_gen, of_encoder = loss.gen(real, fake), loss.gen(-fake, -real)
    metrics = {'images_loss': of_gen, 'encoder_loss': of_encoder}
    return of_gen + of_encoder, Aux(metrics)

  def encode(variables: Pair[Variables], batch: Batch, phase: Phase) -> PyTree:
    del phase
    images = batch['images']
    keys = jax.vmap(jax.random.key)(jnp.zeros(len(images), int))
    encoder_vars = network_of(variables.gen, 'encoder')
    _, z = encoder.apply(encoder_vars, images, keys, train=False)
    return {'z': z}

  def interpolate(a: PyTree, b: PyTree, t: Float[Array, ' n']) -> PyTree:
    return {**a, 'z': latent.interpolate(a['z'], b['z'], t)}

  return Game(
    init=init,
    sample_inputs=sample_inputs,
    generate=generate,
    outputs={'images': Output(sample)},
    updates=Pair(gen=(Update(gen_loss),), disc=(Update(disc_loss),)),
    encode=encode,
    interpolate=interpolate,
    truncate=partial(truncate, latent) if latent.truncate else None,
    ema_copies=ONCE,
  )
