"""Super-resolution: the PSNR stage, SRGAN and ESRGAN.

Ledig et al. 2017; Wang et al. 2018. G enlarges images that were reduced as the
published scores assume: by MATLAB's bicubic filter, to 8 bits.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.errors import UserError
from gan_jax.games.game import (
  Aux,
  Batch,
  Context,
  Game,
  Keys,
  Output,
  Phase,
  Update,
)
from gan_jax.games.losses import GANLoss
from gan_jax.games.translation import (
  critic_loss,
  frozen_logits,
  generate_from_images,
  mean_absolute,
  sample_from_images,
)
from gan_jax.models.perceptual import FeatureNetwork
from gan_jax.ops.bicubic import imresize
from gan_jax.pair import Pair, Variables

Images = Float[Array, 'n h w c']

PIXEL_LOSSES: dict[str, Callable[[Images, Images], Array]] = {
  'l1': mean_absolute,
  'l2': lambda x, y: jnp.mean(jnp.square(x - y)),
}


class Weights(NamedTuple):
  """The weights of G's losses.

  Attributes:
    pixel: That of the difference from the target, in [-1, 1].
    feature: That of the mean absolute difference in features.
    adversarial: That of the loss of the GAN. 0: D is not trained.
  """

  pixel: float
  feature: float
  adversarial: float


def reduce(images: Images, scale: int) -> Float[Array, 'n H W c']:
  """Makes small images of 8 bits; in [-1, 1], as the images.

  Raises:
    UserError: The sides are not multiples of `scale`.
  """
  height, width = images.shape[1:3]
  if height % scale or width % scale:
    raise UserError(
      f'images of {height}x{width} pixels cannot be reduced by {scale}: set '
      f'config.data.resolution to a multiple of {scale}'
    )
  small = (imresize(images, 1 / scale) + 1) * 127.5
  return jnp.clip(jnp.round(small), 0, 255) / 127.5 - 1


class SuperResolution(NamedTuple):
  """The networks and losses of super-resolution.

  Attributes:
    gen: (small images, keys [n], train) -> images `scale` times as large.
    disc: (images, keys [n], train) -> logits.
    scale: Factor of both sides.
    loss: The losses of both players, on logits.
    pixel_loss: (images, targets) -> loss.
    weights: Those of G's losses.
    features: The frozen network of the feature loss; None: no such loss.
    axis_name: The device axis under pmap.
  """

  gen: nn.Module
  disc: nn.Module
  scale: int
  loss: GANLoss
  pixel_loss: Callable[[Images, Images], Array]
  weights: Weights
  features: FeatureNetwork | None
  axis_name: str | None

  def init(self, key: Key[Array, ''], batch: Batch) -> tuple[Pair, tuple]:
    """Initializes both networks; D has no parameters if it is not trained."""
    gen_key, disc_key = jax.random.split(key)
    images, keys = batch['images'][:1], jax.random.split(gen_key, 1)
    small = reduce(images, self.scale)
    disc: Variables = {'params': {}}
    if self.weights.adversarial:
      disc = self.disc.init(disc_key, images, keys, False)
    return Pair(self.gen.init(gen_key, small, keys, False), disc), ()

  def sample_inputs(self, keys: Keys, batch: Batch, phase: Phase) -> PyTree:
    """Reduces the images of the batch."""
    del phase
    return {'images': reduce(batch['images'], self.scale), 'keys': keys}

  def disc_loss(
    self,
    params: PyTree,
    context: Context,
    batch: Batch,
    fakes: Images,
    keys: Keys,
    phase: Phase,
  ) -> tuple[Float[Array, ''], Aux]:
    """Computes D's loss on the images and on G's."""
    del phase
    disc_vars = {**context.variables.disc, 'params': params}
    total, metrics, new = critic_loss(
      self.loss, self.disc, disc_vars, batch['images'], fakes, keys,
      self.axis_name,
    )  # fmt: skip
    return total, Aux(metrics, new)

  def gen_loss(
    self,
    params: PyTree,
    context: Context,
    batch: Batch,
    fakes: Images,
    keys: Keys,
    phase: Phase,
  ) -> tuple[Float[Array, ''], Aux]:
    """Sums the pixel, the feature and the adversarial loss.

    Wang et al. 2018, equation 3. Its gradient passes through the fakes.
    """
    del params, phase
    targets, weights = batch['images'], self.weights
    pixel = self.pixel_loss(fakes, targets)
    total, metrics = weights.pixel * pixel, {'pixel_loss': pixel}
    if self.features is not None:
      extract = lambda images: self.features.extract(context.frozen, images)
      distance = mean_absolute(extract(fakes), extract(targets))
      metrics['feature_loss'] = distance
      total += weights.feature * distance
    if weights.adversarial:
      logits = partial(
        frozen_logits, self.disc, context.variables.disc,
        keys=keys, axis_name=self.axis_name,
      )  # fmt: skip
      value = self.loss.gen(logits(targets), logits(fakes))
      metrics['adversarial'] = value
      total += weights.adversarial * value
    return total, Aux(metrics)


def super_resolution_game(
  gen: nn.Module,
  disc: nn.Module,
  *,
  scale: int,
  loss: GANLoss,
  pixel_loss: str,
  weights: Weights,
  features: FeatureNetwork | None = None,
  axis_name: str | None = None,
) -> Game:
  """Makes a super-resolution game; see `SuperResolution` for the arguments.

  `pixel_loss` is a key of PIXEL_LOSSES.
  """
  networks = SuperResolution(
    gen, disc, scale, loss, PIXEL_LOSSES[pixel_loss], weights, features,
    axis_name,
  )  # fmt: skip
  disc_updates = (Update(networks.disc_loss),) if weights.adversarial else ()
  output = Output(
    partial(sample_from_images, gen),
    given=lambda batch: reduce(batch['images'], scale),
    target=lambda batch: batch['images'],
    inputs_of=lambda images, keys: {'images': images, 'keys': keys},
    scale=scale,
  )
  return Game(
    init=networks.init,
    sample_inputs=networks.sample_inputs,
    generate=partial(generate_from_images, gen),
    outputs={'images': output},
    updates=Pair(gen=(Update(networks.gen_loss),), disc=disc_updates),
    reads=('images',),
    frozen=tuple if features is None else features.load,
  )
