"""What the games that translate images share."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gan_jax.errors import UserError
from gan_jax.games.discriminate import apply_training, disc_metrics
from gan_jax.games.game import Batch, Keys, Output, Phase
from gan_jax.games.losses import GANLoss
from gan_jax.ops import axis
from gan_jax.pair import Variables

Images = Float[Array, 'n h w c']

# Each direction: its generator maps the images of one set to the other.
DIRECTIONS = {'a_to_b': ('a', 'b'), 'b_to_a': ('b', 'a')}


def translation_direction(direction: str) -> tuple[str, str]:
  """Returns the sets of `config.game.direction`: given, and target.

  Raises:
    UserError: The direction is unknown.
  """
  if direction not in DIRECTIONS:
    raise UserError(
      f'config.game.direction={direction!r} must be {" or ".join(DIRECTIONS)}'
    )
  return DIRECTIONS[direction]


def mean_absolute(x: Images, y: Images) -> Float[Array, '']:
  """Returns the mean absolute difference, E |x - y|."""
  return jnp.mean(jnp.abs(x - y))


def fold(keys: Keys, salt: int) -> Keys:
  """Returns other keys of the same examples."""
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, salt)


def critic_loss(
  loss: GANLoss,
  disc: nn.Module,
  disc_vars: Variables,
  real: Images,
  fake: Images,
  keys: Keys,
  axis_name: str | None,
) -> tuple[Float[Array, ''], dict[str, Array], Variables]:
  """Computes D's loss; returns it, its metrics and D's new collections.

  The logits are gathered from all devices, for losses that compare the examples
  of a batch.
  """
  real_logits, new = apply_training(disc, disc_vars, real, fold(keys, 0))
  disc_vars = {**disc_vars, **new}
  fake_logits, new = apply_training(disc, disc_vars, fake, fold(keys, 1))
  real_logits, fake_logits = axis.gather((real_logits, fake_logits), axis_name)
  metrics = disc_metrics(loss, real_logits, fake_logits)
  return loss.disc(real_logits, fake_logits), metrics, new


def frozen_logits(
  disc: nn.Module,
  disc_vars: Variables,
  images: Images,
  keys: Keys,
  axis_name: str | None,
) -> Float[Array, 'm ...']:
  """Returns D's logits for a loss of G, gathered from all devices.

  D's new collections are discarded.
  """
  logits, _ = apply_training(disc, disc_vars, images, keys)
  return axis.gather(logits, axis_name)


def generate_from_images(
  gen: nn.Module, gen_vars: Variables, inputs: PyTree, phase: Phase
) -> tuple[Images, Variables]:
  """Applies a G of images in training mode."""
  del phase
  return apply_training(gen, gen_vars, inputs['images'], inputs['keys'])


def sample_from_images(
  gen: nn.Module, gen_vars: Variables, inputs: PyTree, phase: Phase
) -> Images:
  """Applies a G of images in evaluation mode."""
  del phase
  return gen.apply(gen_vars, inputs['images'], inputs['keys'], False)


def unpaired_inputs(keys: Keys, batch: Batch, phase: Phase) -> PyTree:
  """Returns the images of both sets, with keys for the networks' noise."""
  del phase
  return {'keys': keys, **{x: batch[x] for x in 'ab' if x in batch}}


def unpaired_output(
  sample: Callable[[Variables, PyTree, Phase], Images], direction: str
) -> Output:
  """Makes the output of a direction: translations of one set to the other."""
  given, target = DIRECTIONS[direction]
  return Output(
    sample,
    reference=target,
    given=lambda batch: batch[given],
    inputs_of=lambda images, keys: {given: images, 'keys': keys},
  )
