"""Tests of the perceptual path length: closed forms and the reference.

GOLDEN is the output of tests/path_length_reference.py.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from path_length_reference import LENGTHS, SPEC, paths, without_noise
from style_reference import FEATURES, LAYERS, MOST, W, Z, weights

import gan_jax
from gan_jax.errors import UserError
from gan_jax.games.game import Game, Output, Phase, Style
from gan_jax.games.latents import LATENTS
from gan_jax.games.losses import non_saturating
from gan_jax.games.style import style_game
from gan_jax.metrics import features
from gan_jax.metrics.path_length import (
  PATHS,
  Paths,
  check_game,
  distance_features,
  mean_length,
  path_lengths,
  sample_paths,
)
from gan_jax.models import style
from gan_jax.models.style_weights import from_reference, to_reference
from gan_jax.pair import Pair

GOLDEN = {
  'ppl_w_end': [
    4.649166243915764,
    1.8630898801512294,
    0.19399525463781442,
    0.08392246799949925,
  ],
  'ppl_w_full': [
    3.388295479427241,
    9.18793459482985,
    0.28325598912146943,
    0.0478505584692694,
  ],
  'ppl_z_end': [
    12.052212037237824,
    0.16812808647837707,
    0.5269300593033289,
    4.094867458217486,
  ],
  'ppl_z_full': [
    7.291581630544201,
    6.058858521706947,
    0.04263870324487852,
    0.9123966049215196,
  ],
}
MEAN = 1.5276241103555914
PHASE = Phase(0, 1, 4, None, Pair(0.0, 0.0), 0.0, 0, {})


def circle(latent='sphere'):
  """Returns a game on the plane: w is the direction of z; images are z or w."""
  latent = LATENTS[latent]
  norm = partial(jnp.linalg.norm, axis=-1, keepdims=True)

  def sample_inputs(keys, batch, phase):
    z = jax.vmap(lambda key: latent.draw(key, 2))(keys)
    return {'z': z, 'keys': keys}

  return Game(
    init=None,
    sample_inputs=sample_inputs,
    generate=None,
    outputs={'images': Output(lambda v, x, phase: x['z'][:, None, None])},
    updates=None,
    interpolate=lambda a, b, t: {'z': latent.interpolate(a['z'], b['z'], t)},
    style=Style(
      lambda v, x: (x['z'] / norm(x['z']))[:, None],
      lambda v, ws, keys, noise: ws[:, None],
      None,
    ),
  )


def measure(game, names, count=20_000):
  keys = jax.random.split(jax.random.key(0), count)
  sampled = sample_paths(game, keys, {}, PHASE)
  unit = partial(distance_features, features.make('pixels'), ())
  lengths = jax.jit(
    lambda x: path_lengths(names, game, {}, lambda: x, PHASE, unit)
  )(sampled)
  return sampled, {name: np.asarray(x) for name, x in lengths.items()}


def test_path_lengths_in_closed_form():
  """The angle between two latents of the plane is uniform on [0, pi].

  Along z, the image turns at constant speed; w starts on a chord, with the sine
  of the angle. Means exclude the lowest and the highest percent.
  """
  _, lengths = measure(circle(), ['ppl_z_end', 'ppl_z_full', 'ppl_w_end'])
  angle = math.pi**2 / 3 * (0.99**3 - 0.01**3) / 0.98
  assert mean_length(lengths['ppl_z_end']) == pytest.approx(angle, abs=0.08)
  assert mean_length(lengths['ppl_z_full']) == pytest.approx(angle, abs=0.08)
  assert mean_length(lengths['ppl_w_end']) == pytest.approx(0.5, abs=0.01)


def test_full_path_lengths_are_squared_speeds():
  """The angular speed of a point p with velocity v is |p x v| / |p|^2."""
  (a, b, t), lengths = measure(circle(), ['ppl_w_full'], 500)
  a, b = (np.float64(x['z']) for x in (a, b))
  a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
  p, v = a + np.float64(t)[:, None] * (b - a), b - a
  speed = (p[:, 0] * v[:, 1] - p[:, 1] * v[:, 0]) / np.sum(p**2, axis=1)
  near = np.abs(speed) < 10  # the chord does not pass the centre
  assert near.mean() > 0.9
  np.testing.assert_allclose(
    lengths['ppl_w_full'][near], speed[near] ** 2, rtol=0.02, atol=1e-4
  )


def test_uniform_latents_move_on_straight_lines():
  (a, b, _), lengths = measure(circle('uniform'), ['ppl_z_end'], 100)
  a, b = (np.float64(x['z']) for x in (a, b))
  speed = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / np.sum(a**2, axis=1)
  slow = np.abs(speed) < 10
  np.testing.assert_allclose(
    lengths['ppl_z_end'][slow], speed[slow] ** 2, rtol=0.02, atol=1e-4
  )


def test_path_lengths_equal_the_reference_in_float64():
  """The four metrics of NVlabs' sampler, on its G."""
  architecture, _, side, channels, classes, clamp, _ = SPEC
  gen = style.Generator(
    resolution=side,
    channels=channels,
    features=FEATURES,
    most_features=MOST,
    clamp=clamp,
    architecture=architecture,
    w_dim=W,
    mapping_layers=LAYERS,
    mixing=0.0,
  )
  with jax.enable_x64(True):
    a, b, labels, t = map(jnp.asarray, paths())
    keys = jax.random.split(jax.random.key(0), len(t))
    shapes = jax.eval_shape(lambda: gen.init(keys[0], a, keys, False, labels))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape), shapes)
    shapes = {k: v.shape for k, v in to_reference(zeros).items()}
    found = from_reference(without_noise(weights(shapes)))
    game = style_game(
      gen,
      style.Generator(side, channels),  # D is not called
      loss=non_saturating(1.0),
      latent=LATENTS['gaussian'],
      latent_dim=Z,
      classes=classes,
    )
    a, b = ({'z': z, 'labels': labels, 'keys': keys} for z in (a, b))

    def extract(images):
      flat = images.reshape(len(images), -1)
      return flat / jnp.linalg.norm(flat, axis=1, keepdims=True)

    lengths = jax.jit(
      lambda v: path_lengths(
        list(PATHS), game, v, lambda: Paths(a, b, t), PHASE, extract
      )
    )(jax.tree.map(jnp.asarray, found.variables))
    for name, golden in GOLDEN.items():
      np.testing.assert_allclose(lengths[name], golden, rtol=1e-6)
  assert mean_length(LENGTHS) == pytest.approx(MEAN, rel=1e-12)


def test_distance_features_downsample_large_images():
  """A checkerboard of 512 pixels is grey at 256."""
  board = np.indices((512, 512)).sum(0) % 2 * 2.0 - 1
  images = jnp.float32(np.stack([board, board * 0.5]))[..., None]
  inputs = []
  network = features.Features(
    'seen',
    '',
    (),
    lambda weights, x: inputs.append(x) or {'features': x[:, 0, :, 0]},
  )
  found = distance_features(network, (), images)
  assert inputs[0].shape == (2, 256, 256, 1)
  np.testing.assert_allclose(inputs[0], 127.5)
  np.testing.assert_allclose(found, 1 / 16, rtol=1e-6)  # of length 1


def test_unsupported_games_raise():
  game = circle()._replace(style=None)
  check_game(['ppl_z_full'], game)
  with pytest.raises(UserError, match='ppl_w_end needs a style-based gen'):
    check_game(['ppl_w_end'], game)
  with pytest.raises(UserError, match='ppl_z_end interpolates latents'):
    check_game(['ppl_z_end'], game._replace(interpolate=None))


def test_path_length_of_images_raises(tmp_path):
  images = np.zeros((4, 8, 8, 3), np.uint8)
  with pytest.raises(UserError, match='ppl_z_end measures a generator'):
    gan_jax.evaluate(images, images, metrics='ppl_z_end', features='pixels')


@pytest.mark.slow  # trains a style-based network
def test_style_run_has_all_four_path_lengths(tmp_path):
  """The protocol of each contains its features."""
  config = gan_jax.experiment('experiments/stylegan2.py:tiny')
  config.total_images = 16
  config.precision = 'bfloat16'  # the paths are measured in float32
  gan_jax.train(config, tmp_path)
  run = gan_jax.load(tmp_path)
  settings = {'features': 'digits', 'num_samples': 64}
  scores = gan_jax.evaluate(run, metrics=tuple(PATHS), **settings)
  assert list(scores) == list(PATHS)
  for score in scores.values():
    assert 0 < score.value < 1e4
    assert score.best == 'lowest'
    assert score.protocol['features']['name'] == 'digits'
    assert score.protocol['fakes']['images'] == 64
  constant = gan_jax.evaluate(
    run, metrics='ppl_w_end', truncation=0.0, **settings
  )
  assert constant['ppl_w_end'].value == pytest.approx(0, abs=1e-6)
