"""GANLoss losses on logits.

Every player's loss is a function of (real_logits, fake_logits), and a mean over
the examples. Of most of them D(x) = sigmoid(logit) is "x is real"; these are
stable for logits of any size: -log sigmoid(x) = softplus(-x) and
-log(1 - sigmoid(x)) = softplus(x). A new loss is a function that returns an
GANLoss, and a row in LOSSES.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.nn import relu, softplus
from jaxtyping import Array, Float

from gan_jax.errors import UserError

Logits = Float[Array, ' n']
Scalar = Float[Array, '']
LogitLoss = Callable[[Logits, Logits], Scalar]


class GANLoss(NamedTuple):
  """A loss of each player.

  Attributes:
    gen, disc: (real_logits, fake_logits) -> loss.
    real_score: (logits) -> how far D takes images for real: positive, or not.
      None: a logit by itself says nothing (a critic's).
    probability: Whether its sigmoid is D(x), the probability of "x is real".
  """

  gen: LogitLoss
  disc: LogitLoss
  real_score: Callable[[Logits], Logits] | None = lambda logits: logits
  probability: bool = False


def minimax_gen(real_logits: Logits, fake_logits: Logits) -> Scalar:
  """G's part of the minimax value: E log(1 - D(G(z))), to be minimised.

  Its gradient vanishes where D wins. Goodfellow et al. 2014, equation 1.
  """
  del real_logits
  return -jnp.mean(softplus(fake_logits))


def non_saturating_gen(real_logits: Logits, fake_logits: Logits) -> Scalar:
  """-E log D(G(z)). Goodfellow et al. 2014, section 3; log 2 at D = 1/2."""
  del real_logits
  return jnp.mean(softplus(-fake_logits))


def cross_entropy_disc(
  real_logits: Logits, fake_logits: Logits, real_label: float = 1.0
) -> Scalar:
  """J_D = -E log D(x) - E log(1 - D(G(z))); log 4 at D = 1/2.

  Goodfellow et al. 2014, equation 1, with its sign turned. With one-sided
  label smoothing (Salimans et al. 2016, section 3.4) the reals' target is
  `real_label`, say 0.9, instead of 1:
  -E [s log D(x) + (1 - s) log(1 - D(x))] - E log(1 - D(G(z))).
  """
  real = real_label * softplus(-real_logits)
  real += (1 - real_label) * softplus(real_logits)
  return jnp.mean(real) + jnp.mean(softplus(fake_logits))


def half_cross_entropy_disc(
  real_logits: Logits, fake_logits: Logits, real_label: float = 1.0
) -> Scalar:
  """J_D / 2: the mean over both halves of a batch of 2m; log 2 at D = 1/2.

  Goodfellow 2016 (NIPS tutorial), equation 8.
  """
  return cross_entropy_disc(real_logits, fake_logits, real_label) / 2


def minimax(real_label: float = 1.0) -> GANLoss:
  """The two-player zero-sum game."""
  return GANLoss(
    minimax_gen, _smoothed(cross_entropy_disc, real_label), probability=True
  )


def non_saturating(real_label: float = 1.0) -> GANLoss:
  """What the 2014 paper trains with, and DCGAN."""
  return GANLoss(
    non_saturating_gen,
    _smoothed(cross_entropy_disc, real_label),
    probability=True,
  )


def non_saturating_half(real_label: float = 1.0) -> GANLoss:
  """The non-saturating pair with D's loss halved."""
  return GANLoss(
    non_saturating_gen,
    _smoothed(half_cross_entropy_disc, real_label),
    probability=True,
  )


def non_saturating_fake_is_one(real_label: float = 1.0) -> GANLoss:
  """The convention in which D(x) is "x is fake": fakes are labelled 1.

  J_D = -E log D(G(z)) - E log(1 - D(x)): the same game under
  logits -> -logits. `real_label` still smooths the reals' side alone.
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
  """J_D = (E (D(x) - b)^2 + E (D(G(z)) - a)^2) / 2.

  J_G = E (D(G(z)) - c)^2 / 2.

  Mao et al. 2017 (LSGAN), equation 2, with a, b, c the fakes', the reals', and
  what G wants: 0, 1, 1 (their equation 9), or -1, 1, 0, with which G minimises
  the Pearson chi^2 divergence (their equation 8).
  """
  middle = (real_label + fake_label) / 2
  side = 1 if real_label > fake_label else -1

  def disc(real, fake):
    real, fake = real - real_label, fake - fake_label
    return (jnp.mean(real**2) + jnp.mean(fake**2)) / 2

  return GANLoss(
    gen=lambda real, fake: jnp.mean((fake - target_label) ** 2) / 2,
    disc=disc,
    real_score=lambda logits: side * (logits - middle),
  )


def hinge() -> GANLoss:
  """J_D = E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), J_G = -E D(G(z)).

  Lim & Ye 2017 (geometric GAN); Miyato et al. 2018 (SNGAN), equations 16, 17.
  """
  return GANLoss(
    gen=lambda real, fake: -jnp.mean(fake),
    disc=lambda real, fake: jnp.mean(relu(1 - real)) + jnp.mean(relu(1 + fake)),
  )


def relativistic() -> GANLoss:
  """RpGAN: J_D = E softplus(D(G(z)) - D(x)), J_G = E softplus(D(x) - D(G(z))).

  Each fake is held against a real. Jolicoeur-Martineau 2019; Huang et al. 2024
  (R3GAN), equation 2.
  """
  return GANLoss(
    gen=lambda real, fake: jnp.mean(softplus(real - fake)),
    disc=lambda real, fake: jnp.mean(softplus(fake - real)),
    real_score=None,
  )


def wasserstein() -> GANLoss:
  """D is a critic: J_D = E D(G(z)) - E D(x), J_G = -E D(G(z)).

  -J_D is the Wasserstein-1 distance times K, where D is K-Lipschitz and the
  best such function: by clipped weights, or a gradient penalty. Arjovsky et al.
  2017, equation 2.
  """
  return GANLoss(
    gen=lambda real, fake: -jnp.mean(fake),
    disc=lambda real, fake: jnp.mean(fake) - jnp.mean(real),
    real_score=None,
  )


def _smoothed(loss: Callable[..., Scalar], real_label: float) -> LogitLoss:
  if not 0 < real_label <= 1:
    raise UserError(f'real_label={real_label} must be above 0, to 1')
  return lambda real, fake: loss(real, fake, real_label)


LOSSES: dict[str, Callable[..., GANLoss]] = {
  'hinge': hinge,
  'least_squares': least_squares,
  'minimax': minimax,
  'non_saturating': non_saturating,
  'non_saturating_fake_is_one': non_saturating_fake_is_one,
  'non_saturating_half': non_saturating_half,
  'relativistic': relativistic,
  'wasserstein': wasserstein,
}
