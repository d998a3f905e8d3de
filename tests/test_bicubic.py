"""Tests of MATLAB's bicubic resizing: against BasicSR's imresize, by hand."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.ops.bicubic import imresize, weights

# Of xinntao/BasicSR's imresize, run once in float64 (PyTorch 2), for
# RandomState(0).uniform(0, 1, (23, 18, 3)): shape, every fifth of the flat
# result, and the sum of result * cos(0, 1, 2, ...).
RESIZED = {
  '1/4': (
    (6, 5, 3),
    [0.505505629, 0.409499007, 0.516599054, 0.509337763, 0.64750712],
    0.19866978,
  ),
  '1/3': (
    (8, 6, 3),
    [0.436444938, 0.528172288, 0.515625126, 0.552640313, 0.464247566],
    0.10803466,
  ),
  '1/2': (
    (12, 9, 3),
    [0.40082294, 0.533115501, 0.514741764, 0.534655016, 0.640546642],
    -0.97691409,
  ),
  '2': (
    (46, 36, 3),
    [0.58147595, 1.043422564, 0.087535164, 0.412047314, 0.028072712],
    -1.41635264,
  ),
  '3': (
    (69, 54, 3),
    [0.58761781, 0.961936379, 0.31730316, 0.846642347, 0.805263856],
    -0.8601185,
  ),
  '4': (
    (92, 72, 3),
    [0.589774346, 0.504640679, 0.532880856, 0.746673337, 0.019055],
    -0.20050252,
  ),
}


@pytest.mark.parametrize('scale', RESIZED)
def test_imresize_equals_basicsr(scale):
  shape, values, total = RESIZED[scale]
  image = np.random.RandomState(0).uniform(0, 1, (23, 18, 3))
  with jax.enable_x64(True):
    resized = imresize(jnp.asarray(image[None]), float(Fraction(scale)))
    assert resized.dtype == jnp.float64
  resized = np.asarray(resized[0])
  assert resized.shape == shape
  flat = resized.ravel()
  np.testing.assert_allclose(flat[:: flat.size // 5][:5], values, atol=1e-8)
  cosines = np.cos(np.arange(flat.size))
  assert flat @ cosines == pytest.approx(total, abs=1e-6)


def test_imresize_in_float32_is_close_to_float64():
  image = np.random.RandomState(1).uniform(-1, 1, (1, 32, 24, 3))
  rows, columns = weights(32, 0.25), weights(24, 0.25)
  exact = np.einsum('nhwc,Hh,Ww->nHWc', image, rows, columns)
  resized = imresize(jnp.asarray(image, jnp.float32), 0.25)
  assert resized.dtype == jnp.float32
  np.testing.assert_allclose(resized, exact, atol=1e-6)


def test_weights_of_half_by_hand():
  """Taps at distances 1/4, 3/4, 5/4, 7/4 of Keys' cubic, halved and mirrored:
  .8671875, .2265625, -.0703125, -.0234375 (sum 1 a side).
  """
  taps = np.array([-0.0234375, -0.0703125, 0.2265625, 0.8671875]) / 2
  matrix = weights(16, 0.5)
  assert matrix.shape == (8, 16)
  np.testing.assert_allclose(matrix[3, 3:11], [*taps, *taps[::-1]], atol=1e-12)
  # Output 0 reaches 3 pixels beyond the border: -1, -2, -3 are 0, 1, 2.
  first = np.zeros(16)
  for position, tap in zip(range(-3, 5), [*taps, *taps[::-1]], strict=True):
    first[position if position >= 0 else -1 - position] += tap
  np.testing.assert_allclose(matrix[0], first, atol=1e-12)


@pytest.mark.parametrize('scale', (0.25, 0.5, 2.0, 4.0))
def test_weights_reproduce_a_ramp_away_from_the_border(scale):
  """Keys' cubic reproduces linear functions exactly."""
  ramp = np.arange(64.0)
  resized = weights(64, scale) @ ramp
  expected = (np.arange(len(resized)) + 0.5) / scale - 0.5
  edge = len(resized) // 8
  np.testing.assert_allclose(
    resized[edge:-edge], expected[edge:-edge], atol=1e-9
  )
