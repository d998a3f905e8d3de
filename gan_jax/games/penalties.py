"""Regularisers of both players, each with its equation and paper.

A penalty of D is a function of D's inputs and outputs in one update. It
differentiates D with respect to images, and the update differentiates the
penalty with respect to parameters. An image's gradient is that of the sum of
all logits: exact where D judges each image by itself; minibatch statistics
contribute too, as in the reference codes. A new penalty is a function that
returns one and a row in PENALTIES, or in GEN_PENALTIES for G.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.errors import UserError

Images = Float[Array, 'n *s']
Logits = Float[Array, ' n']
Scalar = Float[Array, '']


class PenaltyInputs(NamedTuple):
  """The inputs and outputs of D in one update.

  Attributes:
    discriminate: (images) -> logits: D with its current parameters.
    real, fake: Images, constant for the gradient.
    real_logits, fake_logits: D's logits of them.
    keys: One per example, for the penalty's own randomness.
  """

  discriminate: Callable[[Images], Logits]
  real: Images
  fake: Images
  real_logits: Logits
  fake_logits: Logits
  keys: Key[Array, ' n']


class GenPenaltyInputs(NamedTuple):
  """G in one update of its own.

  Attributes:
    generate: (z) -> images: G with its current parameters, everything but z
      fixed.
    z: Latents of the batch.
    keys: One per example, for the penalty's own randomness.
    state: What the penalty returned after its previous update.
    mean: (x [n]) -> the mean over the batch of all devices.
  """

  generate: Callable[[Array], Images]
  z: Float[Array, 'n d']
  keys: Key[Array, ' n']
  state: PyTree
  mean: Callable[[Float[Array, ' n']], Scalar] = jnp.mean


Penalty = Callable[[PenaltyInputs], Scalar]


class GenPenalty(NamedTuple):
  """A penalty of G.

  Attributes:
    value: (inputs) -> (penalty, new state).
    init: The state before the first update.
  """

  value: Callable[[GenPenaltyInputs], tuple[Scalar, PyTree]]
  init: PyTree = ()


P = TypeVar('P')


class _WeightedPenalty(NamedTuple):
  name: str
  penalty: Any
  weight: float
  every: int = 1
  schedule_key: str = ''


class WeightedPenalty(_WeightedPenalty, Generic[P]):
  """A penalty with its weight and interval.

  Attributes:
    name: It is logged as `disc/NAME` or `gen/NAME`, without its weight.
    penalty: The penalty.
    weight: Multiplies the penalty.
    every: 1 adds the penalty to the player's loss. A larger interval makes it
      an update of its own in every `every`-th step, `every` times as strong
      (StyleGAN2's lazy regularisation; see `optimizers.adam` for its
      correction of Adam).
    schedule_key: The name of the scheduled value that replaces `weight`.
  """

  __slots__ = ()

  def own_keys(self, keys: Key[Array, ' n']) -> Key[Array, ' n']:
    """The keys of this penalty: no two penalties share randomness."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return fold(keys, zlib.crc32(self.name.encode()))


def value_of(
  weighted: WeightedPenalty[Penalty], inputs: PenaltyInputs
) -> Scalar:
  """The value of a penalty of D, without its weight."""
  return weighted.penalty(inputs._replace(keys=weighted.own_keys(inputs.keys)))


def gradient_penalty(target: float = 1.0, one_sided: bool = False) -> Penalty:
  """E (|grad_x D(x)| - target)^2 / target^2, x between a real and a fake.

  Gulrajani et al. 2017, equation 3: x = real + t (fake - real), t ~ U(0, 1) of
  each pair. Divided by target^2, as Karras et al. 2018 have it of CIFAR-10.

  Args:
    target: The norm that is asked for.
    one_sided: Larger norms alone are penalised (section 4).
  """
  if not target > 0:
    raise UserError(f'target={target} of gradient_penalty must be positive')

  def penalty(inputs: PenaltyInputs) -> Scalar:
    t = jax.vmap(jax.random.uniform)(inputs.keys)
    t = t.reshape(-1, *[1] * (inputs.real.ndim - 1))
    between = inputs.real + t * (inputs.fake - inputs.real)
    beyond = _norms(squared_gradients(inputs.discriminate, between)) - target
    if one_sided:
      beyond = jnp.maximum(beyond, 0.0)
    return jnp.mean(jnp.square(beyond)) / target**2

  return penalty


def r1() -> Penalty:
  """E |grad_x D(x)|^2 / 2 at the reals. Mescheder et al. 2018, equation 9."""
  return lambda inputs: (
    jnp.mean(squared_gradients(inputs.discriminate, inputs.real)) / 2
  )


def r2() -> Penalty:
  """E |grad_x D(x)|^2 / 2 at the fakes. Mescheder et al. 2018, equation 10."""
  return lambda inputs: (
    jnp.mean(squared_gradients(inputs.discriminate, inputs.fake)) / 2
  )


def dragan(target: float = 1.0, std: float = 0.5) -> Penalty:
  """E (|grad_x D(x + d)| - target)^2, d ~ N(0, std^2), x a real.

  Near the data alone. Kodali et al. 2017 (DRAGAN): the paper's penalty, whose
  noise is N(0, c I), with c = std^2. The authors' code has other noise:
  u * 0.5 * std(X) * v, where std(X) is that of all pixels of the batch, v ~
  U(0, 1) of each pixel and u ~ U(0, 1) of each image. It is never negative,
  scales with the data, and is smaller than ours for images in [-1, 1].
  """

  def penalty(inputs: PenaltyInputs) -> Scalar:
    draw = lambda key: jax.random.normal(key, inputs.real.shape[1:])
    near = inputs.real + std * jax.vmap(draw)(inputs.keys)
    norms = _norms(squared_gradients(inputs.discriminate, near))
    return jnp.mean(jnp.square(norms - target))

  return penalty


def drift() -> Penalty:
  """E D(x)^2 of the reals: holds the logits near 0. Karras et al. 2018, A.1."""
  return lambda inputs: jnp.mean(jnp.square(inputs.real_logits))


def squared_gradients(
  discriminate: Callable[[Images], Logits], images: Images
) -> Logits:
  """|grad_x D(x)|^2 of each image."""
  grads = jax.grad(lambda x: jnp.sum(discriminate(x)))(images)
  return jnp.sum(jnp.square(grads), tuple(range(1, images.ndim)))


def _norms(squares: Logits) -> Logits:
  """Square roots; the derivative at 0 is 0, not NaN."""
  there = squares > 0
  return jnp.where(there, jnp.sqrt(jnp.where(there, squares, 1.0)), 0.0)


def path_length(decay: float = 0.01) -> GenPenalty:
  """E (|J^T y| - a)^2: a fixed step in z changes the image by a fixed amount.

  J is the Jacobian of G at z, y ~ N(0, I) / sqrt(pixels), and `a` the running
  mean of |J^T y|, which moves by `decay` in each update. Karras et al. 2020
  (StyleGAN2), equation 4, with z in place of their w.
  """

  def value(inputs: GenPenaltyInputs) -> tuple[Scalar, PyTree]:
    images, pull_back = jax.vjp(inputs.generate, inputs.z)
    draw = lambda key: jax.random.normal(key, images.shape[1:])
    pixels = math.prod(images.shape[1:-1])
    (gradients,) = pull_back(jax.vmap(draw)(inputs.keys) / math.sqrt(pixels))
    lengths = _norms(jnp.sum(jnp.square(gradients), axis=-1))
    mean = inputs.state + decay * (inputs.mean(lengths) - inputs.state)
    mean = jax.lax.stop_gradient(mean)
    return jnp.mean(jnp.square(lengths - mean)), mean

  return GenPenalty(value, jnp.float32(0))


PENALTIES: dict[str, Callable[..., Penalty]] = {
  'dragan': dragan,
  'drift': drift,
  'gradient_penalty': gradient_penalty,
  'r1': r1,
  'r2': r2,
}

GEN_PENALTIES: dict[str, Callable[..., GenPenalty]] = {
  'path_length': path_length,
}
