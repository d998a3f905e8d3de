"""Tests of inversion, and of directions in latent space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import get_config, untrained_run

from gan_jax.errors import UserError
from gan_jax.runs.directions import first_weights


@pytest.fixture
def run(monkeypatch):
  return sharpened(
    untrained_run(get_config('vanilla_mnist', 'tiny'), monkeypatch)
  )


@pytest.fixture
def conditional(monkeypatch):
  return sharpened(
    untrained_run(get_config('cgan_digits', 'tiny'), monkeypatch)
  )


@pytest.fixture
def style(monkeypatch):
  """A style-based generator of 8x8 pixels; few of them are clipped."""
  run = untrained_run(get_config('stylegan2', 'tiny'), monkeypatch)
  rgb = lambda path, x: x / 4 if 'torgb' in jax.tree_util.keystr(path) else x
  run.params = jax.tree_util.tree_map_with_path(rgb, run.params)
  return run


def sharpened(run):
  """Scales the last weights, because untrained images are grey."""
  params = run.params['params']
  run.params = {'params': {**params, 'Dense_1': scaled(params['Dense_1'], 2.0)}}
  return run


def scaled(layer, factor):
  return {name: factor * x for name, x in layer.items()}


def psnr(a, b):
  error = np.square(a.astype(float) - b).mean((1, 2, 3))
  return 10 * np.log10(255**2 / error)


def test_invert_finds_samples_of_the_run(run):
  images = run.sample(3, seed=1)
  found = run.invert(images, steps=300, starts=2)
  # The PSNR by hand, far above that of the nearest of 256 random samples.
  np.testing.assert_allclose(
    found.psnr, psnr(images, found.reconstructions), atol=1e-3
  )
  np.testing.assert_array_equal(
    found.reconstructions, run.generate(found.inputs)
  )
  others = run.sample(256)
  nearest = [psnr(x[None], others).max() for x in images]
  assert (found.psnr > np.array(nearest) + 4).all()
  assert found.latents.shape == (3, 64)
  assert (np.linalg.norm(found.latents, axis=1) < 11 + 1e-3).all()
  assert found.distance is None
  assert found.show().width % (2 * 28) == 0


def test_invert_gives_the_same_for_floats_and_uint8(run):
  images = run.sample(2, seed=1)
  floats = images.astype(np.float32) / 127.5 - 1
  one = run.invert(images, steps=5, starts=1)
  other = run.invert(floats, steps=5, starts=1)
  np.testing.assert_allclose(one.latents, other.latents, atol=1e-4)


def test_more_starts_improve_the_inversion(run):
  """The best start counts, and the first starts are the same."""
  images = run.sample(4, seed=2)
  few = run.invert(images, steps=30, starts=1)
  many = run.invert(images, steps=30, starts=4)
  assert (many.psnr >= few.psnr - 1e-3).all()
  assert (many.psnr > few.psnr + 0.1).any()


def test_invert_keeps_the_labels(conditional):
  images = conditional.sample(3, labels=[4, 4, 7])
  found = conditional.invert(images, steps=200, starts=2, labels=[4, 4, 7])
  assert found.inputs['labels'].argmax(-1).tolist() == [4, 4, 7]
  wrong = conditional.invert(images, steps=200, starts=2, labels=1)
  assert found.psnr.mean() > wrong.psnr.mean()
  with pytest.raises(UserError, match='this run is conditional: pass labels='):
    conditional.invert(images)


def test_invert_minimizes_a_feature_distance(run):
  images = run.sample(2, seed=1)
  few = run.invert(images, steps=1, starts=1, loss='digits')
  many = run.invert(images, steps=60, starts=1, loss='digits')
  assert (many.distance < few.distance).all()


def test_invert_keeps_uniform_latents_in_range(run):
  run.config.game.latent = 'uniform'
  found = run.invert(run.sample(2, seed=1), steps=20, starts=1)
  assert np.abs(found.latents).max() <= 1


@pytest.mark.slow  # trains a style-based network
def test_invert_in_w_plus_beats_w_and_z(style):
  """Each image has the styles of two samples, one for each half of the layers:
  only w+ can represent it.
  """
  ws = style.w(style.inputs(6)['z'])
  half = ws.shape[1] // 2
  mixed = np.concatenate([ws[:3, :half], ws[3:, half:]], axis=1)
  images = style.synthesize(mixed, noise='none')
  settings = {'steps': 100, 'starts': 2}
  found = {
    s: style.invert(images, space=s, **settings) for s in ('z', 'w', 'w+')
  }
  dim = ws.shape[2]
  assert found['z'].latents.shape == (3, 16)
  assert found['w'].latents.shape == (3, dim)
  assert found['w+'].latents.shape == (3, ws.shape[1], dim)
  found_ws = np.asarray(found['w'].inputs['ws'])
  np.testing.assert_array_equal(
    found_ws, found_ws[:, :1].repeat(ws.shape[1], 1)
  )
  for inversion in found.values():
    np.testing.assert_array_equal(
      inversion.reconstructions, style.generate(inversion.inputs)
    )
  psnrs = {space: np.median(x.psnr) for space, x in found.items()}
  assert psnrs['w+'] > psnrs['w'] + 5
  assert psnrs['w'] > psnrs['z']


def test_inversion_starts_from_the_encoding(monkeypatch):
  """At a learning rate of almost 0, the result is the single start."""
  run = untrained_run(get_config('bigan_digits', 'tiny'), monkeypatch)
  images = run.sample(3, seed=1)
  found = run.invert(images, steps=1, starts=1, learning_rate=1e-9)
  encoded = run.encode(images)['z']
  np.testing.assert_allclose(found.latents, encoded, atol=1e-6)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'steps': 0}, 'steps=0 must be 1 or more'),
    ({'starts': 0}, 'starts=0 must be 1 or more'),
    ({'space': 'w'}, "space='w': this generator has one space, 'z'"),
    ({'loss': 'lpips'}, "'lpips'"),
    ({'learning_rate': 0.0}, 'must be a positive number'),
    ({'labels': 3}, 'unconditional'),
  ],
)
def test_wrong_inversion_arguments_raise(run, arguments, message):
  with pytest.raises(UserError, match=message):
    run.invert(run.sample(1), **arguments)


def test_unknown_space_raises(style):
  message = r"unknown space 'w\*'.*\(valid: w, w\+, z\)"
  with pytest.raises(UserError, match=message):
    style.invert(style.sample(1), space='w*')


def test_no_images_raise(run):
  with pytest.raises(UserError, match='there are no images: pass one or more'):
    run.invert(run.sample(1)[:0])


def test_images_of_another_size_raise(run):
  with pytest.raises(UserError, match=r'takes \[n, 28, 28, 1\], not \[1, 32'):
    run.invert(np.zeros((1, 32, 32, 1), np.uint8))


def test_sefa_directions_are_singular_vectors_of_the_first_weights(conditional):
  """SeFa itself computes eigenvectors; this test compares singular values."""
  weights = np.float64(conditional.params['params']['Dense_0']['kernel'])[:64]
  found = conditional.directions(32).vectors  # of 32 units
  effect = np.linalg.norm(np.float64(found) @ weights, axis=1)
  expected = np.linalg.svd(weights, compute_uv=False)
  np.testing.assert_allclose(effect, expected, rtol=1e-5)
  np.testing.assert_allclose(found @ found.T, np.eye(32), atol=1e-5)


def test_first_weights_sorts_layers_by_number():
  params = {
    f'Dense_{i}': {'kernel': np.full((4, 4), float(i))} for i in range(1, 12)
  }
  assert first_weights(params, 4, 0)[0, 0] == 1
  del params['Dense_1'], params['Dense_2']
  params['Dense_2'] = {'kernel': np.zeros((3, 4))}
  assert first_weights(params, 4, 0)[0, 0] == 3
  with pytest.raises(UserError, match="use method='pca'"):
    first_weights(params, 64, 0)


def test_principal_directions_change_activations_the_most(run):
  """Against random directions, and in decreasing order."""
  inputs = run.inputs(100, seed=5)

  def change(v):
    moved = {**inputs, 'z': inputs['z'] + 0.5 * jnp.float32(v)[None]}
    # The activations of the last layer, before its tanh.
    layers = [
      np.arctanh(np.clip(run.generator(run.params, x), -1 + 1e-6, 1 - 1e-6))
      for x in (inputs, moved)
    ]
    return np.square(layers[1] - layers[0]).mean()

  found = run.directions(20, 'pca', samples=500).vectors
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
  rng = np.random.default_rng(0)
  others = rng.standard_normal((4, 64))
  others /= np.linalg.norm(others, axis=1, keepdims=True)
  assert change(found[0]) > 2 * np.mean([change(v) for v in others])
  assert change(found[0]) > change(found[19])


def test_label_directions_are_normal_to_the_separating_plane(run):
  """The labels are the sides of a known plane."""
  rng = np.random.default_rng(1)
  normal = rng.standard_normal(64)
  normal /= np.linalg.norm(normal)
  z = np.asarray(run.inputs(2000)['z'])
  found = run.directions(2, 'labels', labels=(z @ normal > 0).astype(int))
  assert found.names == ('0', '1')
  assert found.vectors[1] @ normal > 0.95
  assert found.vectors[0] @ normal < -0.95


def test_walk_has_the_sample_in_the_middle(conditional):
  found = conditional.directions(3)
  picture = np.asarray(conditional.walk(found, steps=5, seed=2, labels=1))
  size = picture.shape[1] // 5
  assert picture.shape == (3 * size, 5 * size)
  scale = size // 28
  middle = picture[::scale, ::scale][28:56, 56:84]
  sample = conditional.sample(1, seed=2, labels=1)[0, ..., 0]
  assert np.abs(middle.astype(int) - sample).max() <= 1
  with pytest.raises(UserError, match=r'have the shape \[n, 64\], not \[3, 8'):
    conditional.walk(np.zeros((3, 8)))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'n': 0}, 'n=0 must be 1 or more'),
    ({'n': 65}, 'n=65 is more than the 64 directions of this'),
    ({'method': 'sifa'}, "'sefa'"),
    ({'method': 'labels'}, "labels= goes with method='labels'"),
    ({'labels': 'digits'}, "labels= goes with method='labels'"),
    ({'method': 'labels', 'labels': 'pixels'}, 'do not classify'),
    ({'method': 'labels', 'labels': np.zeros(3, int)}, 'pass 2000 labels'),
    ({'method': 'labels', 'labels': np.zeros(2000, int)}, 'at least two class'),
  ],
)
def test_wrong_directions_arguments_raise(run, arguments, message):
  with pytest.raises(UserError, match=message):
    run.directions(**arguments)
