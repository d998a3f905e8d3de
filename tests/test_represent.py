"""Tests of InfoGAN, BiGAN, and D's features as representations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import get_config, untrained_run
from scipy.stats import norm

from examples import augmentation, representations
from gan_jax import games
from gan_jax.errors import UserError
from gan_jax.games import Context
from gan_jax.games.game import main_output
from gan_jax.games.infogan import gaussian_nll, split_outputs
from gan_jax.training.schedule import make_schedule


def dense_infogan():
  """Returns InfoGAN with the networks of vanilla_mnist.py, without dropout."""
  config = get_config('infogan_digits', 'tiny')
  config.model = get_config('vanilla_mnist', 'tiny').model
  config.model.disc.dropout = 0.0
  return config


def players(config):
  """Returns a game, its phase, a batch, a context, fakes and keys."""
  game, phase = games.make(config), make_schedule(config).phase(0)
  size = config.data.resolution
  images = jax.random.uniform(
    jax.random.key(1), (8, size, size, config.data.channels), minval=-1
  )
  batch = {'images': images, 'example': jnp.arange(8)}
  variables, state = jax.jit(game.init)(jax.random.key(0), batch)
  keys = jax.random.split(jax.random.key(2), 8)
  inputs = game.sample_inputs(keys, batch, phase)
  fakes, _ = game.generate(variables.gen, inputs, phase)
  context = Context(variables, inputs, state, ())
  return game, phase, batch, context, fakes, keys


def test_codes_are_uniform_and_change_the_samples():
  config = get_config('infogan_digits', 'tiny')
  game, phase, _, context, fakes, _ = players(config)
  inputs = game.sample_inputs(
    jax.random.split(jax.random.key(3), 4000), {}, phase
  )
  share = np.asarray(inputs['class']).mean(0)
  assert share.shape == (10,)
  np.testing.assert_allclose(share, 0.1, atol=0.02)
  codes = np.asarray(inputs['codes'])
  np.testing.assert_allclose(codes.mean(0), 0, atol=0.03)
  np.testing.assert_allclose(codes.var(0), 1 / 3, atol=0.02)  # of U(-1, 1)
  assert np.abs(np.corrcoef(codes.T)[0, 1]) < 0.05
  rotated = {**context.inputs, 'class': jnp.roll(context.inputs['class'], 1, 1)}
  other = main_output(game).sample(context.variables.gen, rotated, phase)
  assert np.abs(other - fakes).max() > 1e-3


def test_information_bound_by_hand():
  """The class logits and the Gaussian's density, in float64."""
  outputs = np.array([[1.0, 2.0, 0.5, -0.5, 0.1, 0.3]], np.float32)
  logits, mean, log_std = split_outputs(jnp.asarray(outputs), 2, 2)
  np.testing.assert_allclose(logits, [[1.0, 2.0]])
  codes = np.array([[0.2, 0.9]])
  expected = -norm.logpdf(codes, [[0.5, -0.5]], np.exp([[0.1, 0.3]])).sum()
  found = gaussian_nll(jnp.asarray(codes, jnp.float32), mean, log_std)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_both_players_add_the_weighted_bound():
  config = dense_infogan()
  config.game.class_weight, config.game.code_weight = 2.0, 0.5
  game, phase, batch, context, fakes, keys = players(config)
  for player in ('gen', 'disc'):
    (update,) = getattr(game.updates, player)
    params = getattr(context.variables, player)['params']
    loss, aux = update.loss(params, context, batch, fakes, keys, phase)
    disc = lambda x: game.discriminate(
      context.variables.disc, {'images': x}, phase
    )
    real, fake = disc(batch['images']).logits, disc(fakes).logits
    softplus = lambda x: np.log1p(np.exp(np.float64(x)))
    expected = softplus(-fake).mean()
    if player == 'disc':
      expected = softplus(-real).mean() + softplus(fake).mean()
    bound = 2 * aux.metrics['class_loss'] + 0.5 * aux.metrics['code_loss']
    np.testing.assert_allclose(loss, expected + bound, rtol=1e-5)
    assert 1.5 < aux.metrics['class_loss'] < 3.5  # about log 10, untrained


def test_infogan_encodes_by_hand(monkeypatch):
  run = untrained_run(dense_infogan(), monkeypatch)
  images = run.sample(300)
  found = run.encode(images)
  assert found['codes'].shape == (300, 2)
  np.testing.assert_allclose(found['class'].sum(1), 1, rtol=1e-5)
  # Q by hand: the 32 units of the only layer, then 1 + 10 + 2 * 2 outputs.
  params = jax.tree.map(np.float64, run.disc_vars['params'])
  x = images.reshape(300, -1) / 127.5 - 1
  x = x @ params['Dense_0']['kernel'] + params['Dense_0']['bias']
  x = np.where(x > 0, x, 0.2 * x)
  outputs = x @ params['Dense_1']['kernel'] + params['Dense_1']['bias']
  assert outputs.shape[1] == 15
  np.testing.assert_allclose(found['codes'], outputs[:, 11:13], atol=1e-4)
  np.testing.assert_allclose(
    run.discriminator(images), outputs[:, 0], atol=1e-4
  )


def test_bigan_losses_by_hand():
  """E's loss is G's with reals in place of fakes: -log(1 - D(x, E(x)))."""
  config = get_config('bigan_digits', 'tiny')
  config.model.disc.dropout = 0.0
  game, phase, batch, context, fakes, keys = players(config)
  params = jax.tree.map(np.float64, context.variables.disc['params'])

  def logits(images, z):  # D by hand: pixels and latents, 32 units, a logit
    x = np.concatenate([np.float64(images).reshape(8, -1), z], axis=1)
    x = x @ params['Dense_0']['kernel'] + params['Dense_0']['bias']
    x = np.where(x > 0, x, 0.2 * x)
    return (x @ params['Dense_1']['kernel'] + params['Dense_1']['bias'])[:, 0]

  real = logits(batch['images'], fakes['z'])
  fake = logits(fakes['images'], context.inputs['z'])
  softplus = lambda x: np.log1p(np.exp(x))
  expected = {
    'gen': softplus(-fake).mean() + softplus(real).mean(),
    'disc': softplus(-real).mean() + softplus(fake).mean(),
  }
  for player, value in expected.items():
    (update,) = getattr(game.updates, player)
    params_of = getattr(context.variables, player)['params']
    loss, _ = update.loss(params_of, context, batch, fakes, keys, phase)
    np.testing.assert_allclose(loss, value, rtol=1e-5)


def test_bigan_encodes_and_samples(monkeypatch):
  run = untrained_run(get_config('bigan_digits', 'tiny'), monkeypatch)
  images = run.sample(5)
  z = run.encode(images)['z']
  assert z.shape == (5, 64)
  reconstructions = run.generate({**run.inputs(5), 'z': jnp.asarray(z)})
  assert reconstructions.shape == images.shape
  with pytest.raises(UserError, match='needs more than images'):
    run.features(images)
  with pytest.raises(UserError, match='needs more than images'):
    run.discriminator(images)


def test_features_are_the_activations_of_a_layer(monkeypatch):
  """The second MLP layer of the full D, by hand."""
  config = get_config('vanilla_mnist', 'tiny')
  config.model.disc.hidden = (32, 16, 8)
  run = untrained_run(config, monkeypatch)
  images = run.sample(300)
  params = jax.tree.map(np.float64, run.disc_vars['params'])
  x = images.reshape(300, -1) / 127.5 - 1
  x = x @ params['Dense_0']['kernel'] + params['Dense_0']['bias']
  x = np.where(x > 0, x, 0.2 * x)
  x = x @ params['Dense_1']['kernel'] + params['Dense_1']['bias']
  np.testing.assert_allclose(run.features(images, 'Dense_1'), x, atol=1e-4)
  logits = run.features(images, -1)
  np.testing.assert_allclose(logits[:, 0], run.discriminator(images), atol=1e-5)
  assert run.features(images).shape == (300, 8)
  with pytest.raises(UserError, match=r"no layer 'Dense_7'.*did you mean"):
    run.features(images, 'Dense_7')
  with pytest.raises(UserError, match=r'layer=9 of . layers does not exist'):
    run.features(images, 9)


@pytest.mark.parametrize(
  'name',
  ['dcgan_celeba', pytest.param('progressive_celeba', marks=pytest.mark.slow)],
)
def test_features_of_convolutions_are_flat(name, monkeypatch):
  config = get_config(name, 'tiny')
  run = untrained_run(config, monkeypatch)
  found = run.features(run.sample(2), 0)
  assert found.ndim == 2
  assert np.ptp(found) > 0


def test_features_of_a_conditional_disc_depend_on_labels(monkeypatch):
  run = untrained_run(get_config('cgan_digits', 'tiny'), monkeypatch)
  images = run.sample(3)
  one, other = (run.features(images, 0, labels=c) for c in (1, 2))
  assert np.abs(one - other).max() > 1e-4
  with pytest.raises(UserError, match='is conditional and needs labels'):
    run.features(images)


def test_unsupported_games_raise(monkeypatch):
  run = untrained_run(get_config('vanilla_mnist', 'tiny'), monkeypatch)
  with pytest.raises(UserError, match="the game 'image' has no encoder"):
    run.encode(run.sample(1))
  for name, changes, message in (
    ('infogan_digits', {'data.classes': 10}, 'learns without labels'),
    ('infogan_digits', {'model.disc.name': 'resnet'}, 'with a second head'),
    ('bigan_digits', {'model.disc.name': 'dcgan'}, 'a D of images and latents'),
    ('bigan_digits', {'model.encoder.name': 'resnet'}, 'a second head'),
  ):
    config = get_config(name, 'tiny')
    for key, value in changes.items():
      if key.startswith('model.'):
        config.model[key.split('.')[1]] = {'name': value}
      else:
        config.data.classes = value
    with pytest.raises(UserError, match=message):
      games.make(config)


def test_agreement_of_codes_and_classes_by_hand():
  """The codes are permuted classes, except for one of eight."""
  classes = np.array([0, 0, 1, 1, 2, 2, 3, 3])
  codes = np.array([3, 3, 0, 0, 1, 1, 2, 0])
  nmi, accuracy = representations.agreement(codes, classes)
  assert accuracy == 7 / 8
  # Entropies and mutual information, in nats, by their definitions.
  share = lambda x: np.bincount(x) / 8
  entropy = lambda p: -sum(q * np.log(q) for q in p if q)
  joint = entropy(share(codes * 4 + classes))
  mutual = entropy(share(codes)) + entropy(share(classes)) - joint
  mean = (entropy(share(codes)) + entropy(share(classes))) / 2
  assert nmi == pytest.approx(mutual / mean)
  assert representations.agreement(classes, classes) == (1, 1)


def test_probes_on_separable_and_on_random_features():
  rng = np.random.default_rng(0)
  labels = np.arange(400) % 4
  good = np.eye(4)[labels] + 0.05 * rng.standard_normal((400, 4))
  noise = rng.standard_normal((400, 4))
  for probe in (
    representations.linear_probe,
    representations.nearest_neighbors,
  ):
    split = lambda x: (x[:200], labels[:200], x[200:], labels[200:])
    assert probe(*split(good)) == 1
    assert probe(*split(noise)) < 0.4


def test_train_and_test_digits_of_the_examples_do_not_overlap():
  train, test = representations.read(None)
  assert (len(train['labels']), len(test['labels'])) == (4000, 1000)
  assert sorted(train['labels'][:10]) == list(range(10))
  known = {x.tobytes() for x in train['images']}
  assert sum(x.tobytes() in known for x in test['images']) < 5
  images, labels, others, _ = augmentation.split(5, seed=1)
  assert np.bincount(labels).tolist() == [5] * 10
  assert len(others) == 4950
  assert images.shape[1:] == (28, 28, 1)
