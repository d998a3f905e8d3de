"""GAN losses on logits.

Each player's loss is a function of (real_logits, fake_logits), averaged over
the examples. For most losses, D(x) = sigmoid(logit) is the probability that x
is real. They are computed stably for large logits: -log sigmoid(x) =
softplus(-x) and -log(1 - sigmoid(x)) = softplus(x). A new loss is a function
that returns a GANLoss and an entry in LOSSES.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.nn import relu, softplus
from jaxtyping import Array, Float

from gan_jax.errors import UserError

# [n]; [n, rows, columns] if D has a logit for each patch.
Logits = Float[Array, '*n']
Scalar = Float[Array, '']
LogitLoss = Callable[[Logits, Logits], Scalar]


class GANLoss(NamedTuple):
  """The losses of both players.

  Attributes:
    gen, disc: (real_logits, fake_logits) -> loss.
    real_score: (logits) -> scores, positive if D classifies the image as real.
      None: single logits have no such meaning (a critic).
    probability: Whether sigmoid(real_score) is D(x), the probability that x is
      real.
  """

  gen: LogitLoss
  disc: LogitLoss
  real_score: Callable[[Logits], Logits] | None = lambda logits: logits
  probability: bool = False


def minimax_gen(real_logits: Logits, fake_logits: Logits) -> Scalar:
  """G's minimax loss, J_G = E log(1 - D(G(z))).

  Its gradient vanishes if D is confident. Goodfellow et al. 2014, equation 1.
  """
  del real_logits
  return -jnp.mean(softplus(fake_logits))


def non_saturating_gen(real_logits: Logits, fake_logits: Logits) -> Scalar:
  """G's non-saturating loss, J_G = -E log D(G(z)); log 2 at D = 1/2.

  Goodfellow et al. 2014, section 3.
  """
  del real_logits
  return jnp.mean(softplus(-fake_logits))


def cross_entropy_disc(
  real_logits: Logits, fake_logits: Logits, real_label: float = 1.0
) -> Scalar:
  """D's cross-entropy, J_D = -E log D(x) - E log(1 - D(G(z))).

  It is log 4 at D = 1/2. Goodfellow et al. 2014, equation 1, negated. With
  one-sided label smoothing (Salimans et al. 2016, section 3.4), the target s of
  the reals is `real_label`, for example 0.9, instead of 1:
  -E [s log D(x) + (1 - s) log(1 - D(x))] - E log(1 - D(G(z))).
  """
  real = real_label * softplus(-real_logits)
  real += (1 - real_label) * softplus(real_logits)
  return jnp.mean(real) + jnp.mean(softplus(fake_logits))


def half_cross_entropy_disc(
  real_logits: Logits, fake_logits: Logits, real_label: float = 1.0
) -> Scalar:
  """Half of `cross_entropy_disc`; log 2 at D = 1/2.

  It is the mean over a batch of reals and fakes together. Goodfellow 2016 (NIPS
  tutorial), equation 8.
  """
  return cross_entropy_disc(real_logits, fake_logits, real_label) / 2


def minimax(real_label: float = 1.0) -> GANLoss:
  """The zero-sum game. Goodfellow et al. 2014, equation 1."""
  return GANLoss(
    minimax_gen, _smoothed(cross_entropy_disc, real_label), probability=True
  )


def non_saturating(real_label: float = 1.0) -> GANLoss:
  """The losses of Goodfellow et al. 2014 (in practice) and of DCGAN."""
  return GANLoss(
    non_saturating_gen,
    _smoothed(cross_entropy_disc, real_label),
    probability=True,
  )


def non_saturating_half(real_label: float = 1.0) -> GANLoss:
  """The non-saturating losses with D's loss halved."""
  return GANLoss(
    non_saturating_gen,
    _smoothed(half_cross_entropy_disc, real_label),
    probability=True,
  )


def non_saturating_fake_is_one(real_label: float = 1.0) -> GANLoss:
  """The non-saturating losses with fakes labelled 1: sigmoid is P(x is fake).

  J_D = -E log D(G(z)) - E log(1 - D(x)), which is `non_saturating` with
  logits -> -logits. `real_label` still smooths the targets of the reals only.
  """
  pair = non_saturating(real_label)
  return GANLoss(
    gen=lambda real, fake: pair.gen(-real, -fake),
    disc=lambda real, fake: pair.disc(-real, -fake),
    real_score=lambda logits: -logits,
    probability=True,
  )


def least_squares(
  real_label: float = 1.0, fake_label: float = 0.0, target_label: float = 1.0
) -> GANLoss:
  """LSGAN's losses (Mao et al. 2017, equation 2).

  J_D = (E (D(x) - b)^2 + E (D(G(z)) - a)^2) / 2, J_G = E (D(G(z)) - c)^2 / 2.
  With a, b, c = 0, 1, 1 this is their equation 9. With -1, 1, 0, G minimizes
  the Pearson chi^2 divergence (their equation 8).

  Args:
    real_label: b, D's target for reals.
    fake_label: a, D's target for fakes.
    target_label: c, G's target for fakes.
  """
  middle = (real_label + fake_label) / 2
  sign = 1 if real_label > fake_label else -1

  def disc(real, fake):
    real, fake = real - real_label, fake - fake_label
    return (jnp.mean(real**2) + jnp.mean(fake**2)) / 2

  return GANLoss(
    gen=lambda real, fake: jnp.mean((fake - target_label) ** 2) / 2,
    disc=disc,
    real_score=lambda logits: sign * (logits - middle),
  )


def least_squares_half(
  real_label: float = 1.0, fake_label: float = 0.0, target_label: float = 1.0
) -> GANLoss:
  """Twice `least_squares`, with D's loss halved: the losses of CycleGAN.

  J_D = (E (D(x) - b)^2 + E (D(G(z)) - a)^2) / 2, J_G = E (D(G(z)) - c)^2. Zhu
  et al. 2017, section 4.
  """
  loss = least_squares(real_label, fake_label, target_label)
  return loss._replace(gen=lambda real, fake: 2 * loss.gen(real, fake))


def hinge() -> GANLoss:
  """The hinge losses.

  J_D = E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), J_G = -E D(G(z)).
  Lim & Ye 2017 (geometric GAN); Miyato et al. 2018 (SNGAN), equations 16, 17.
  """
  return GANLoss(
    gen=lambda real, fake: -jnp.mean(fake),
    disc=lambda real, fake: jnp.mean(relu(1 - real)) + jnp.mean(relu(1 + fake)),
  )


def relativistic() -> GANLoss:
  """The relativistic pairing losses (RpGAN).

  J_D = E softplus(D(G(z)) - D(x)), J_G = E softplus(D(x) - D(G(z))): each fake
  is compared with one real. Jolicoeur-Martineau 2019; Huang et al. 2024
  (R3GAN), equation 2.
  """
  return GANLoss(
    gen=lambda real, fake: jnp.mean(softplus(real - fake)),
    disc=lambda real, fake: jnp.mean(softplus(fake - real)),
    real_score=None,
  )


def relativistic_average() -> GANLoss:
  """The relativistic average losses (RaGAN), with both losses halved.

  With r = D(x) - E D(G(z)) and f = D(G(z)) - E D(x),
  J_D = (E softplus(-r) + E softplus(f)) / 2 and
  J_G = (E softplus(r) + E softplus(-f)) / 2: the means are over the batch.
  Jolicoeur-Martineau 2019; Wang et al. 2018 (ESRGAN), equations 1 and 2, with
  the factors of BasicSR.
  """

  def relative(real, fake):
    return real - jnp.mean(fake), fake - jnp.mean(real)

  def gen(real, fake):
    r, f = relative(real, fake)
    return (jnp.mean(softplus(r)) + jnp.mean(softplus(-f))) / 2

  def disc(real, fake):
    r, f = relative(real, fake)
    return (jnp.mean(softplus(-r)) + jnp.mean(softplus(f))) / 2

  return GANLoss(gen, disc, real_score=None)


def wasserstein() -> GANLoss:
  """The WGAN losses, in which D is a critic.

  J_D = E D(G(z)) - E D(x), J_G = -E D(G(z)). For the optimal K-Lipschitz critic
  -J_D is K times the Wasserstein-1 distance. Weight clipping or a gradient
  penalty bounds K. Arjovsky et al. 2017, equation 2.
  """
  return GANLoss(
    gen=lambda real, fake: -jnp.mean(fake),
    disc=lambda real, fake: jnp.mean(fake) - jnp.mean(real),
    real_score=None,
  )


def _smoothed(loss: Callable[..., Scalar], real_label: float) -> LogitLoss:
  if not 0 < real_label <= 1:
    raise UserError(f'real_label={real_label} must be in (0, 1]')
  return lambda real, fake: loss(real, fake, real_label)


LOSSES: dict[str, Callable[..., GANLoss]] = {
  'hinge': hinge,
  'least_squares': least_squares,
  'least_squares_half': least_squares_half,
  'minimax': minimax,
  'non_saturating': non_saturating,
  'non_saturating_fake_is_one': non_saturating_fake_is_one,
  'non_saturating_half': non_saturating_half,
  'relativistic': relativistic,
  'relativistic_average': relativistic_average,
  'wasserstein': wasserstein,
}
