"""Regularization penalties of both players.

A penalty of D is a function of D's inputs and outputs in one update. It
differentiates D with respect to images, and the update differentiates the
penalty with respect to parameters. The gradient of an image is that of the sum
of all logits. With minibatch statistics, this includes the image's effect on
the other logits, as in the reference implementations. A new penalty is a
function that returns a Penalty and an entry in PENALTIES, or a GenPenalty and
an entry in GEN_PENALTIES.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.errors import UserError
from gan_jax.games.augment import mirror, translation

Images = Float[Array, 'n *s']
# [n]; [n, rows, columns] if D has a logit for each patch.
Logits = Float[Array, '*n']
Scalar = Float[Array, '']


class PenaltyInputs(NamedTuple):
  """The inputs and outputs of D in one update.

  Attributes:
    discriminate: (images) -> logits: D with its current parameters.
    real, fake: Images, constant for the gradient.
    real_logits, fake_logits: D's logits of these images.
    keys: One per example, for the penalty's own randomness.
    discriminate_fake: As `discriminate`, with the labels and the random keys of
      the fakes. None: `discriminate`.
    state: What a StatefulPenalty returned after its previous update.
    mean: (x [n]) -> the mean over the global batch.
  """

  discriminate: Callable[[Images], Logits]
  real: Images
  fake: Images
  real_logits: Logits
  fake_logits: Logits
  keys: Key[Array, ' n']
  discriminate_fake: Callable[[Images], Logits] | None = None
  state: PyTree = ()
  mean: Callable[[Logits], Scalar] = jnp.mean


class GenPenaltyInputs(NamedTuple):
  """The inputs of a penalty of G in one update.

  Attributes:
    generate: (z) -> images: G with its current parameters and fixed labels.
    z: Latents of the batch, or the w of each layer of a style-based G.
    keys: One per example, for the penalty's own randomness.
    state: What the penalty returned after its previous update.
    mean: (x [n]) -> the mean over the global batch.
    params: G's current parameters, for which the penalty is differentiated.
  """

  generate: Callable[[Array], Images]
  z: Float[Array, 'n ... d']
  keys: Key[Array, ' n']
  state: PyTree
  mean: Callable[[Float[Array, ' n']], Scalar] = jnp.mean
  params: PyTree = ()


Penalty = Callable[[PenaltyInputs], Scalar]


class StatefulPenalty(NamedTuple):
  """A penalty of D with a state that is kept between updates.

  Attributes:
    value: (inputs) -> (penalty, new state).
    init: The state before the first update.
  """

  value: Callable[[PenaltyInputs], tuple[Scalar, PyTree]]
  init: PyTree


class GenPenalty(NamedTuple):
  """A penalty of G.

  Attributes:
    value: (inputs) -> (penalty, new state).
    init: The state before the first update.
    batch_shrink: The penalty is computed on each `batch_shrink`-th example of
      the batch.
  """

  value: Callable[[GenPenaltyInputs], tuple[Scalar, PyTree]]
  init: PyTree = ()
  batch_shrink: int = 1


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
    name: The unweighted penalty is logged as `disc/NAME` or `gen/NAME`.
    penalty: The penalty.
    weight: Multiplies the penalty.
    every: 1 adds the penalty to the player's loss. A larger interval makes it
      a separate update in every `every`-th step, `every` times as strong: the
      lazy regularization of Karras et al. 2020 (StyleGAN2), appendix B. See
      `optimizers.adam` for the corresponding correction of Adam.
    schedule_key: The name of the scheduled value that replaces `weight`.
  """

  __slots__ = ()

  def own_keys(self, keys: Key[Array, ' n']) -> Key[Array, ' n']:
    """Returns the keys of this penalty: penalties do not share randomness."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return fold(keys, zlib.crc32(self.name.encode()))


def value_of(
  weighted: WeightedPenalty[Penalty | StatefulPenalty], inputs: PenaltyInputs
) -> tuple[Scalar, PyTree]:
  """Computes a penalty of D, without its weight, and its new state or None."""
  inputs = inputs._replace(keys=weighted.own_keys(inputs.keys))
  if isinstance(weighted.penalty, StatefulPenalty):
    return weighted.penalty.value(inputs)
  return weighted.penalty(inputs), None


def gradient_penalty(target: float = 1.0, one_sided: bool = False) -> Penalty:
  """Makes WGAN-GP's penalty, E (|grad_x D(x)| - target)^2 / target^2.

  x = real + t (fake - real), with t ~ U(0, 1) for each pair: Gulrajani et al.
  2017, equation 3. The division by target^2 is that of Karras et al. 2018 for
  CIFAR-10.

  Args:
    target: The target of the gradient norm.
    one_sided: Whether to penalize only norms above the target (section 4).

  Raises:
    UserError: The target is not positive.
  """
  if not target > 0:
    raise UserError(f'target={target} of gradient_penalty must be positive')

  def penalty(inputs: PenaltyInputs) -> Scalar:
    t = jax.vmap(jax.random.uniform)(inputs.keys)
    t = t.reshape(-1, *[1] * (inputs.real.ndim - 1))
    between = inputs.real + t * (inputs.fake - inputs.real)
    excess = _norms(squared_gradients(inputs.discriminate, between)) - target
    if one_sided:
      excess = jnp.maximum(excess, 0.0)
    return jnp.mean(jnp.square(excess)) / target**2

  return penalty


def r1() -> Penalty:
  """Makes the R1 penalty, E |grad_x D(x)|^2 / 2 at the reals.

  Mescheder et al. 2018, equation 9.
  """
  return lambda inputs: (
    jnp.mean(squared_gradients(inputs.discriminate, inputs.real)) / 2
  )


def r2() -> Penalty:
  """Makes the R2 penalty, E |grad_x D(x)|^2 / 2 at the fakes.

  Mescheder et al. 2018, equation 10.
  """

  def penalty(inputs: PenaltyInputs) -> Scalar:
    discriminate = inputs.discriminate_fake or inputs.discriminate
    return jnp.mean(squared_gradients(discriminate, inputs.fake)) / 2

  return penalty


def dragan(target: float = 1.0, std: float = 0.5) -> Penalty:
  """Makes DRAGAN's penalty, E (|grad_x D(x + d)| - target)^2 near the reals.

  x is a real and d ~ N(0, std^2). This is the penalty of the paper (Kodali et
  al. 2017), whose noise is N(0, c I) with c = std^2. The authors' code has
  different noise: u * 0.5 * std(X) * v, where std(X) is that of all pixels of
  the batch, v ~ U(0, 1) for each pixel and u ~ U(0, 1) for each image. That
  noise is never negative, scales with the data, and is smaller than this one
  for images in [-1, 1].

  Args:
    target: The target of the gradient norm.
    std: Standard deviation of the noise.
  """

  def penalty(inputs: PenaltyInputs) -> Scalar:
    sample_noise = lambda key: jax.random.normal(key, inputs.real.shape[1:])
    near = inputs.real + std * jax.vmap(sample_noise)(inputs.keys)
    norms = _norms(squared_gradients(inputs.discriminate, near))
    return jnp.mean(jnp.square(norms - target))

  return penalty


def drift() -> Penalty:
  """Makes the drift penalty, E D(x)^2 at the reals, which keeps logits near 0.

  Karras et al. 2018, appendix A.1.
  """
  return lambda inputs: jnp.mean(jnp.square(inputs.real_logits))


def lecam(decay: float = 0.99) -> StatefulPenalty:
  """Makes the LeCam penalty, E (D(x) - a_f)^2 + E (D(G(z)) - a_r)^2.

  a_r and a_f are running means of the logits of reals and of fakes, which start
  at the means of the first batch. Tseng et al. 2021, "Regularizing generative
  adversarial networks under limited data", equation 4. Unlike the equation, the
  authors' code squares only the positive parts of D(x) - a_f and a_r - D(G(z)).

  Args:
    decay: Weight of the earlier batches in the running means.
  """

  def value(inputs: PenaltyInputs) -> tuple[Scalar, PyTree]:
    state = inputs.state
    rate = jnp.where(state['updates'] == 0, 1.0, 1 - decay)

    def running(old: Scalar, logits: Logits) -> Scalar:
      return old + rate * (inputs.mean(jax.lax.stop_gradient(logits)) - old)

    new = {
      'real': running(state['real'], inputs.real_logits),
      'fake': running(state['fake'], inputs.fake_logits),
      'updates': state['updates'] + 1,
    }
    of_reals = jnp.mean(jnp.square(inputs.real_logits - new['fake']))
    of_fakes = jnp.mean(jnp.square(inputs.fake_logits - new['real']))
    return of_reals + of_fakes, new

  zero = jnp.float32(0)
  return StatefulPenalty(
    value, {'real': zero, 'fake': zero, 'updates': jnp.int32(0)}
  )


def consistency() -> Penalty:
  """Makes the penalty of balanced consistency regularization (bCR).

  E (D(x) - D(T(x)))^2 at reals and at fakes, where T mirrors an image with
  probability 1/2 and translates it by up to 1/8 of its size. Zhao et al. 2020,
  "Improved consistency regularization for GANs", algorithm 1, with equal
  weights of reals and fakes.
  """

  def penalty(inputs: PenaltyInputs) -> Scalar:
    pairs = jax.vmap(jax.random.split)(inputs.keys)

    def transform(key: Key[Array, ''], image: Array) -> Array:
      mirror_key, shift_key = jax.random.split(key)
      return translation(shift_key, mirror(mirror_key, image))

    moved = jax.vmap(transform)
    of_fake = inputs.discriminate_fake or inputs.discriminate
    real = inputs.discriminate(moved(pairs[:, 0], inputs.real))
    fake = of_fake(moved(pairs[:, 1], inputs.fake))
    return jnp.mean(jnp.square(inputs.real_logits - real)) + jnp.mean(
      jnp.square(inputs.fake_logits - fake)
    )

  return penalty


def squared_gradients(
  discriminate: Callable[[Images], Logits], images: Images
) -> Logits:
  """Computes |grad_x D(x)|^2 for each image."""
  grads = jax.grad(lambda x: jnp.sum(discriminate(x)))(images)
  return jnp.sum(jnp.square(grads), tuple(range(1, images.ndim)))


def _norms(squares: Logits) -> Logits:
  """Computes square roots whose derivative at 0 is 0 instead of NaN."""
  positive = squares > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def path_length(decay: float = 0.01, batch_shrink: int = 1) -> GenPenalty:
  """Makes the path length penalty, E (|J^T y| - a)^2.

  It encourages that a step of fixed length in the latent changes the image by a
  fixed amount. J is the Jacobian of G, y ~ N(0, I) / sqrt(pixels), and a is the
  running mean of |J^T y|: Karras et al. 2020 (StyleGAN2), equation 4. The
  latent is w for a style-based G (the norm is then the root mean square over
  its layers), else z.

  Args:
    decay: Weight of the current batch in the running mean.
    batch_shrink: The penalty is computed on each `batch_shrink`-th example.
  """

  def value(inputs: GenPenaltyInputs) -> tuple[Scalar, PyTree]:
    images, pull_back = jax.vjp(inputs.generate, inputs.z)
    sample_y = lambda key: jax.random.normal(key, images.shape[1:])
    pixels = math.prod(images.shape[1:-1])
    y = jax.vmap(sample_y)(inputs.keys) / math.sqrt(pixels)
    (gradients,) = pull_back(y)
    squares = jnp.sum(jnp.square(gradients), axis=-1)
    lengths = _norms(squares.reshape(len(squares), -1).mean(1))
    mean = inputs.state + decay * (inputs.mean(lengths) - inputs.state)
    mean = jax.lax.stop_gradient(mean)
    return jnp.mean(jnp.square(lengths - mean)), mean

  return GenPenalty(value, jnp.float32(0), batch_shrink)


def orthogonal() -> GenPenalty:
  """Makes orthogonal regularization, the sum of |W^T W * (1 - I)|^2 / 2.

  W is the kernel of each layer as a matrix [inputs, outputs]: its columns
  should be orthogonal, of any length, so that truncated latents give good
  samples. The embedding of the classes, `shared`, has no penalty. Brock et al.
  2019 (BigGAN), equation 3, whose weight is 1e-4. The gradient is half of the
  equation's, as in the authors' code.
  """

  def value(inputs: GenPenaltyInputs) -> tuple[Scalar, PyTree]:
    total = jnp.float32(0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(inputs.params):
      names = [getattr(entry, 'key', None) for entry in path]
      if names[-1] != 'kernel' or 'shared' in names:
        continue
      w = leaf.reshape(-1, leaf.shape[-1])
      products = jnp.matmul(w.T, w, precision='highest')
      off_diagonal = products - jnp.diag(jnp.diag(products))
      total += jnp.sum(jnp.square(off_diagonal)) / 2
    return total, ()

  return GenPenalty(value)


PENALTIES: dict[str, Callable[..., Penalty | StatefulPenalty]] = {
  'consistency': consistency,
  'dragan': dragan,
  'drift': drift,
  'gradient_penalty': gradient_penalty,
  'lecam': lecam,
  'r1': r1,
  'r2': r2,
}

GEN_PENALTIES: dict[str, Callable[..., GenPenalty]] = {
  'orthogonal': orthogonal,
  'path_length': path_length,
}
