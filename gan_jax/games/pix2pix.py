"""pix2pix: translation of images, learnt from pairs."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

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
  Images,
  critic_loss,
  frozen_logits,
  generate_from_images,
  mean_absolute,
  sample_from_images,
  translation_direction,
)
from gan_jax.pair import Pair


class Pix2Pix(NamedTuple):
  """The networks and weights of pix2pix (Isola et al. 2017).

  Attributes:
    gen: (images, keys [n], train) -> images.
    disc: (both images, concatenated along the channels, keys [n], train) ->
      logits.
    loss: The losses of both players, on logits.
    pixel: Weight of the mean absolute difference from the target.
    given, target: The entries of a batch: G maps one to the other.
    axis_name: The device axis under pmap.
  """

  gen: nn.Module
  disc: nn.Module
  loss: GANLoss
  pixel: float
  given: str
  target: str
  axis_name: str | None

  def init(self, key: Key[Array, ''], batch: Batch) -> tuple[Pair, tuple]:
    """Initializes both networks."""
    gen_key, disc_key = jax.random.split(key)
    given, target = (batch[x][:1] for x in (self.given, self.target))
    keys = jax.random.split(gen_key, 1)
    both = jnp.concatenate([given, target], axis=-1)
    variables = Pair(
      self.gen.init(gen_key, given, keys, False),
      self.disc.init(disc_key, both, keys, False),
    )
    return variables, ()

  def sample_inputs(self, keys: Keys, batch: Batch, phase: Phase) -> PyTree:
    """Returns the given images, with keys for the dropout."""
    del phase
    return {'keys': keys, 'images': batch[self.given]}

  def _beside(self, batch: Batch, images: Images) -> Float[Array, 'n h w d']:
    """Concatenates images to the given ones, as D's inputs."""
    return jnp.concatenate([batch[self.given], images], axis=-1)

  def disc_loss(
    self,
    params: PyTree,
    context: Context,
    batch: Batch,
    fakes: Images,
    keys: Keys,
    phase: Phase,
  ) -> tuple[Float[Array, ''], Aux]:
    """Computes D's loss on real and generated pairs."""
    del phase
    total, metrics, new = critic_loss(
      self.loss,
      self.disc,
      {**context.variables.disc, 'params': params},
      self._beside(batch, batch[self.target]),
      self._beside(batch, fakes),
      keys,
      self.axis_name,
    )
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
    """Sums the adversarial and the L1 loss: Isola et al. 2017, equation 4.

    Its gradient passes through the fakes.
    """
    del params, phase
    disc_vars = context.variables.disc
    logits = lambda images: frozen_logits(
      self.disc, disc_vars, self._beside(batch, images), keys, self.axis_name
    )
    adversarial = self.loss.gen(logits(batch[self.target]), logits(fakes))
    pixel = mean_absolute(fakes, batch[self.target])
    total = adversarial + self.pixel * pixel
    return total, Aux({'adversarial': adversarial, 'pixel_loss': pixel})


def pix2pix_game(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: GANLoss,
  pixel: float,
  direction: str,
  axis_name: str | None = None,
) -> Game:
  """Makes a pix2pix game.

  Args:
    gen, disc, loss, pixel: See `Pix2Pix`.
    direction: A key of DIRECTIONS.
  """
  given, target = translation_direction(direction)
  networks = Pix2Pix(gen, disc, loss, pixel, given, target, axis_name)
  output = Output(
    partial(sample_from_images, gen),
    reference=networks.target,
    given=lambda batch: batch[networks.given],
    target=lambda batch: batch[networks.target],
    inputs_of=lambda images, keys: {'images': images, 'keys': keys},
  )
  return Game(
    init=networks.init,
    sample_inputs=networks.sample_inputs,
    generate=partial(generate_from_images, gen),
    outputs={direction: output},
    updates=Pair(
      gen=(Update(networks.gen_loss),), disc=(Update(networks.disc_loss),)
    ),
    reads=('a', 'b'),
  )
