"""Regularisers of D, added to its loss: each with its equation and paper.

A penalty is a function of what D was shown in a step, and said. D is
differentiated in its images here, and by the move in its parameters: twice. An
image's gradient is that of the sum of all logits: exact where D judges each by
itself; what minibatch statistics add is left in, as in the reference codes. A
new penalty is a function that returns one, and a row in PENALTIES.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError

Images = Float[Array, 'n *s']
Logits = Float[Array, ' n']
Scalar = Float[Array, '']


class PenaltyInputs(NamedTuple):
  """What D was shown in a step, and what it said.

  Attributes:
    judge: (images) -> logits: D, as it is in this step.
    real, fake: The images, constant for the gradient.
    real_logits, fake_logits: What D says of them.
    keys: One an example, for what the penalty draws.
  """

  judge: Callable[[Images], Logits]
  real: Images
  fake: Images
  real_logits: Logits
  fake_logits: Logits
  keys: Key[Array, ' n']


Penalty = Callable[[PenaltyInputs], Scalar]


class WeightedPenalty(NamedTuple):
  """A penalty, as D's loss has it.

  Attributes:
    name: It is logged as `disc/NAME`, without its weight.
    of: (what D was shown) -> its value.
    weight: What it is multiplied by.
    every: Of 2 or more: a move of its own at every so many of D's steps, as
      many times as strong (StyleGAN2's lazy regularisation; Adam's rate and
      betas are not corrected, as they are there).
  """

  name: str
  of: Penalty
  weight: float
  every: int = 1

  def value(self, shown: PenaltyInputs) -> Scalar:
    """The penalty, which draws for itself."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    own = fold(shown.keys, zlib.crc32(self.name.encode()))
    return self.of(shown._replace(keys=own))


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

  def penalty(shown: PenaltyInputs) -> Scalar:
    t = jax.vmap(jax.random.uniform)(shown.keys)
    t = t.reshape(-1, *[1] * (shown.real.ndim - 1))
    between = shown.real + t * (shown.fake - shown.real)
    beyond = _norms(squared_gradients(shown.judge, between)) - target
    if one_sided:
      beyond = jnp.maximum(beyond, 0.0)
    return jnp.mean(jnp.square(beyond)) / target**2

  return penalty


def r1() -> Penalty:
  """E |grad_x D(x)|^2 / 2 at the reals. Mescheder et al. 2018, equation 9."""
  return lambda shown: jnp.mean(squared_gradients(shown.judge, shown.real)) / 2


def r2() -> Penalty:
  """E |grad_x D(x)|^2 / 2 at the fakes. Mescheder et al. 2018, equation 10."""
  return lambda shown: jnp.mean(squared_gradients(shown.judge, shown.fake)) / 2


def dragan(target: float = 1.0, deviation: float = 0.5) -> Penalty:
  """E (|grad_x D(x + d)| - target)^2, d ~ N(0, deviation^2), x a real.

  Near the data alone. Kodali et al. 2017 (DRAGAN): the paper's penalty, whose
  noise is N(0, c I), with c = deviation^2. The authors' code has other noise:
  u * 0.5 * std(X) * v, where std(X) is that of all pixels of the batch, v ~
  U(0, 1) of each pixel and u ~ U(0, 1) of each image. It is never negative,
  scales with the data, and is smaller than ours for images in [-1, 1].
  """

  def penalty(shown: PenaltyInputs) -> Scalar:
    draw = lambda key: jax.random.normal(key, shown.real.shape[1:])
    near = shown.real + deviation * jax.vmap(draw)(shown.keys)
    norms = _norms(squared_gradients(shown.judge, near))
    return jnp.mean(jnp.square(norms - target))

  return penalty


def drift() -> Penalty:
  """E D(x)^2 of the reals: holds the logits near 0. Karras et al. 2018, A.1."""
  return lambda shown: jnp.mean(jnp.square(shown.real_logits))


def squared_gradients(
  judge: Callable[[Images], Logits], images: Images
) -> Logits:
  """|grad_x D(x)|^2 of each image."""
  grads = jax.grad(lambda x: jnp.sum(judge(x)))(images)
  return jnp.sum(jnp.square(grads), tuple(range(1, images.ndim)))


def _norms(squares: Logits) -> Logits:
  """Square roots; the derivative at 0 is 0, not NaN."""
  there = squares > 0
  return jnp.where(there, jnp.sqrt(jnp.where(there, squares, 1.0)), 0.0)


PENALTIES: dict[str, Callable[..., Penalty]] = {
  'dragan': dragan,
  'drift': drift,
  'gradient_penalty': gradient_penalty,
  'r1': r1,
  'r2': r2,
}
