"""InfoGAN (Chen et al. 2016) as a user writes it: in one file.

An input of G is a class c, for which the data has no labels: Q, a head of D,
recovers c from the fakes, and G is trained to make that possible.

  python launch.py --config=info_gan.py
"""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments import vanilla_mnist
from gan_jax.games.game import Aux, Game, Output, Update
from gan_jax.games.losses import non_saturating
from gan_jax.pair import Pair

HERE = Path(__file__)


class Generator(nn.Module):
  shape: tuple[int, ...]

  @nn.compact
  def __call__(self, z, code):
    x = nn.relu(nn.Dense(128)(jnp.concatenate([z, code], axis=-1)))
    pixels = 1
    for side in self.shape:
      pixels *= side
    return jnp.tanh(nn.Dense(pixels)(x)).reshape(-1, *self.shape)


class Discriminator(nn.Module):
  """Images -> logits of "real" [n], and Q's logits of the code [n, k]."""

  codes: int

  @nn.compact
  def __call__(self, images):
    x = images.reshape(len(images), -1)
    x = nn.leaky_relu(nn.Dense(128)(x), 0.2)
    return nn.Dense(1)(x)[:, 0], nn.Dense(self.codes)(x)


def info_gan(config: Any, axis_name: str | None = None) -> Game:
  """D and Q against G; G and Q maximise a bound on I(c; G(z, c))."""
  data, block, loss = config.data, config.game, non_saturating()
  gen = Generator((data.resolution, data.resolution, data.channels))
  disc = Discriminator(block.codes)

  def init(key, batch):
    gen_key, disc_key = jax.random.split(key)
    z, code = jnp.zeros((1, block.latent_dim)), jnp.zeros((1, block.codes))
    gen_vars = gen.init(gen_key, z, code)
    return Pair(gen=gen_vars, disc=disc.init(disc_key, batch['images'])), ()

  def sample_inputs(keys, batch, phase):
    def draw(key):
      z_key, code_key = jax.random.split(key)
      code = jax.random.randint(code_key, (), 0, block.codes)
      z = jax.random.normal(z_key, (block.latent_dim,))
      return {'z': z, 'code': jax.nn.one_hot(code, block.codes)}

    return jax.vmap(draw)(keys)

  def sample(gen_vars, inputs, phase):
    return gen.apply(gen_vars, inputs['z'], inputs['code'])

  def information(logits, inputs):
    loss = optax.softmax_cross_entropy(logits, inputs['code']).mean()
    accuracy = (logits.argmax(-1) == inputs['code'].argmax(-1)).mean()
    return loss, {'code_loss': loss, 'code_accuracy': accuracy}

  def disc_loss(params, context, batch, fakes, keys, phase):
    real, _ = disc.apply({'params': params}, batch['images'])
    fake, code = disc.apply({'params': params}, fakes)
    code_loss, metrics = information(code, context.inputs)
    return loss.disc(real, fake) + block.weight * code_loss, Aux(metrics)

  def gen_loss(params, context, batch, fakes, keys, phase):
    fake, code = disc.apply(context.variables.disc, fakes)
    code_loss, metrics = information(code, context.inputs)
    return loss.gen(fake, fake) + block.weight * code_loss, Aux(metrics)

  return Game(
    init=init,
    sample_inputs=sample_inputs,
    generate=lambda *args: (sample(*args), {}),
    outputs={'images': Output(sample)},
    updates=Pair(gen=(Update(gen_loss),), disc=(Update(disc_loss),)),
  )


def get_config(arg: str = '') -> ConfigDict:
  config = vanilla_mnist.get_config(arg)
  config.data.source = 'digits'
  config.game = ConfigDict(
    {
      'name': f'{HERE}:info_gan',
      'latent_dim': 32,
      'codes': 10,
      'weight': 1.0,
    }
  )
  config.model = ConfigDict()
  return config
