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
  """The output is determined by three numbers; for a grey image, two."""
  for key in KEYS:
    image = IMAGES[0]
    seen = np.asarray(augment.color(key, image), np.float64)
    brightness, saturation, contrast = jax.random.uniform(key, (3,))
    close(seen.mean(), image.mean() + brightness - 0.5)
    grey = lambda x: np.asarray(x, np.float64).mean(-1, keepdims=True)
    by_contrast = grey(image) - np.mean(image)
    close(grey(seen) - seen.mean(), (contrast + 0.5) * by_contrast)
    by_both = 2 * saturation * (contrast + 0.5) * (image - grey(image))
    close(seen - grey(seen), by_both)


@pytest.mark.parametrize('side, most', [(4, 1), (12, 2), (16, 2)])
def test_translation_is_at_most_an_eighth(side, most):
  """The limit rounds half up."""
  image = IMAGES[0, :side, :side]
  padded = np.pad(image, ((most, most), (most, most), (0, 0)))
  windows = {
    (i, j): padded[i : i + side, j : j + side]
    for i in range(2 * most + 1)
    for j in range(2 * most + 1)
  }
  found = set()
  for key in jax.random.split(jax.random.key(1), 300):
    seen = np.asarray(augment.translation(key, image))
    (place,) = [k for k, v in windows.items() if np.array_equal(v, seen)]
    found.add(place)
  assert found == set(windows)


@pytest.mark.parametrize('side, most', [(9, 5), (16, 8)])
def test_cutout_is_half_of_each_side(side, most):
  for key in jax.random.split(jax.random.key(1), 50):
    seen = np.asarray(augment.cutout(key, jnp.ones((side, side, 3))))
    gone = np.argwhere(seen[..., 0] == 0)
    sides = np.ptp(gone, axis=0) + 1
    assert (sides <= most).all()
    assert sides.prod() == len(gone)  # one rectangle
    touches = (gone.min(0) == 0) | (gone.max(0) == side - 1)
    assert (touches | (sides == most)).all()


def test_pipeline_is_differentiable():
  """Compares with finite differences of a weighted sum."""
  see = augment.make_augment(('color', 'translation', 'cutout'), 0.1)
  weights = IMAGES[::-1] ** 2
  total = lambda x: jnp.sum(see(x, KEYS, {}) * weights)
  way = jnp.roll(IMAGES, 1, axis=1)
  step = 1e-2
  apart = (total(IMAGES + step * way) - total(IMAGES - step * way)) / step / 2
  slope = jnp.sum(jax.grad(total)(IMAGES) * way)
  np.testing.assert_allclose(slope, apart, rtol=1e-2)


def test_each_image_uses_its_own_key():
  """The result does not depend on the rest of the batch."""
  see = augment.make_augment(('color', 'translation', 'cutout'), 0.1)
  together = see(IMAGES, KEYS, {})
  close(together[2:4], see(IMAGES[2:4], KEYS[2:4], {}))
  same = see(jnp.tile(IMAGES[:1], (N, 1, 1, 1)), KEYS, {})
  assert len(np.unique(np.asarray(same).reshape(N, -1), axis=0)) == N


def test_instance_noise_and_its_schedule():
  see = augment.make_augment(instance_noise=0.3)
  noise = np.asarray(see(IMAGES, KEYS, {}) - IMAGES)
  assert noise.std() == pytest.approx(0.3, rel=0.05)
  assert abs(noise.mean()) < 0.02
  half = see(IMAGES, KEYS, {'game.instance_noise': jnp.float32(0.15)}) - IMAGES
  close(half, noise / 2)
  np.testing.assert_array_equal(
    augment.make_augment()(IMAGES, KEYS, {}), IMAGES
  )


def test_pack_stacks_consecutive_images():
  packed = augment.make_augment(pack=3)(IMAGES, KEYS, {})
  assert packed.shape == (2, SIDE, SIDE, 9)
  for pack, place in np.ndindex(2, 3):
    np.testing.assert_array_equal(
      packed[pack, ..., 3 * place : 3 * place + 3], IMAGES[3 * pack + place]
    )
  with pytest.raises(UserError, match='pack=4 does not divide the batch size'):
    augment.make_augment(pack=4)(IMAGES, KEYS, {})


def test_unknown_augmentation():
  with pytest.raises(UserError, match=r"'colour'; did you mean 'color'\?"):
    augment.make_augment(('colour',))


def test_a_run_with_scheduled_instance_noise(tmp_path):
  """What the schedule gives alone is seen; by jit and by pmap it is the same.

  Noise of 1,000 deviations drowns what D is shown, and then it fades.
  """
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
