"""Tests of the penalties against closed forms, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import get_config

from gan_jax.errors import UserError
from gan_jax.games.penalties import (
  PENALTIES,
  GenPenaltyInputs,
  PenaltyInputs,
  WeightedPenalty,
  consistency,
  lecam,
  path_length,
  squared_gradients,
  value_of,
)
from gan_jax.training import checkpoint, loop

N, SHAPE = 5, (2, 2, 3)


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def draw(seed, scale=1.0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(scale * rng.normal(size=(N, *SHAPE)))


def penalty_inputs(disc, real, fake, seed=0):
  keys = jax.random.split(jax.random.key(seed), N)
  return PenaltyInputs(disc, real, fake, disc(real), disc(fake), keys)


def linear(w, b=0.7):
  return lambda images: jnp.einsum('nhwc,hwc->n', images, w) + b


def bowl(a):
  """D(x) = a |x|^2 / 2, whose gradient is a x."""
  return lambda images: a * jnp.sum(images**2, (1, 2, 3)) / 2


def test_values_for_a_linear_critic_by_hand():
  """The gradient with respect to an image is w everywhere."""
  w = draw(1)[0]
  norm = float(np.linalg.norm(w))
  inputs = penalty_inputs(linear(w), draw(2), draw(3))
  value = lambda name, **kwargs: float(PENALTIES[name](**kwargs)(inputs))
  assert value('gradient_penalty') == pytest.approx((norm - 1) ** 2)
  assert value('gradient_penalty', target=2.0) == pytest.approx(
    (norm - 2) ** 2 / 4
  )
  assert norm > 1
  assert value('gradient_penalty', one_sided=True) == pytest.approx(
    (norm - 1) ** 2
  )
  assert value('gradient_penalty', target=2 * norm, one_sided=True) == 0
  assert value('r1') == pytest.approx(norm**2 / 2)
  assert value('r2') == pytest.approx(norm**2 / 2)
  logits = np.einsum('nhwc,hwc->n', draw(2), w) + 0.7
  assert value('drift') == pytest.approx(np.mean(logits**2))


def test_gradients_for_a_linear_critic_by_hand():
  """d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|; d/dw |w|^2 / 2 = w."""
  w, real, fake = draw(1)[0], draw(2), draw(3)
  gradient = lambda name: jax.grad(
    lambda w: PENALTIES[name]()(penalty_inputs(linear(w), real, fake))
  )(w)
  norm = np.linalg.norm(w)
  np.testing.assert_allclose(
    gradient('gradient_penalty'), 2 * (norm - 1) * w / norm, rtol=1e-9
  )
  np.testing.assert_allclose(gradient('r1'), w, rtol=1e-9)
  np.testing.assert_allclose(gradient('r2'), w, rtol=1e-9)


def test_r1_at_reals_and_r2_at_fakes():
  """For the bowl, R1 is E |a x|^2 / 2 at the reals, and R2 at the fakes. If
  reals and fakes are equal, the points between them are too.
  """
  a, real, fake = 0.3, draw(2), draw(3, scale=4.0)
  squares = lambda x: np.sum(np.asarray(x) ** 2, (1, 2, 3))
  inputs = penalty_inputs(bowl(a), real, fake)
  value = lambda name, inputs: float(PENALTIES[name]()(inputs))
  assert value('r1', inputs) == pytest.approx(np.mean(a**2 * squares(real)) / 2)
  assert value('r2', inputs) == pytest.approx(np.mean(a**2 * squares(fake)) / 2)
  same = penalty_inputs(bowl(a), real, real)
  expected = np.mean((a * np.sqrt(squares(real)) - 1) ** 2)
  assert value('gradient_penalty', same) == pytest.approx(expected)


def test_each_pair_has_its_own_interpolation_weight():
  """D(x) = s^2 / 2 with the mean s of the image; real 0, fake 1: the gradient
  of each pixel is t / 12, so the norm is t / sqrt(12), with t uniform for each
  pair.
  """
  n = 4000
  disc = lambda images: images.mean((1, 2, 3)) ** 2 / 2
  keys = jax.random.split(jax.random.key(0), n)
  zeros, ones = jnp.zeros((n, *SHAPE)), jnp.ones((n, *SHAPE))
  inputs = PenaltyInputs(disc, zeros, ones, disc(zeros), disc(ones), keys)
  value = float(PENALTIES['gradient_penalty']()(inputs))
  # E (t / sqrt(12) - 1)^2 = 1/36 - 1/sqrt(12) + 1, std below .2.
  assert value == pytest.approx(1 / 36 - 1 / np.sqrt(12) + 1, abs=5 * 0.2 / 63)
  single = [
    PENALTIES['gradient_penalty']()(
      PenaltyInputs(disc, zeros[:1], ones[:1], None, None, keys[i : i + 1])
    )
    for i in range(3)
  ]
  assert len({float(x) for x in single}) == 3


def test_dragan_penalizes_near_the_reals():
  """For the bowl, at x + d: E (a |x + d| - 1)^2; without noise, by hand."""
  a, real = 0.3, draw(2)
  inputs = penalty_inputs(bowl(a), real, draw(3))
  norms = np.sqrt(np.sum(np.asarray(real) ** 2, (1, 2, 3)))
  without_noise = PENALTIES['dragan'](std=0.0)(inputs)
  assert float(without_noise) == pytest.approx(np.mean((a * norms - 1) ** 2))
  # At 0, |d|^2 / std^2 is chi-squared with 12 degrees of freedom: with a
  # target of 0 the mean is 12 a^2 std^2, and its error sqrt(24 / n).
  n = 4000
  keys = jax.random.split(jax.random.key(0), n)
  zeros = jnp.zeros((n, *SHAPE))
  inputs = PenaltyInputs(bowl(a), zeros, zeros, None, None, keys)
  with_noise = float(PENALTIES['dragan'](0.0, 2.0)(inputs)) / (a**2 * 2.0**2)
  assert with_noise == pytest.approx(12, abs=5 * np.sqrt(24 / n))


def test_squared_gradients_equal_finite_differences():
  """Checks every pixel, for a nonlinear critic."""
  w = draw(1)[0]
  disc = lambda x: jnp.tanh(linear(w)(x)) + bowl(0.2)(x)
  images, step = np.asarray(draw(2)), 1e-6
  squares = np.zeros(N)
  for pixel in np.ndindex(*SHAPE):
    offset = np.zeros(SHAPE)
    offset[pixel] = step
    squares += np.square(
      (disc(images + offset) - disc(images - offset)) / step / 2
    )
  np.testing.assert_allclose(
    squared_gradients(disc, jnp.asarray(images)), squares, rtol=1e-7
  )


def test_gradient_is_finite_for_a_constant_critic():
  """The norm has no derivative at 0, but the update must be finite."""
  inputs_of = lambda a: penalty_inputs(bowl(a), draw(2), draw(3))
  penalty = PENALTIES['gradient_penalty']()
  assert float(penalty(inputs_of(0.0))) == 1
  assert np.isfinite(jax.grad(lambda a: penalty(inputs_of(a)))(0.0))


def test_penalties_use_different_keys():
  penalty = PENALTIES['gradient_penalty']()
  inputs = penalty_inputs(bowl(0.3), draw(2), draw(3))
  values = {
    float(value_of(WeightedPenalty(name, penalty, 1.0), inputs)[0])
    for name in ('one', 'other')
  }
  assert len(values) == 2


def test_invalid_target_raises():
  with pytest.raises(UserError, match=r'target=0\.0 of gradient_penalty'):
    PENALTIES['gradient_penalty'](target=0.0)


def test_path_length_of_a_linear_generator():
  """G(z) = z W: J^T y = W y of each example, y ~ N(0, 1) / sqrt(pixels)."""
  weights = np.random.default_rng(0).normal(size=(3, 2 * 2 * 3))
  generate = lambda z: (z @ weights).reshape(-1, *SHAPE)
  keys = jax.random.split(jax.random.key(0), N)
  z = jnp.asarray(np.random.default_rng(1).normal(size=(N, 3)))
  y = np.stack([jax.random.normal(key, SHAPE) for key in keys]) / 2
  lengths = np.linalg.norm(y.reshape(N, -1) @ weights.T, axis=1)
  inputs = GenPenaltyInputs(generate, z, keys, jnp.float64(1.5))
  value, mean = path_length(decay=0.1).value(inputs)
  new_mean = 0.9 * 1.5 + 0.1 * lengths.mean()
  assert float(mean) == pytest.approx(new_mean)
  assert float(value) == pytest.approx(np.mean((lengths - new_mean) ** 2))


def test_path_length_gradient_is_finite_for_a_constant_generator():
  keys = jax.random.split(jax.random.key(0), N)
  z, state = jnp.zeros((N, 3)), jnp.float64(0)

  def value(scale):
    generate = lambda z: scale * jnp.sum(z) * jnp.ones((N, *SHAPE))
    return path_length().value(GenPenaltyInputs(generate, z, keys, state))[0]

  assert np.isfinite(jax.grad(value)(0.0))


def test_lecam_by_hand():
  """The running means start at those of the first batch, then move by 1 -
  decay.
  """
  penalty = lecam(decay=0.75)
  inputs = lambda real, fake, state: PenaltyInputs(
    None, None, None, jnp.array(real), jnp.array(fake), None, state=state
  )
  value, state = penalty.value(inputs([1.0, 3.0], [-1.0, 1.0], penalty.init))
  # Means 2 and 0: (1 + 9) / 2 of the reals to 0, (9 + 1) / 2 of the fakes to 2.
  assert float(value) == pytest.approx(10)
  value, state = penalty.value(inputs([6.0, 6.0], [4.0, 4.0], state))
  # Means 2 + (6 - 2) / 4 = 3 and 0 + 4 / 4 = 1: 25 + 1.
  assert float(value) == pytest.approx(26)
  assert [float(state[k]) for k in ('real', 'fake', 'updates')] == [3, 1, 2]
  # The means are constant: the gradient is 2 (6 - 1) / n for each real.
  first = penalty.value(inputs([2.0, 2.0], [0.0, 0.0], penalty.init))[1]
  grad = jax.grad(
    lambda real: penalty.value(inputs(real, [4.0, 4.0], first))[0]
  )(jnp.array([6.0, 6.0]))
  np.testing.assert_allclose(grad, [5, 5])


def test_consistency_by_hand():
  """D returns one pixel: T mirrors and translates, and so changes its value."""
  n, size = 2000, 8  # translations by -1, 0 or 1
  column = jnp.arange(size, dtype=jnp.float64)[None, None, :, None] + 1
  real = jnp.broadcast_to(column, (n, size, size, 1))
  keys = jax.random.split(jax.random.key(0), n)
  disc = lambda images: images[:, 4, 3, 0]
  fake = 10 * real
  inputs = PenaltyInputs(disc, real, fake, disc(real), disc(fake), keys)
  # The pixel is 4; mirrored 5; a translation adds -1, 0 or 1 with 1/3 each (no
  # border reaches it). Squared changes: 0 1 1 and 1, (5 - 1 - 4) 0, (5 + 1 - 4)
  # 4: the mean is (2 / 3 + 5 / 3) / 2. The fakes are ten times as bright.
  expected = (2 / 3 + 5 / 3) / 2 * 101
  assert float(consistency()(inputs)) == pytest.approx(expected, rel=0.1)
  constant = lambda images: jnp.ones(len(images))
  ones = jnp.ones(n)
  inputs = PenaltyInputs(constant, real, fake, ones, ones, keys)
  assert float(consistency()(inputs)) == 0
  # The fakes go through a D with their own labels.
  inputs = inputs._replace(
    discriminate_fake=lambda images: jnp.zeros(len(images))
  )
  assert float(consistency()(inputs)) == 1


@pytest.mark.slow
def test_lecam_state_covers_all_devices(tmp_path):
  """A pmap run on two devices and a jit run have the same running means."""
  states = []
  for parallel in ('jit', 'pmap'):
    with jax.enable_x64(False):
      config = get_config('vanilla_mnist', 'tiny')
      config.parallel, config.total_images = parallel, 16 * 4
      config.game.penalties = {
        'lecam': {'weight': 0.1},
        'consistency': {'weight': 1.0},
      }
      loop.train(config, tmp_path / parallel)
      state = checkpoint.read(tmp_path / parallel, ('game_state',), 4)
    states.append(state['game_state']['penalties/lecam'])
  one, other = states
  assert one['updates'] == 4
  assert abs(float(one['real'])) > 1e-3
  for name in ('real', 'fake'):
    assert float(one[name]) == pytest.approx(
      float(other[name]), rel=1e-3, abs=1e-4
    )
