"""Tests of metrics: by hand, in closed form, and against reference packages."""

import json

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats
from certify import metrics as certify
from certify.inputs import feature_pairs, image_pairs, logits

from gan_jax import metrics
from gan_jax.errors import UserError
from gan_jax.metrics import kernel

GOLDEN = json.loads(certify.GOLDEN.read_text())


def gaussian(n, covariance, mean=0.0, seed=0):
  """Makes n examples with exactly this mean and covariance."""
  x = np.random.default_rng(seed).standard_normal((n, len(covariance)))
  x -= x.mean(0)
  x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
  return x @ np.linalg.cholesky(covariance).T + mean


def line(*points):
  return np.array(points, float)[:, None]


def ours():
  """Computes the values of `certify.golden` with our metrics."""
  values = {}
  for name, (real, fake) in feature_pairs().items():
    kid = metrics.kid(real, fake, **certify.KID)
    values[name] = {
      'fid': metrics.fid(real, fake),
      'kid_mean': kid.mean,
      'kid_std': kid.std,
      **metrics.precision_recall(real, fake)._asdict(),
      **metrics.density_coverage(real, fake)._asdict(),
    }
  odds = np.exp(logits())
  score = metrics.inception_score(odds / odds.sum(1, keepdims=True))
  values['logits'] = {
    'inception_mean': score.mean,
    'inception_std': score.std,
  }
  for name, images in image_pairs().items():
    values[name] = {'ms_ssim': metrics.ms_ssim(images, pairs=3)}
  return values


def test_metrics_equal_the_golden_numbers():
  """Our values agree with torch-fidelity, prdc and pytorch-msssim to 1e-5."""
  for name, values in ours().items():
    assert values == pytest.approx(GOLDEN['values'][name], rel=1e-5), name


@pytest.mark.certify
def test_reference_packages_give_the_golden_numbers():
  for name, values in certify.golden().items():
    assert values == pytest.approx(GOLDEN['values'][name], rel=1e-6), name


# Moments


def test_merged_moments_equal_those_of_all_examples():
  x = np.random.default_rng(0).normal(1e4, 1.0, (1000, 5))
  total = metrics.moments(x[:0])
  for part in np.split(x, [1, 4, 4, 700, 901]):
    total = metrics.merge(total, metrics.moments(part))
  assert total.count == 1000
  np.testing.assert_allclose(total.mean, x.mean(0), rtol=1e-14)
  np.testing.assert_allclose(total.covariance(), np.cov(x.T), atol=1e-12)
  # Moments of processes are merged in any order.
  a, b, c = (metrics.moments(part) for part in np.split(x, [300, 350]))
  again = metrics.merge(c, metrics.merge(a, b))
  np.testing.assert_allclose(again.scatter, total.scatter, atol=1e-9)


def test_moments_of_float32_are_computed_in_float64():
  x = np.float32(4096) + np.arange(1000, dtype=np.float32)[:, None] / 1024
  exact = np.cov(x.astype(np.float64).T)
  assert metrics.moments(x).covariance()[0, 0] == pytest.approx(
    float(exact), 1e-12
  )


# FID


def test_fid_of_known_gaussians():
  """|mu|^2 + sum (s_i - t_i)^2 for diagonal S = s^2, T = t^2."""
  s, t = np.array([1.0, 2.0, 0.5]), np.array([3.0, 1.0, 0.5])
  real = gaussian(50, np.diag(s**2))
  fake = gaussian(70, np.diag(t**2), mean=np.array([1.0, -2.0, 0.0]), seed=1)
  by_hand = 5 + 4 + 1 + 0
  assert metrics.fid(real, fake) == pytest.approx(by_hand, 1e-12)
  of_moments = metrics.fid(metrics.moments(real), metrics.moments(fake))
  assert of_moments == pytest.approx(by_hand, 1e-12)


def test_fid_of_covariances_that_do_not_commute():
  """tr (S T)^(1/2) of 2x2 is (tr S T + 2 (det S T)^(1/2))^(1/2)."""
  s, t = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 4]])
  product = s @ t
  common = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
  value = metrics.fid(gaussian(40, s), gaussian(30, t, seed=1))
  assert value == pytest.approx(5 + 5 - 2 * common, rel=1e-11)


def test_fid_of_singular_covariances():
  draw = np.random.default_rng(0)
  x = draw.standard_normal((40, 300))  # fewer examples than features
  assert 0 <= metrics.fid(x, x) < 1e-9
  assert metrics.fid(x, x + 0.1) == pytest.approx(300 * 0.01, rel=1e-9)
  # S_f = 4 S_r: tr S_r + 4 tr S_r - 4 tr S_r.
  centred = x - x.mean(0)
  trace = (centred**2).sum() / 39
  assert metrics.fid(centred, 2 * centred) == pytest.approx(trace, rel=1e-9)
  constant = np.full((40, 300), 0.25)
  assert metrics.fid(constant, constant) == 0
  assert metrics.fid(centred, np.zeros((9, 300))) == pytest.approx(trace)
  # Variances from 1 to 1e-16, known.
  covariance = np.diag(10.0 ** -np.arange(17))
  a, b = gaussian(90, covariance), gaussian(80, 4 * covariance, seed=1)
  assert metrics.fid(a, b) == pytest.approx(np.trace(covariance), rel=1e-7)
  assert 0 <= metrics.fid(a, gaussian(80, covariance, seed=2)) < 1e-7


def test_fid_of_invalid_features_raises():
  x = np.random.default_rng(0).standard_normal((9, 3))
  with pytest.raises(UserError, match='covariance of 1 example'):
    metrics.fid(x, x[:1])
  x[4, 2] = np.nan
  with pytest.raises(UserError, match='not finite'):
    metrics.fid(np.zeros((9, 3)), x)


# KID


def test_kid_equals_a_double_loop():
  """One subset contains all examples, so its draws only order them."""
  draw = np.random.default_rng(0)
  x, y = draw.standard_normal((12, 5)), draw.standard_normal((12, 5)) + 0.3
  dot = lambda a, b: sum(p * q for p, q in zip(a, b, strict=True))
  kernel = lambda a, b: (dot(a, b) / 5 + 1) ** 3
  within = sum(
    kernel(s[i], s[j])
    for s in (x, y) for i in range(12) for j in range(12) if i != j
  )  # fmt: skip
  across = sum(kernel(a, b) for a in x for b in y)
  value = metrics.kid(x, y, subsets=3, subset_size=12)
  assert value.mean == pytest.approx(within / 132 - 2 * across / 144, rel=1e-10)
  assert value.std == pytest.approx(0, abs=1e-12)


def test_kid_is_unbiased():
  """For equal distributions, values lie around 0, on both sides."""
  draw = np.random.default_rng(0)
  x, y = draw.standard_normal((2, 2000, 8))
  values = [metrics.kid(x, y, 1, 100, seed).mean for seed in range(100)]
  assert abs(np.mean(values)) < 0.01 < np.std(values)
  assert metrics.kid(x[:200], y[:200], 5, 100).mean != 0


def test_kid_with_too_large_subsets_raises():
  with pytest.raises(UserError, match='80 real and 120 fake'):
    metrics.kid(np.zeros((80, 2)), np.zeros((120, 2)), subset_size=100)


# cmmd-pytorch's `mmd`, run once in float64 on `embeddings()`.
CMMD = 2.688758202


def embeddings():
  """Two sets of unit vectors in float32."""
  draw = np.random.default_rng(5)
  x = draw.standard_normal((70, 16))
  y = 1.3 * draw.standard_normal((50, 16)) + 0.7
  return [
    (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    for z in (x, y)
  ]


@pytest.mark.parametrize('block', [4096, 70, 16, 1])
def test_cmmd_is_that_of_the_reference(block):
  found = kernel.cmmd(*embeddings(), block=block)
  assert found == pytest.approx(CMMD, rel=1e-6)


def cmmd_in_float64(x, y):
  """The formula, pair by pair."""
  mean = lambda a, b: np.exp(
    -((a[:, None] - b[None, :]) ** 2).sum(2) / (2 * 10**2)
  ).mean()
  return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def test_cmmd_of_distances_beyond_sigma():
  """Of features with a mean far from 0."""
  x, y = 8 * np.random.default_rng(0).standard_normal((2, 60, 4)) + 50
  exact = cmmd_in_float64(x, y)
  assert metrics.cmmd(x, y) == pytest.approx(exact, rel=1e-5)


def test_cmmd_of_near_sets():
  """In float32, 1 + 1 - 2 exp(-e) would be wrong by 1e-3 of its value."""
  x = np.eye(3, 8)
  y = x + 0.1 * np.eye(3, 8, 3)
  exact = cmmd_in_float64(x, y)
  assert exact == pytest.approx(1000 * 2 / 3 * (0.1**2 / 200), rel=1e-3)
  assert metrics.cmmd(x, y) == pytest.approx(exact, rel=1e-4)
  assert metrics.cmmd(x, x) == pytest.approx(0, abs=1e-9)
  with pytest.raises(UserError, match='3 real and 0 fake'):
    metrics.cmmd(x, x[:0])


# Classes


def test_inception_score_by_hand():
  sure = np.eye(5)[np.arange(50) % 5]
  assert metrics.inception_score(sure, splits=1) == pytest.approx((5, 0))
  unsure = np.full((50, 5), 0.2)
  assert metrics.inception_score(unsure) == pytest.approx((1, 0))
  # p(y) = (3/4, 1/4): half of the rows (1, 0), half (1/2, 1/2).
  rows = np.array([[1.0, 0.0], [0.5, 0.5]] * 10)
  kl = (np.log(4 / 3) + 0.5 * np.log(2 / 3) + 0.5 * np.log(2)) / 2
  score = metrics.inception_score(rows, splits=1).mean
  assert score == pytest.approx(np.exp(kl), rel=1e-12)


def test_inception_score_of_invalid_input_raises():
  with pytest.raises(UserError, match='softmax'):
    metrics.inception_score(np.random.default_rng(0).normal(size=(50, 5)))
  with pytest.raises(UserError, match='9 examples'):
    metrics.inception_score(np.full((9, 4), 0.25))


def test_class_coverage_by_hand():
  real = np.array([0, 0, 1, 1, 2, 2, 3, 3])
  covered, kl, histogram = metrics.class_coverage(
    real, np.array([0, 0, 0, 2]), classes=5
  )
  assert covered == 2
  np.testing.assert_array_equal(histogram, [0.75, 0, 0.25, 0, 0])
  assert kl == pytest.approx(0.75 * np.log(3) + 0.25 * np.log(1), rel=1e-12)
  assert metrics.class_coverage(real, real, 4).kl == 0
  unseen = metrics.class_coverage(real, np.array([0, 4]), 5)
  assert unseen.kl == np.inf
  assert unseen.covered == 2
  with pytest.raises(UserError, match='fake labels'):
    metrics.class_coverage(real, np.array([5]), 5)


# Neighbours


def test_nearest_neighbors_by_hand():
  found = metrics.nearest_neighbors(line(0.9, 10), line(0, 1, 3, 7), k=2)
  np.testing.assert_allclose(found.distances, [[0.1, 0.9], [3, 7]], rtol=1e-12)
  np.testing.assert_array_equal(found.indices, [[1, 0], [3, 2]])
  with pytest.raises(UserError, match='k=5'):
    metrics.nearest_neighbors(line(0), line(0, 1, 3, 7), k=5)


def test_nearest_neighbors_in_several_blocks(monkeypatch):
  """Agrees with float64, with block sizes that do not divide the sets."""
  monkeypatch.setattr(metrics.neighbors, 'QUERIES', 30)
  monkeypatch.setattr(metrics.neighbors, 'BASE', 64)
  draw = np.random.default_rng(0)
  # Far from 0, where float32 rounds away the differences between points.
  a = 1000 + draw.standard_normal((100, 40))
  b = 1000 + draw.standard_normal((200, 40))
  b[150] = a[7]
  b[199] = b[3]
  exact = np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))
  found = metrics.nearest_neighbors(a, b, k=4)
  order = np.argsort(exact, 1, kind='stable')  # of equals, the first
  np.testing.assert_array_equal(found.indices, order[:, :4])
  np.testing.assert_allclose(found.distances, np.sort(exact, 1)[:, :4])
  assert found.distances[7, 0] == 0
  itself = metrics.nearest_neighbors(b, b, k=2)
  np.testing.assert_array_equal(itself.distances[:, 0], 0)
  assert itself.distances[3, 1] == itself.distances[199, 1] == 0
  # The metrics are the same in blocks.
  radius = np.sort(np.sqrt(((b[:, None] - b[None]) ** 2).sum(2)), 1)[:, 3]
  inside = exact <= radius
  assert metrics.precision_recall(b, a).precision == inside.any(1).mean()


def test_precision_and_recall_by_hand():
  """Reals 0, 1, 3, 7: with k = 1 the radii are 1, 1, 2, 4."""
  real, fake = line(0, 1, 3, 7), line(-1, -1.01, 5.75, 11.01)
  # -1 lies on the sphere of 0, and so in the ball; 5.75 in the ball of 7.
  # The fakes' radii are .01, .01, 5.26, 5.26: 1, 3 and 7 are in.
  value = metrics.precision_recall(real, fake, k=1)
  assert value == (2 / 4, 3 / 4)
  with pytest.raises(UserError, match='3 neighbours'):
    metrics.precision_recall(real, fake[:3])
  with pytest.raises(UserError, match='3 neighbours'):
    metrics.precision_recall(real[:3], fake)


def test_density_and_coverage_by_hand():
  """Balls of k = 2: 0 +- 3, 1 +- 2, 3 +- 3, 7 +- 6."""
  real, fake = line(0, 1, 3, 7), line(-1, 0.5, 1.5)
  # -1: in 0's (on 1's sphere: out); .5: 0, 1, 3; 1.5: 0, 1, 3, 7.
  assert metrics.density_coverage(real, fake, k=2) == (8 / (2 * 3), 1)
  # 4: in 3's, 7's (3 from 1: out).
  far = line(4, 4, 4)
  assert metrics.density_coverage(real, far, k=2) == (6 / (2 * 3), 2 / 4)
  with pytest.raises(UserError, match='5 neighbours'):
    metrics.density_coverage(np.zeros((9, 1)), fake)


def test_points_on_spheres_are_classified_exactly():
  """In identical sets, each open ball contains its center and k - 1 points."""
  x = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)
  assert metrics.density_coverage(x, x) == (1, 1)
  assert metrics.precision_recall(x, x) == (1, 1)
  same = np.full((20, 64), 0.3)
  assert metrics.precision_recall(same, same) == (1, 1)
  assert metrics.density_coverage(same, same) == (0, 0)
  assert metrics.precision_recall(x, same + 9) == (0, 0)


def test_memorisation_detects_copies():
  draw = np.random.default_rng(0)
  train, unseen, like = draw.standard_normal((3, 400, 8))
  value = metrics.memorisation(train, unseen, train[:100])
  assert (value.closer, value.fake_median) == (1, 0)
  assert value.held_out_median > 0.5
  assert metrics.memorisation(train, unseen, like).closer == pytest.approx(
    0.5, abs=0.06
  )
  assert metrics.memorisation(train, unseen, like + 9).closer == 0
  # d = 1, 2 against 1, 3: of the four pairs, 1 = 1, 1 < 3, 2 > 1, 2 < 3.
  by_hand = metrics.memorisation(line(0), line(1, 3), line(1, 2))
  assert by_hand == (2.5 / 4, 1.5, 2)
  with pytest.raises(UserError, match='0 held-out'):
    metrics.memorisation(train, unseen[:0], like)


# Images


def smooth_images(n, side, channels, seed, smooth=1.5):
  x = np.random.default_rng(seed).normal(size=(n, side, side, channels))
  x = scipy.ndimage.gaussian_filter(x, (0, smooth, smooth, 0))
  return np.clip(128 + 60 * x / x.std(), 0, 255).astype(np.uint8)


def pyramid(images, levels):
  """Computes the pyramid of Karras et al. 2018 with scipy."""
  kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])[None, :, :, None] / 256
  smooth = lambda x: scipy.ndimage.convolve(x, kernel, mode='mirror')
  out = [images.astype(float)]
  for _ in range(levels - 1):
    small = smooth(out[-1])[:, ::2, ::2]
    large = np.zeros_like(out[-1])
    large[:, ::2, ::2] = small
    out[-1] = out[-1] - 4 * smooth(large)
    out.append(small)
  return out


def patches_at(level, seed, index):
  """Cuts and normalizes patches one by one."""
  n, h, w, _ = level.shape
  places, directions = np.random.default_rng((seed, index)).spawn(2)
  rows = places.integers(h - 6, size=(n, 128))
  columns = places.integers(w - 6, size=(n, 128))
  cut = np.stack(
    [
      level[i, y : y + 7, x : x + 7]
      for i in range(n)
      for y, x in zip(rows[i], columns[i], strict=True)
    ]
  )
  cut = (cut - cut.mean((0, 1, 2))) / cut.std((0, 1, 2))
  return cut.transpose(0, 3, 1, 2).reshape(len(cut), -1), directions


def test_sliced_wasserstein_equals_scipy():
  real, fake = (
    smooth_images(6, 64, 3, 0),
    smooth_images(6, 64, 3, 1, smooth=2.0),
  )
  value = metrics.sliced_wasserstein(real, fake, seed=5)
  assert list(value.levels) == [64, 32, 16]
  pyramids = pyramid(real, 3), pyramid(fake, 3)
  for index, side in enumerate(value.levels):
    (a, draw), (b, _) = (patches_at(x[index], 5, index) for x in pyramids)
    means = []
    for _ in range(512):
      u = draw.standard_normal(147)
      u /= np.linalg.norm(u)
      means.append(scipy.stats.wasserstein_distance(a @ u, b @ u))
    expected = 1000 * np.mean(means)
    assert value.levels[side] == pytest.approx(expected, rel=1e-4)
  assert value.mean == pytest.approx(np.mean(list(value.levels.values())))


def test_sliced_wasserstein_orders_similar_and_different():
  real, fake = smooth_images(100, 28, 1, 0), smooth_images(100, 28, 1, 1)
  assert metrics.sliced_wasserstein(real, real).mean == 0
  near = metrics.sliced_wasserstein(real, fake)
  assert list(near.levels) == [28]
  far = metrics.sliced_wasserstein(
    real, smooth_images(100, 28, 1, 1, smooth=0.5)
  )
  assert near.mean < far.mean / 5
  flat = np.full((100, 28, 28, 1), 9, np.uint8)
  assert metrics.sliced_wasserstein(flat, flat).mean == 0
  assert np.isfinite(metrics.sliced_wasserstein(real, flat).mean)
  wide = np.tile(real, (1, 2, 4, 1))
  assert list(metrics.sliced_wasserstein(wide, wide).levels) == [56, 28]


def test_sliced_wasserstein_of_wrong_shapes_raises():
  x = smooth_images(4, 28, 1, 0)
  with pytest.raises(UserError, match='4 real and 3 fake'):
    metrics.sliced_wasserstein(x, x[:3])
  with pytest.raises(UserError, match='12x12'):
    metrics.sliced_wasserstein(x[:, :12, :12], x[:, :12, :12])


def ms_ssim_by_scipy(x, y):
  x, y = x.astype(float), y.astype(float)
  value = 1
  weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
  for scale, weight in enumerate(weights):
    size = min(11, *x.shape[:2])
    at = np.arange(size) - (size - 1) / 2
    taps = np.exp(-(at**2) / (2 * (1.5 * size / 11) ** 2))
    window = np.outer(taps, taps)[..., None] / taps.sum() ** 2
    smooth = lambda z, k=window: scipy.signal.convolve(z, k, 'valid', 'direct')
    m, n = smooth(x), smooth(y)
    s, t = smooth(x * x) - m * m, smooth(y * y) - n * n
    both = smooth(x * y) - m * n
    cs = (2 * both + 58.5225) / (s + t + 58.5225)
    light = (2 * m * n + 6.5025) / (m * m + n * n + 6.5025)
    last = scale == len(weights) - 1
    value *= max((light * cs if last else cs).mean(), 0) ** weight
    h, w, _ = x.shape
    x, y = (z[: h - h % 2, : w - w % 2] for z in (x, y))
    x, y = (
      (z[::2, ::2] + z[1::2, ::2] + z[::2, 1::2] + z[1::2, 1::2]) / 4
      for z in (x, y)
    )
  return value


@pytest.mark.parametrize('side, channels', [(16, 1), (28, 1), (64, 3)])
def test_ms_ssim_equals_scipy(side, channels):
  images = smooth_images(2, side, channels, 0, smooth=4)
  images[1] = images[0] // 2 + images[1] // 2
  value = metrics.ms_ssim(images, pairs=4)
  assert value == pytest.approx(ms_ssim_by_scipy(*images), rel=1e-5)
  assert 0.1 < value < 0.99


def test_ms_ssim_orders_similar_and_different():
  images = smooth_images(20, 32, 3, 0)
  assert metrics.ms_ssim(np.repeat(images[:1], 9, 0), 50) == pytest.approx(1)
  alike = images // 8 + images[:1] // 8 * 7
  assert metrics.ms_ssim(images, 500) < 0.5 < metrics.ms_ssim(alike, 500)
  opposite = np.stack([images[0], 255 - images[0]])
  assert metrics.ms_ssim(opposite, 10) == 0
  with pytest.raises(UserError, match='15x15'):
    metrics.ms_ssim(images[:, :15, :15])
  with pytest.raises(UserError, match='1 image'):
    metrics.ms_ssim(images[:1])


def test_wrong_feature_shapes_raise():
  images = np.zeros((4, 8, 8, 1), np.uint8)
  with pytest.raises(
    UserError, match=r'features must be \[n, d\], not \[4, 8, 8'
  ):
    metrics.moments(images)
  few, many = np.zeros((4, 8)), np.zeros((4, 16))
  with pytest.raises(UserError, match='of two networks'):
    metrics.fid(few, many)
