"""Tests of golden numbers on which scores depend, and of their versions.

Scores carry the versions of their metric, of their features and of the
preprocessing, and are compared only if these agree. So numbers may change only
together with a version.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.signal
import scipy.spatial.distance
import scipy.special
import scipy.stats
import test_path_length
from PIL import Image
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from test_metrics import ms_ssim_by_scipy, patches_at, pyramid, smooth_images

from gan_jax.data import preprocess
from gan_jax.data.source import DataSpec
from gan_jax.data.toys import named_toy
from gan_jax.metrics import cifar10, digits
from gan_jax.metrics.features import FEATURES
from gan_jax.metrics.measure import METRICS, Reference
from gan_jax.metrics.metric_inputs import MetricInputs
from gan_jax.metrics.moments import moments

# For each metric: the version of its row, and its scores of `inputs()`, which
# the functions `by_...` compute independently.
GOLDEN = {
  'classes': (1, {'classes_kl': 0.005142063036, 'classes_covered': 4}),
  'cmmd': (1, {'cmmd': 8.710087187}),
  'density_coverage': (1, {'coverage': 0.95, 'density': 0.58}),
  'divergence': (1, {'jensen_shannon': 0.03787031768, 'kl': 0.2692896963}),
  'fid': (1, {'fid': 1.491098738}),
  'inception_score': (1, {'inception_score': 1.188586743}),
  'kid': (1, {'kid': 0.4300215919}),
  'memorisation': (1, {'memorisation': 0.353125}),
  'modes': (1, {'high_quality': 0.725, 'modes_found': 8}),
  'ms_ssim': (1, {'ms_ssim': 0.8682420153}),
  'precision_recall': (1, {'precision': 0.825, 'recall': 0.975}),
  'swd': (
    1,
    {'swd': 69.69522426, 'swd_32': 60.57352664, 'swd_16': 78.81692187},
  ),
  'wasserstein': (1, {'wasserstein': 0.3593081631}),
}

MEANT = (
  '{what} gives other numbers than its version {version} did. If that is '
  'meant, raise the version in {where} by one, and put the version and the new '
  'numbers here; if it is not, the change is a bug.'
)


def inputs():
  """Returns features, probabilities, images and points from NumPy's seeds."""
  draw = np.random.default_rng(0)
  real, held_out, fake = draw.standard_normal((3, 40, 6))
  fake = 1.2 * fake + 0.3
  odds = np.exp(draw.standard_normal((2, 40, 4)))
  probabilities = odds / odds.sum(2, keepdims=True)
  alike = smooth_images(1, 32, 1, 2) // 4 * 3
  images = tuple(alike + smooth_images(3, 32, 1, seed) // 4 for seed in (0, 1))
  toy = named_toy('toy:ring')
  points = toy.modes[draw.integers(8, size=(2, 40))]
  points += draw.standard_normal(points.shape) * [[[0.02]], [[0.04]]]
  return {
    'features': (real, fake),
    'held_out': held_out,
    'probabilities': tuple(probabilities),
    'images': images,
    'points': tuple(points.astype(np.float32)),
    'toy': toy,
  }


def measured(name, given):
  """Returns the scores of a metric, by its row in METRICS."""
  toy = name in ('divergence', 'modes', 'wasserstein')

  def metric_inputs(index):
    features = given['features'][index]
    images = given['points' if toy else 'images'][index]
    return MetricInputs(
      count=40,
      moments=moments(features),
      features=features,
      images=images[:, None, None] if toy else images,
      probabilities=given['probabilities'][index],
    )

  held_out = MetricInputs(count=40, features=given['held_out'])
  reference = Reference(
    metric_inputs(0), held_out, given['toy'] if toy else None
  )
  return METRICS[name].compute(reference, metric_inputs(1))


# The same in float64, by independent implementations.


def by_fid(given):
  a, b = (np.cov(x.T) for x in given['features'])
  difference = np.subtract(*(x.mean(0) for x in given['features']))
  common = scipy.linalg.sqrtm(a @ b).real
  return {'fid': difference @ difference + np.trace(a + b - 2 * common)}


def by_kid(given):
  """Each subset contains all 40 examples."""
  x, y = given['features']
  kernel = lambda p, q: polynomial_kernel(p, q, degree=3, gamma=1 / 6, coef0=1)
  within = sum(k.sum() - np.trace(k) for k in (kernel(x, x), kernel(y, y)))
  return {'kid': within / (40 * 39) - 2 * kernel(x, y).mean()}


def by_cmmd(given):
  """Pairs of an example with itself count, too."""
  x, y = given['features']
  kernel = lambda p, q: rbf_kernel(p, q, gamma=1 / 200).mean()
  return {'cmmd': 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))}


def by_inception_score(given):
  fake = given['probabilities'][1]
  fake = fake[np.random.RandomState(2020).permutation(40)]
  scores = [
    np.exp(scipy.stats.entropy(part.T, part.mean(0)[:, None]).mean())
    for part in np.split(fake, 10)
  ]
  return {'inception_score': np.mean(scores)}


def by_classes(given):
  real, fake = (
    np.bincount(p.argmax(1), minlength=4) / 40 for p in given['probabilities']
  )
  covered = float((fake > 0).sum())
  return {
    'classes_kl': scipy.stats.entropy(fake, real),
    'classes_covered': covered,
  }


def radii(points, k):
  within = scipy.spatial.distance.cdist(points, points)
  return np.sort(within, 1)[:, k]  # the 0th is the point itself


def by_precision_recall(given):
  share = lambda points, centres: (
    (scipy.spatial.distance.cdist(points, centres) <= radii(centres, 3))
    .any(1)
    .mean()
  )
  real, fake = given['features']
  return {'precision': share(fake, real), 'recall': share(real, fake)}


def by_density_coverage(given):
  real, fake = given['features']
  distances = scipy.spatial.distance.cdist(fake, real)
  inside = distances < radii(real, 5)
  return {
    'coverage': inside.any(0).mean(),
    'density': inside.sum() / (5 * len(fake)),
  }


def by_memorisation(given):
  """The probability that a fake is nearer to the data than a held-out image."""
  real, fake = given['features']
  of = lambda x: scipy.spatial.distance.cdist(x, real).min(1)
  test = scipy.stats.mannwhitneyu(of(given['held_out']), of(fake))
  return {'memorisation': test.statistic / 40**2}


def by_swd(given):
  levels = {}
  for index, pair in enumerate(
    zip(*(pyramid(images, 2) for images in given['images']), strict=True)
  ):
    (a, draw), (b, _) = (patches_at(level, 0, index) for level in pair)
    means = []
    for _ in range(512):
      u = draw.standard_normal(49)
      u /= np.linalg.norm(u)
      means.append(scipy.stats.wasserstein_distance(a @ u, b @ u))
    levels[f'swd_{pair[0].shape[1]}'] = 1000 * np.mean(means)
  return {'swd': np.mean(list(levels.values())), **levels}


def by_ms_ssim(given):
  """Three images have three pairs; each is drawn a known number of times."""
  images = given['images'][1]
  draw = np.random.default_rng(0)
  first = draw.integers(3, size=10_000)
  second = (first + draw.integers(1, 3, size=10_000)) % 3
  similarity = {
    (i, j): ms_ssim_by_scipy(images[i], images[j])
    for i, j in ((0, 1), (0, 2), (1, 2))
  }
  pairs = zip(np.minimum(first, second), np.maximum(first, second), strict=True)
  return {'ms_ssim': np.mean([similarity[i, j] for i, j in pairs])}


def by_modes(given):
  """Within 3 standard deviations, each 0.02, of a mode of the ring."""
  distances = scipy.spatial.distance.cdist(
    given['points'][1], given['toy'].modes
  )
  near = distances < 3 * 0.02
  return {
    'high_quality': near.any(1).mean(),
    'modes_found': float(near.any(0).sum()),
  }


def by_divergence(given):
  limit = 2.5  # the ring's radius, 2, and a half
  p, q = (
    np.histogram2d(*x.T, bins=25, range=2 * [[-limit, limit]])[0].ravel() / 40
    for x in given['points']
  )
  smooth = lambda x: 0.99 * x + 0.01 / 625
  return {
    'jensen_shannon': scipy.spatial.distance.jensenshannon(p, q) ** 2,
    'kl': scipy.stats.entropy(smooth(q), smooth(p)),
  }


def by_wasserstein(given):
  """The assignment of fakes to reals with the lowest cost."""
  costs = scipy.spatial.distance.cdist(*given['points'])
  rows, columns = scipy.optimize.linear_sum_assignment(costs)
  return {'wasserstein': costs[rows, columns].mean()}


# Metrics whose numbers other files test, and their versions.
ELSEWHERE = {
  'classification_accuracy': (1, 'test_conditional.py'),
  'fid_per_class': (1, 'test_conditional.py'),
  'label_accuracy': (1, 'test_conditional.py'),
  'ppl_w_end': (1, 'test_path_length.py'),
  'ppl_w_full': (1, 'test_path_length.py'),
  'ppl_z_end': (1, 'test_path_length.py'),
  'ppl_z_full': (1, 'test_path_length.py'),
  'psnr': (1, 'test_paired.py'),
  'ssim': (1, 'test_paired.py'),
}


def test_every_metric_has_golden_numbers():
  assert GOLDEN.keys() | ELSEWHERE.keys() == METRICS.keys()
  for name, (version, file) in ELSEWHERE.items():
    assert METRICS[name].version == version
    text = (Path(__file__).parent / file).read_text()
    assert f'def test_{name}_' in text or name in test_path_length.GOLDEN


@pytest.mark.parametrize('name', GOLDEN)
def test_metric_equals_its_golden_numbers(name):
  version, golden = GOLDEN[name]
  given = inputs()
  independent = globals()[f'by_{name}'](given)
  assert independent == pytest.approx(golden, rel=1e-6), 'the inputs differ'
  message = MEANT.format(
    what=name, version=version, where='METRICS (metrics/measure.py)'
  )
  assert METRICS[name].version == version, message
  found = measured(name, given)
  assert found == pytest.approx(golden, rel=1e-4), message
  assert set(METRICS[name].scores) <= found.keys()


# Features.

FEATURE_VERSIONS = {'cifar10': 1, 'digits': 1, 'pixels': 1}


def convolve(x, kernel, stride):
  """Returns a layer without ReLU, in float64: [h, w, c], 1 pixel of padding."""
  x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
  maps = [
    sum(
      scipy.signal.correlate2d(x[..., i], kernel[..., i, o], 'valid')
      for i in range(x.shape[2])
    )
    for o in range(kernel.shape[3])
  ]
  return np.stack(maps, -1)[::stride, ::stride]


def by_classifier(params, image, strides, mean):
  """Returns the features of the networks of `digits` and `cifar10`."""
  x = image / 127.5 - 1
  for layer, stride in enumerate(strides):
    x = convolve(x, np.float64(params[f'kernel_{layer}']), stride)
    x = np.maximum(x + np.float64(params[f'bias_{layer}'])[0], 0)
  if mean:
    return x.mean((0, 1))
  dense = params['Dense_0']
  return np.maximum(x.ravel() @ np.float64(dense['kernel']) + dense['bias'], 0)


def by_features(name, image):
  """Returns one image's features, in float64."""
  if name == 'pixels':
    return image.ravel() / 127.5 - 1
  if name == 'digits':
    params = digits.load()[0]['params']
    return by_classifier(params, image.mean(-1, keepdims=True), 3 * [2], False)
  params = cifar10.load()[0]['params']
  return by_classifier(params, image, 3 * [1, 2], True)


@pytest.mark.parametrize('name', FEATURE_VERSIONS)
def test_features(name):
  """(Those of Inception: test_inception.py and test_protocols.py; those of
  DINOv2 and CLIP: test_vit.py.)
  """
  others = {'inception', 'inception_clean', 'inception_torch', 'dinov2', 'clip'}
  assert FEATURES.keys() == {*FEATURE_VERSIONS, *others}
  version = FEATURE_VERSIONS[name]
  message = MEANT.format(
    what=name, version=version, where='FEATURES (metrics/features.py)'
  )
  network = FEATURES[name]()
  assert network.version == version, message
  side = 28 if name == 'digits' else 32
  (image,) = smooth_images(1, side, 3, 0)
  features = jax.jit(network.extract)(network.weights, image[None])['features']
  expected = by_features(name, image)
  np.testing.assert_allclose(
    features[0], expected, rtol=1e-3, atol=1e-4, err_msg=message
  )


# Preprocessing.


def lanczos(size, smaller):
  """Returns the matrix that reduces an axis: antialiased Lanczos, 3 lobes."""
  scale = size / smaller
  centres = (np.arange(smaller) + 0.5) * scale - 0.5
  x = (np.arange(size)[None] - centres[:, None]) / scale
  taps = np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
  return taps / taps.sum(1, keepdims=True)


def test_preprocessing_equals_an_independent_implementation():
  """The largest central square, resized once."""
  message = MEANT.format(
    what='preprocess', version=1, where='data/preprocess.py (VERSION)'
  )
  assert preprocess.VERSION == 1, message
  (image,) = smooth_images(1, 48, 3, 0)
  image = image[4:44]  # 40 high, 48 wide
  found = preprocess.preprocess(Image.fromarray(image), DataSpec('', 16, 3))
  matrix = lanczos(40, 16)
  square = image[:, 4:44].astype(np.float64)
  # One axis after the other, each rounded.
  wide = np.clip(np.einsum('jkc,lk->jlc', square, matrix), 0, 255).round()
  expected = np.clip(np.einsum('jlc,ij->ilc', wide, matrix), 0, 255)
  assert abs(found - expected).max() <= 1, message
