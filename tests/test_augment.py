"""Tests of the augmentation pipeline against hand-computed values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import get_config, metrics

from gan_jax.errors import UserError
from gan_jax.games import augment
from gan_jax.training import loop

N, SIDE = 6, 16
IMAGES = jnp.asarray(
  np.random.default_rng(0).normal(size=(N, SIDE, SIDE, 3)), jnp.float32
)
KEYS = jax.random.split(jax.random.key(0), N)
close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_color_shifts_and_scales():
  """Three random numbers determine the output; two for a grey image."""
  for key in KEYS:
    image = IMAGES[0]
    augmented = np.asarray(augment.color(key, image), np.float64)
    brightness, saturation, contrast = jax.random.uniform(key, (3,))
    close(augmented.mean(), image.mean() + brightness - 0.5)
    grey = lambda x: np.asarray(x, np.float64).mean(-1, keepdims=True)
    by_contrast = grey(image) - np.mean(image)
    close(grey(augmented) - augmented.mean(), (contrast + 0.5) * by_contrast)
    by_both = 2 * saturation * (contrast + 0.5) * (image - grey(image))
    close(augmented - grey(augmented), by_both)


@pytest.mark.parametrize('side, limit', [(4, 1), (12, 2), (16, 2)])
def test_translation_is_at_most_an_eighth(side, limit):
  """The limit rounds half up."""
  image = IMAGES[0, :side, :side]
  padded = np.pad(image, ((limit, limit), (limit, limit), (0, 0)))
  windows = {
    (i, j): padded[i : i + side, j : j + side]
    for i in range(2 * limit + 1)
    for j in range(2 * limit + 1)
  }
  found = set()
  for key in jax.random.split(jax.random.key(1), 300):
    shifted = np.asarray(augment.translation(key, image))
    (offset,) = [k for k, v in windows.items() if np.array_equal(v, shifted)]
    found.add(offset)
  assert found == set(windows)


@pytest.mark.parametrize('side, limit', [(9, 5), (16, 8)])
def test_cutout_removes_at_most_half_of_each_side(side, limit):
  for key in jax.random.split(jax.random.key(1), 50):
    cut = np.asarray(augment.cutout(key, jnp.ones((side, side, 3))))
    removed = np.argwhere(cut[..., 0] == 0)
    sides = np.ptp(removed, axis=0) + 1
    assert (sides <= limit).all()
    assert sides.prod() == len(removed)  # one rectangle
    touches = (removed.min(0) == 0) | (removed.max(0) == side - 1)
    assert (touches | (sides == limit)).all()


def test_pipeline_is_differentiable():
  """Compares with finite differences of a weighted sum."""
  augment_all = augment.make_augment(('color', 'translation', 'cutout'), 0.1)
  weights = IMAGES[::-1] ** 2
  total = lambda x: jnp.sum(augment_all(x, KEYS, {}) * weights)
  direction = jnp.roll(IMAGES, 1, axis=1)
  step = 1e-2
  difference = (
    (total(IMAGES + step * direction) - total(IMAGES - step * direction))
    / step
    / 2
  )
  derivative = jnp.sum(jax.grad(total)(IMAGES) * direction)
  np.testing.assert_allclose(derivative, difference, rtol=1e-2)


def test_each_image_uses_its_own_key():
  """The result does not depend on the rest of the batch."""
  augment_all = augment.make_augment(('color', 'translation', 'cutout'), 0.1)
  batch = augment_all(IMAGES, KEYS, {})
  close(batch[2:4], augment_all(IMAGES[2:4], KEYS[2:4], {}))
  same = augment_all(jnp.tile(IMAGES[:1], (N, 1, 1, 1)), KEYS, {})
  assert len(np.unique(np.asarray(same).reshape(N, -1), axis=0)) == N


def test_instance_noise_has_the_scheduled_std():
  augment_all = augment.make_augment(instance_noise=0.3)
  noise = np.asarray(augment_all(IMAGES, KEYS, {}) - IMAGES)
  assert noise.std() == pytest.approx(0.3, rel=0.05)
  assert abs(noise.mean()) < 0.02
  half = (
    augment_all(IMAGES, KEYS, {'game.instance_noise': jnp.float32(0.15)})
    - IMAGES
  )
  close(half, noise / 2)
  np.testing.assert_array_equal(
    augment.make_augment()(IMAGES, KEYS, {}), IMAGES
  )


def test_pack_stacks_consecutive_images():
  packed = augment.make_augment(pack=3)(IMAGES, KEYS, {})
  assert packed.shape == (2, SIDE, SIDE, 9)
  for pack, position in np.ndindex(2, 3):
    np.testing.assert_array_equal(
      packed[pack, ..., 3 * position : 3 * position + 3],
      IMAGES[3 * pack + position],
    )
  with pytest.raises(UserError, match='pack=4 does not divide the batch size'):
    augment.make_augment(pack=4)(IMAGES, KEYS, {})


def test_unknown_augmentation_raises():
  with pytest.raises(UserError, match=r"'colour'; did you mean 'color'\?"):
    augment.make_augment(('colour',))


@pytest.mark.slow
def test_scheduled_instance_noise_acts_under_jit_and_pmap(tmp_path):
  """Noise with a std of 1,000 hides all images from D, and then fades."""
  config = get_config('vanilla_mnist', 'tiny')
  noise = {'game.instance_noise': ('linear', 1000.0, 0.0)}
  config.schedule = ({'images': config.total_images, 'values': noise},)
  runs = []
  for parallel in ('jit', 'pmap'):
    config.parallel = parallel
    loop.train(config, tmp_path / parallel)
    runs.append(metrics(tmp_path / parallel))
  for one, other in zip(*runs, strict=True):
    assert one == pytest.approx(other, rel=1e-3, abs=1e-3)
  assert runs[0][0]['disc/loss'] > 5 * runs[0][-1]['disc/loss']
