"""Tests of the losses against hand-computed values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.games import losses

# sigmoid(log 3) = 3/4, sigmoid(-log 3) = 1/4, sigmoid(0) = 1/2.
REAL = jnp.array([math.log(3), 0.0])  # D(x) = 3/4, 1/2
FAKE = jnp.array([-math.log(3), math.log(3)])  # D(G(z)) = 1/4, 3/4
MEAN = lambda *values: sum(values) / len(values)


def test_cross_entropy_losses_by_hand():
  """Averages -log of the probabilities, in float64."""
  log = math.log
  real = MEAN(-log(3 / 4), -log(1 / 2))
  fake = MEAN(-log(1 - 1 / 4), -log(1 - 3 / 4))
  close = lambda loss, value: np.testing.assert_allclose(loss, value, rtol=1e-6)
  close(losses.cross_entropy_disc(REAL, FAKE), real + fake)
  close(losses.half_cross_entropy_disc(REAL, FAKE), (real + fake) / 2)
  close(losses.minimax_gen(REAL, FAKE), MEAN(log(1 - 1 / 4), log(1 - 3 / 4)))
  close(losses.non_saturating_gen(REAL, FAKE), MEAN(-log(1 / 4), -log(3 / 4)))


def test_wasserstein_by_hand():
  """The critic is 1.1 and 0 at the reals, -1.1 and 1.1 at the fakes."""
  pair = losses.wasserstein()
  of_real = math.log(3) / 2
  np.testing.assert_allclose(pair.disc(REAL, FAKE), 0 - of_real, rtol=1e-6)
  np.testing.assert_allclose(pair.gen(REAL, FAKE), 0, atol=1e-7)
  np.testing.assert_allclose(pair.gen(FAKE, REAL), -of_real, rtol=1e-6)
  assert pair.real_score is None


def test_least_squares_by_hand():
  """The logits are 3, 0 for reals and -1, 2 for fakes."""
  real, fake = jnp.array([3.0, 0.0]), jnp.array([-1.0, 2.0])
  pair = losses.least_squares()
  by_hand = MEAN(2**2, 1) / 2 + MEAN(1, 2**2) / 2
  np.testing.assert_allclose(pair.disc(real, fake), by_hand)
  np.testing.assert_allclose(pair.gen(real, fake), MEAN(2**2, 1) / 2)
  np.testing.assert_array_equal(pair.real_score(fake) > 0, [False, True])
  # The decision boundary is the mean of both labels: 1/2, and 0 for `pearson`.
  assert pair.real_score(jnp.array([0.5])) == 0
  pearson = losses.least_squares(fake_label=-1.0, target_label=0.0)
  by_hand = MEAN(2**2, 1) / 2 + MEAN(0, 3**2) / 2
  np.testing.assert_allclose(pearson.disc(real, fake), by_hand)
  np.testing.assert_allclose(pearson.gen(real, fake), MEAN(1, 2**2) / 2)
  assert pearson.real_score(jnp.array([0.0])) == 0


def test_least_squares_of_cyclegan_by_hand():
  """G's loss without the factor 1/2; D's as in LSGAN."""
  real, fake = jnp.array([3.0, 0.0]), jnp.array([-1.0, 2.0])
  pair = losses.least_squares_half()
  by_hand = (MEAN(2**2, 1) + MEAN(1, 2**2)) / 2
  np.testing.assert_allclose(pair.disc(real, fake), by_hand)
  np.testing.assert_allclose(pair.gen(real, fake), MEAN(2**2, 1))


def test_relativistic_average_by_hand():
  """The means of the logits are log(3) / 2 for reals and 0 for fakes."""
  log = math.log
  pair = losses.relativistic_average()
  r = lambda sign: MEAN(log(1 + 3.0**sign), log(2))
  f = lambda sign: MEAN(log(1 + 3 ** (-1.5 * sign)), log(1 + 3 ** (0.5 * sign)))
  disc, gen = (r(-1) + f(1)) / 2, (r(1) + f(-1)) / 2
  np.testing.assert_allclose(pair.disc(REAL, FAKE), disc, rtol=1e-6)
  np.testing.assert_allclose(pair.gen(REAL, FAKE), gen, rtol=1e-6)


def test_hinge_by_hand():
  real, fake = jnp.array([3.0, 0.25]), jnp.array([-4.0, 2.0])
  pair = losses.hinge()
  np.testing.assert_allclose(pair.disc(real, fake), MEAN(0, 0.75) + MEAN(0, 3))
  np.testing.assert_allclose(pair.gen(real, fake), -MEAN(-4, 2))


def test_relativistic_by_hand():
  """softplus(log 3) = log 4; softplus(-log 3) = log(4/3)."""
  log = math.log
  pair = losses.relativistic()
  real, fake = jnp.array([5 + log(3), 2.0]), jnp.array([5.0, 2 + log(3)])
  expected = MEAN(log(4 / 3), log(4))
  np.testing.assert_allclose(pair.disc(real, fake), expected, rtol=1e-6)
  np.testing.assert_allclose(pair.gen(real, fake), expected, rtol=1e-6)
  one_sided = pair.disc(real[:1], fake[:1]), pair.gen(real[:1], fake[:1])
  np.testing.assert_allclose(one_sided, (log(4 / 3), log(4)), rtol=1e-5)


@pytest.mark.parametrize('name', losses.LOSSES)
def test_players_have_opposite_gradients(name):
  """D lowers the fakes' score and raises the reals'; G raises the fakes'."""
  pair = losses.LOSSES[name]()
  logits = jnp.array([0.1]), jnp.array([0.2])
  real, fake = (float(x[0]) for x in jax.grad(pair.disc, (0, 1))(*logits))
  gen_grad = float(jax.grad(pair.gen, 1)(*logits)[0])
  assert real * fake < 0
  assert fake * gen_grad < 0
  if pair.real_score is not None:
    more_real = float(jax.grad(lambda x: pair.real_score(x)[0])(logits[0])[0])
    assert real * more_real < 0


def test_one_sided_smoothing_by_hand():
  """The reals' target is 0.9: 0.9 (-log D) + 0.1 (-log(1 - D))."""
  smooth = lambda d: -0.9 * math.log(d) - 0.1 * math.log(1 - d)
  real = MEAN(smooth(3 / 4), smooth(1 / 2))
  fake = MEAN(-math.log(3 / 4), -math.log(1 / 4))
  for name in ('minimax', 'non_saturating'):
    loss = losses.LOSSES[name](real_label=0.9).disc(REAL, FAKE)
    np.testing.assert_allclose(loss, real + fake, rtol=1e-6)


def test_losses_at_probability_one_half():
  """At D = 1/2 everywhere: log 4, log 2, and the value of the game -log 4."""
  zero = jnp.zeros(3)
  for name, disc, gen in (
    ('minimax', math.log(4), -math.log(2)),
    ('non_saturating', math.log(4), math.log(2)),
    ('non_saturating_half', math.log(2), math.log(2)),
    ('non_saturating_fake_is_one', math.log(4), math.log(2)),
  ):
    pair = losses.LOSSES[name]()
    np.testing.assert_allclose(pair.disc(zero, zero), disc, rtol=1e-6)
    np.testing.assert_allclose(pair.gen(zero, zero), gen, rtol=1e-6)


def test_fake_is_one_equals_the_game_with_negated_logits():
  """J_D = -E log D(G(z)) - E log(1 - D(x)), by hand, and by symmetry."""
  pair = losses.non_saturating_fake_is_one()
  by_hand = MEAN(-math.log(1 / 4), -math.log(3 / 4))
  by_hand += MEAN(-math.log(1 - 3 / 4), -math.log(1 - 1 / 2))
  np.testing.assert_allclose(pair.disc(REAL, FAKE), by_hand, rtol=1e-6)
  plain = losses.non_saturating()
  for player in ('gen', 'disc'):
    np.testing.assert_array_equal(
      getattr(pair, player)(REAL, FAKE), getattr(plain, player)(-REAL, -FAKE)
    )


@pytest.mark.parametrize('name', losses.LOSSES)
def test_losses_are_stable_for_logits_of_any_size(name):
  """Loss and gradient are finite if D is certain to 1e-40."""
  huge = jnp.array([1e4, -1e4, 90.0, -90.0])
  for loss in losses.LOSSES[name]()[:2]:
    for logits in ((huge, huge), (-huge, huge)):
      value, grads = jax.value_and_grad(loss, argnums=(0, 1))(*logits)
      assert np.isfinite(value)
      assert np.isfinite(grads).all()


def test_only_the_minimax_gradient_saturates():
  """Where D rejects the fakes, only the minimax gradient vanishes.

  d/dx log(1 - sigmoid(x)) = -sigmoid(x) = -4.5e-5 at x = -10;
  d/dx -log sigmoid(x) = sigmoid(x) - 1 = -1 + 4.5e-5.
  """
  logits = jnp.array([-10.0])
  gradient = lambda loss: float(jax.grad(loss, argnums=1)(logits, logits)[0])
  sigmoid = 1 / (1 + math.exp(10))
  assert gradient(losses.minimax_gen) == pytest.approx(-sigmoid, rel=1e-4)
  assert gradient(losses.non_saturating_gen) == pytest.approx(sigmoid - 1)
