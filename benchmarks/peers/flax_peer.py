"""The networks in Flax as one would first write them: stock layers, one jit."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from turns import take_turns

family, batch, precision = sys.argv[1:]
batch, dtype = int(batch), jnp.dtype(precision)


class MlpGenerator(nn.Module):
  @nn.compact
  def __call__(self, z, train, key):
    for units in (256, 512, 1024):
      z = nn.relu(nn.Dense(units, dtype=dtype)(z))
    return jnp.tanh(nn.Dense(784, dtype=dtype)(z)).reshape(-1, 28, 28, 1)


class MlpDiscriminator(nn.Module):
  @nn.compact
  def __call__(self, x, train, key):
    x = x.reshape(len(x), -1)
    for index, units in enumerate((1024, 512, 256)):
      x = nn.leaky_relu(nn.Dense(units, dtype=dtype)(x), 0.2)
      x = nn.Dropout(0.3, deterministic=not train)(
        x, rng=jax.random.fold_in(key, index)
      )
    return nn.Dense(1, dtype=dtype)(x)[:, 0]


class Generator(nn.Module):
  @nn.compact
  def __call__(self, z, train, key):
    norm = lambda x: nn.relu(
      nn.BatchNorm(not train, momentum=0.9, dtype=dtype)(x)
    )
    up = lambda features, **at: nn.ConvTranspose(
      features, (4, 4), use_bias=False, dtype=dtype, **at
    )
    x = norm(up(512, padding='VALID')(z.reshape(-1, 1, 1, z.shape[-1])))
    for features in (256, 128, 64):
      x = norm(up(features, strides=(2, 2))(x))
    return jnp.tanh(up(3, strides=(2, 2))(x))


class Discriminator(nn.Module):
  @nn.compact
  def __call__(self, x, train, key):
    down = lambda features: nn.Conv(
      features, (4, 4), (2, 2), use_bias=False, dtype=dtype
    )
    x = nn.leaky_relu(down(64)(x), 0.2)
    for features in (128, 256, 512):
      x = nn.BatchNorm(not train, momentum=0.9, dtype=dtype)(down(features)(x))
      x = nn.leaky_relu(x, 0.2)
    x = nn.Conv(1, (4, 4), padding='VALID', use_bias=False, dtype=dtype)(x)
    return x.reshape(-1)


gen, disc, latent, image, b1 = {
  'mlp': (MlpGenerator(), MlpDiscriminator(), 64, (28, 28, 1), 0.0),
  'dcgan64': (Generator(), Discriminator(), 100, (64, 64, 3), 0.5),
}[family]
tx = optax.adam(2e-4, b1, 0.999)
key = jax.random.key(0)
data = jnp.asarray(
  np.random.default_rng(0).integers(0, 256, (1024, *image), np.uint8)
)


def initial(module, x):
  variables = dict(jax.jit(lambda: module.init(key, x, False, key))())
  params = variables.pop('params')
  return params, variables, tx.init(params)


def apply(module, params, stats, x, key):
  variables = {'params': params, **stats}
  return module.apply(variables, x, True, key, mutable=list(stats))


@jax.jit
def step(gen_state, disc_state, key):
  gen_params, gen_stats, gen_opt = gen_state
  disc_params, disc_stats, disc_opt = disc_state
  keys = jax.random.split(key, 6)
  index = jax.random.randint(keys[0], (batch,), 0, len(data))
  real = data[index].astype(jnp.float32) / 127.5 - 1
  z = jax.random.normal(keys[1], (batch, latent))

  def disc_loss(params):
    fake, _ = apply(gen, gen_params, gen_stats, z, keys[2])
    on_real, stats = apply(disc, params, disc_stats, real, keys[3])
    on_fake, stats = apply(disc, params, stats, fake, keys[4])
    loss = nn.softplus(-on_real).mean() + nn.softplus(on_fake).mean()
    return loss, stats

  grads, disc_stats = jax.grad(disc_loss, has_aux=True)(disc_params)
  updates, disc_opt = tx.update(grads, disc_opt)
  disc_params = optax.apply_updates(disc_params, updates)

  def gen_loss(params):
    fake, stats = apply(gen, params, gen_stats, z, keys[2])
    on_fake, _ = apply(disc, disc_params, disc_stats, fake, keys[5])
    return nn.softplus(-on_fake).mean(), stats

  grads, gen_stats = jax.grad(gen_loss, has_aux=True)(gen_params)
  updates, gen_opt = tx.update(grads, gen_opt)
  gen_params = optax.apply_updates(gen_params, updates)
  return (gen_params, gen_stats, gen_opt), (disc_params, disc_stats, disc_opt)


states = initial(gen, jnp.zeros((1, latent))), initial(disc, data[:1] * 1.0)


def run_step():
  global states, key
  key, step_key = jax.random.split(key)
  states = step(*states, step_key)


take_turns(run_step, lambda: jax.block_until_ready(states), batch)
