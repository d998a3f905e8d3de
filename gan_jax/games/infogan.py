"""InfoGAN: an image game with codes that D's second head can read.

Part of G's input is a categorical code c and continuous codes u. Q, which
shares D's layers, predicts them from the fakes. G and Q maximize a lower bound
of the mutual information of the codes and the image, E log Q(c, u | G(z, c, u))
plus the constant entropy of the codes (Chen et al. 2016, equation 5).
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gan_jax.games.discriminate import (
  ONCE,
  Discriminate,
  class_loss,
  disc_metrics,
)
from gan_jax.games.game import Aux, Batch, Game, Keys, Output, Phase, Update
from gan_jax.games.image_networks import ImageNetworks
from gan_jax.games.latents import Latent, truncate
from gan_jax.games.losses import GANLoss
from gan_jax.pair import Pair, Variables

Scalar = Float[Array, '']


def infogan_game(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: GANLoss,
  latent: Latent,
  latent_dim: int,
  categories: int,
  codes: int = 0,
  class_weight: float = 1.0,
  code_weight: float = 0.1,
) -> Game:
  """Makes the game of InfoGAN.

  Args:
    gen: (z [n, latent_dim + categories + codes], keys, train) -> images.
    disc: (images, keys, train) -> logits [n], Q's outputs [n, q_outputs(...)].
    loss: The losses of both players, on logits.
    latent, latent_dim: The distribution of z, without the codes.
    categories: The number of values of the categorical code, uniform.
    codes: The number of continuous codes, each U(-1, 1).
    class_weight, code_weight: Weights of the bound's parts; the paper has 1 for
      the categorical code and 0.1 for the continuous codes.
  """
  conditioning = lambda phase, labels: {}
  discriminate = Discriminate(
    disc, conditioning, lambda images, phase: images, None, 1, 0, auxiliary=True
  )
  networks = ImageNetworks(
    gen,
    discriminate,
    conditioning,
    latent,
    latent_dim + categories + codes,
    0,
  )

  def sample_inputs(keys: Keys, batch: Batch, phase: Phase) -> PyTree:
    plain = networks._replace(latent_dim=latent_dim)
    inputs = plain.sample_inputs(keys, {}, phase)
    code_keys = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys)

    def draw(key):
      class_key, key = jax.random.split(key)
      c = jax.random.randint(class_key, (), 0, categories)
      u = jax.random.uniform(key, (codes,), minval=-1.0, maxval=1.0)
      return {'class': jax.nn.one_hot(c, categories), 'codes': u}

    return {**inputs, **jax.vmap(draw)(code_keys)}

  def information(outputs: Array, inputs: PyTree) -> tuple[Scalar, dict]:
    """Returns the negative bound, weighted, and metrics."""
    logits, mean, log_std = split_outputs(outputs, categories, codes)
    metrics = {'class_loss': class_loss(logits, inputs['class'])}
    right = logits.argmax(-1) == inputs['class'].argmax(-1)
    metrics['class_accuracy'] = jnp.mean(right)
    total = class_weight * metrics['class_loss']
    if codes:
      nll = gaussian_nll(inputs['codes'], mean, log_std)
      metrics['code_loss'] = nll
      total += code_weight * nll
    return total, metrics

  def disc_loss(params, context, batch, fakes, keys, phase):
    disc_vars = {**context.variables.disc, 'params': params}
    out = networks.disc_output(disc_vars, context, batch, fakes, keys, phase)
    bound, metrics = information(out.fake_classes, context.inputs)
    total = loss.disc(out.inputs.real_logits, out.inputs.fake_logits) + bound
    metrics |= disc_metrics(
      loss, out.inputs.real_logits, out.inputs.fake_logits
    )
    return total, Aux(metrics, collections=out.collections)

  def gen_loss(params, context, batch, fakes, keys, phase):
    disc_vars = context.variables.disc
    out = networks.disc_output(disc_vars, context, batch, fakes, keys, phase)
    bound, metrics = information(out.fake_classes, context.inputs)
    total = loss.gen(out.inputs.real_logits, out.inputs.fake_logits) + bound
    return total, Aux(metrics)

  def encode(variables: Pair[Variables], batch: Batch, phase: Phase) -> PyTree:
    images = batch['images']
    keys = jax.vmap(jax.random.key)(jnp.zeros(len(images), int))
    _, outputs = disc.apply(variables.disc, images, keys, False)
    logits, mean, _ = split_outputs(outputs, categories, codes)
    found = {'class': nn.softmax(logits)}
    return {**found, 'codes': mean} if codes else found

  def join(inputs: PyTree) -> PyTree:
    parts = [inputs['z'], inputs['class'], inputs['codes']]
    return {**inputs, 'z': jnp.concatenate(parts, axis=-1)}

  def interpolate(a: PyTree, b: PyTree, t: Float[Array, ' n']) -> PyTree:
    blend = lambda x, y: (1 - t)[:, None] * x + t[:, None] * y
    blended = {k: blend(a[k], b[k]) for k in ('class', 'codes')}
    return {**a, **blended, 'z': latent.interpolate(a['z'], b['z'], t)}

  def sample(gen_vars: Variables, inputs: PyTree, phase: Phase) -> Array:
    return networks.sample(gen_vars, join(inputs), phase)

  return Game(
    init=lambda key, batch: (networks.init(key, batch), ()),
    sample_inputs=sample_inputs,
    generate=lambda v, inputs, phase: networks.generate(v, join(inputs), phase),
    outputs={'images': Output(sample)},
    updates=Pair(gen=(Update(gen_loss),), disc=(Update(disc_loss),)),
    discriminate=partial(discriminate.single, loss),
    features=discriminate.features,
    encode=encode,
    interpolate=interpolate,
    truncate=partial(truncate, latent) if latent.truncate else None,
    ema_copies=ONCE,
  )


def q_outputs(categories: int, codes: int) -> int:
  """Returns the number of Q's outputs: logits, means and log stds."""
  return categories + 2 * codes


def split_outputs(
  outputs: Float[Array, 'n q'], categories: int, codes: int
) -> tuple[Array, Array, Array]:
  """Splits Q's outputs into logits, means and bounded log stds."""
  logits, mean, log_std = jnp.split(
    outputs, (categories, categories + codes), axis=-1
  )
  return logits, mean, jnp.clip(log_std, -4.0, 2.0)


def gaussian_nll(
  x: Float[Array, 'n d'],
  mean: Float[Array, 'n d'],
  log_std: Float[Array, 'n d'],
) -> Scalar:
  """Computes -E log N(x; mean, std^2), summed over the coordinates."""
  squares = jnp.square((x - mean) * jnp.exp(-log_std)) / 2
  constant = math.log(2 * math.pi) / 2
  return jnp.mean(jnp.sum(squares + log_std + constant, axis=-1))
