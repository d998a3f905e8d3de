"""Tests of PSNR, SSIM and feature distances: by hand and against BasicSR."""

import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.metrics.paired import feature_distance, psnr, ssim

# (border, luma) -> PSNR and SSIM of both images of `_images`, by
# xinntao/BasicSR's calculate_psnr and calculate_ssim (OpenCV 5), run once.
GOLDEN = {
  (0, True): ([26.86174202, 26.79941559], [0.48970058, 0.50265553]),
  (0, False): ([22.06152329, 22.04773892], [0.38213941, 0.38216768]),
  (4, True): ([26.87730598, 26.9621315], [0.49740861, 0.5444822]),
  (4, False): ([22.07856708, 22.05053246], [0.4001207, 0.40912662]),
}


def _images():
  rng = np.random.RandomState(0)
  rng.uniform(0, 1, (23, 18, 3))
  rng.randint(0, 256, (2, 32, 40, 3))
  rows = np.sin(np.arange(32) / 5)[:, None, None]
  columns = np.cos(np.arange(40) / 7)[None, :, None]
  base = (127 + 80 * rows * columns * np.array([1, 0.5, -0.7]))[None]
  noisy = lambda std: np.clip(
    base + std * rng.randn(2, 32, 40, 3), 0, 255
  ).astype(np.uint8)
  return noisy(20), noisy(3)


@pytest.mark.parametrize('border, luma', GOLDEN)
def test_psnr_and_ssim_equal_basicsr(border, luma):
  x, y = _images()
  psnrs, ssims = GOLDEN[border, luma]
  np.testing.assert_allclose(psnr(x, y, border, luma), psnrs, atol=1e-5)
  np.testing.assert_allclose(ssim(x, y, border, luma), ssims, atol=1e-4)


def test_psnr_by_hand():
  """A difference of 10 everywhere: 20 log10(25.5)."""
  x = np.full((1, 4, 4, 1), 100, np.uint8)
  assert psnr(x, x + np.uint8(10))[0] == pytest.approx(20 * np.log10(25.5))
  # Only green differs, by 51: luma by 128.553 / 5.
  a, b = (np.zeros((1, 4, 4, 3), np.uint8) for _ in range(2))
  b[..., 1] = 51
  expected = 20 * np.log10(255 / (128.553 / 5))
  assert psnr(a, b)[0] == pytest.approx(expected)
  assert psnr(a, a)[0] == np.inf
  # The border is left out.
  b = a.copy()
  b[:, 0] = 255
  assert psnr(a, b)[0] < 20
  assert psnr(a, b, border=1)[0] == np.inf


def test_ssim_of_equal_and_of_flat_images():
  """For flat images of 100 and 110, only the luminance term is below 1."""
  x, _ = _images()
  np.testing.assert_allclose(ssim(x, x), [1, 1], atol=1e-5)
  flat = np.full((1, 16, 16, 1), 100, np.uint8)
  c1 = (0.01 * 255) ** 2
  expected = (2 * 100 * 110 + c1) / (100**2 + 110**2 + c1)
  assert ssim(flat, flat + np.uint8(10))[0] == pytest.approx(expected, abs=1e-4)


def test_feature_distance_by_hand():
  """Equal directions: 0; orthogonal ones: 2; opposite ones: 4."""
  features = np.array([[2.0, 0], [1, 0], [1, 0]])
  targets = np.array([[5.0, 0], [0, 3], [-2, 0]])
  np.testing.assert_allclose(
    feature_distance(features, targets), [0, 2, 4], atol=1e-8
  )


def test_mismatched_images_raise():
  x = np.zeros((1, 16, 16, 3), np.uint8)
  with pytest.raises(UserError, match='one shape'):
    psnr(x, x[:, 1:])
  with pytest.raises(UserError, match='too small'):
    psnr(x, x, border=8)
  with pytest.raises(UserError, match='11x11'):
    ssim(x, x, border=4)
