"""Tests of the image game: conditional games, auxiliary classifiers, packs,
lazy penalties and clipping.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from runs import get_config
from schedules import one_segment_schedule

import gan_jax
from gan_jax import config as cfg
from gan_jax import data, games
from gan_jax.errors import UserError
from gan_jax.games import augment, losses, penalties
from gan_jax.games.discriminate import class_loss
from gan_jax.games.game import main_output
from gan_jax.games.image import image_game
from gan_jax.games.latents import LATENTS
from gan_jax.models import mlp, resnet
from gan_jax.models.spectral import Dense
from gan_jax.pair import Pair
from gan_jax.plots.grid import labels_by_class, show
from gan_jax.training import loop

N, CLASSES = 4, 3
KEYS = jax.random.split(jax.random.key(0), N)
LABELS = jnp.array([0, 2, 1, 2])
BATCH = {
  'images': jnp.arange(N * 2.0).reshape(N, 1, 1, 2),
  'labels': LABELS,
  'example': jnp.arange(N),
}
PHASE = one_segment_schedule(8, 1).phase(0)


class Generator(nn.Module):
  """Two pixels: the latent, and the number of the class."""

  @nn.compact
  def __call__(self, z, keys, train, labels=None):
    number = (
      jnp.zeros(len(z)) if labels is None else labels @ jnp.arange(CLASSES)
    )
    scale = self.param('scale', nn.initializers.ones, ())
    return scale * jnp.stack([z[:, 0], number], axis=1)[:, None, None]


class Discriminator(nn.Module):
  """The logit is a linear function of the image."""

  spectral: bool = False
  auxiliary: bool = False

  @nn.compact
  def __call__(self, images, keys, train, labels=None):
    flat = images.reshape(len(images), -1)
    logits = Dense(1, spectral=self.spectral)(flat)[:, 0]
    if self.auxiliary:
      return logits, Dense(CLASSES, name='classes')(flat)
    return logits


def make(disc=None, **settings):
  game = image_game(
    Generator(),
    disc or Discriminator(),
    loss=losses.wasserstein(),
    latent=LATENTS['gaussian'],
    latent_dim=1,
    **settings,
  )
  variables, _ = jax.jit(game.init)(jax.random.key(1), BATCH)
  return game, variables


def disc_step(game, variables, index=0):
  """Returns D's loss, its Aux, and fakes of the labels of the batch."""
  inputs = game.sample_inputs(KEYS, BATCH, PHASE)
  fakes, _ = game.generate(variables.gen, inputs, PHASE)
  context = games.Context(variables, inputs, (), ())
  loss = game.updates.disc[index].loss
  params = variables.disc['params']
  return (*loss(params, context, BATCH, fakes, KEYS, PHASE), fakes)


def test_fakes_have_the_labels_of_the_reals():
  game, variables = make(classes=CLASSES)
  inputs = game.sample_inputs(KEYS, BATCH, PHASE)
  fakes, _ = game.generate(variables.gen, inputs, PHASE)
  np.testing.assert_array_equal(fakes[:, 0, 0, 1], LABELS)
  images = main_output(game).sample(variables.gen, inputs, PHASE)
  np.testing.assert_array_equal(images, fakes)


def test_labels_without_reals_are_uniform():
  game, _ = make(classes=CLASSES)
  keys = jax.random.split(jax.random.key(3), 3000)
  drawn = game.sample_inputs(keys, {}, PHASE)['labels']
  np.testing.assert_array_equal(drawn.sum(1), 1)
  shares = np.asarray(drawn).mean(0)
  assert abs(shares - 1 / 3).max() < 5 * math.sqrt(2 / 9 / 3000)
  # The latents do not depend on labels.
  unconditional, _ = make()
  np.testing.assert_array_equal(
    unconditional.sample_inputs(keys, {}, PHASE)['z'],
    game.sample_inputs(keys, {}, PHASE)['z'],
  )


def test_interpolate_mixes_two_classes():
  game, variables = make(classes=CLASSES)
  a, b = (
    game.sample_inputs(KEYS, {'labels': jnp.full(N, label)}, PHASE)
    for label in (0, 2)
  )
  images = main_output(game).sample(
    variables.gen, game.interpolate(a, b, jnp.linspace(0, 1, N)), PHASE
  )
  np.testing.assert_allclose(
    images[:, 0, 0, 1], [0, 2 / 3, 4 / 3, 2], rtol=1e-6
  )


def test_auxiliary_class_loss_by_hand():
  """Cross-entropy of the labels: of reals and fakes for D, of fakes for G."""
  logits = jnp.log(jnp.array([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]]))
  labels = jax.nn.one_hot(jnp.array([2, 0]), 3)
  by_hand = -(math.log(5 / 8) + math.log(1 / 4)) / 2
  np.testing.assert_allclose(class_loss(logits, labels), by_hand, rtol=1e-6)

  settings = {'classes': CLASSES, 'auxiliary': Pair(gen=0.1, disc=2.0)}
  game, variables = make(Discriminator(auxiliary=True), **settings)
  discriminate = lambda images: Discriminator(auxiliary=True).apply(
    variables.disc, images, KEYS, True
  )
  total, aux, fakes = disc_step(game, variables)
  (real, real_classes), (fake, fake_classes) = (
    discriminate(BATCH['images']),
    discriminate(fakes),
  )
  labels = jax.nn.one_hot(LABELS, CLASSES)
  class_losses = class_loss(real_classes, labels) + class_loss(
    fake_classes, labels
  )
  expected = fake.mean() - real.mean() + 2 * class_losses
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  assert 'class_loss' in aux.metrics
  context = games.Context(
    variables, game.sample_inputs(KEYS, BATCH, PHASE), (), ()
  )
  total, _ = game.updates.gen[0].loss({}, context, BATCH, fakes, KEYS, PHASE)
  expected = -fake.mean() + 0.1 * class_loss(fake_classes, labels)
  np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_discriminate_needs_labels_only_if_conditional():
  """The logits of an auxiliary classifier do not depend on labels."""
  disc = resnet.Discriminator((4,), num_downsamples=0, auxiliary=True)
  settings = {'classes': CLASSES, 'auxiliary': Pair(gen=0.1, disc=1.0)}
  game, variables = make(disc, **settings)
  images = {'images': BATCH['images']}
  logits = game.discriminate(variables.disc, BATCH, PHASE).logits
  np.testing.assert_array_equal(
    game.discriminate(variables.disc, images, PHASE).logits, logits
  )
  assert len(np.unique(logits)) == N
  disc = resnet.Discriminator((4,), num_downsamples=0)
  game, variables = make(disc, classes=CLASSES)
  with pytest.raises(UserError, match=r'conditional.* labels=') as error:
    game.discriminate(variables.disc, images, PHASE)
  assert '\n' not in str(error.value)


def test_disc_update_makes_one_power_iteration():
  """Reals, fakes and penalties share it."""
  r1 = penalties.WeightedPenalty('r1', penalties.r1(), 1.0)
  game, variables = make(Discriminator(spectral=True), penalties=[r1])
  w = np.asarray(variables.disc['params']['Dense_0']['kernel'], np.float64)
  u = np.asarray(variables.disc['spectral']['Dense_0']['u'], np.float64)
  unit = lambda t: t / np.linalg.norm(t)
  _, aux, _ = disc_step(game, variables)
  new = aux.collections['spectral']['Dense_0']['u']
  u = unit(w.T @ unit(w @ u))
  np.testing.assert_allclose(new, u, rtol=1e-5)
  # R1 of a linear D, divided by the norm that u gives, is |w / s|^2 / 2.
  s = np.linalg.norm(w @ u)
  expected = np.sum((w / s) ** 2) / 2
  np.testing.assert_allclose(aux.metrics['r1'], expected, rtol=1e-5)


def test_discriminate_scores_each_image_alone():
  """Images are packed with themselves, do not depend on the rest of the batch,
  and have a probability of "real" where the loss defines one.
  """
  images = BATCH['images']
  game, variables = make(pack=2, augment=augment.make_augment(pack=2))
  w = np.asarray(variables.disc['params']['Dense_0']['kernel'])[:, 0]
  flat = np.asarray(images).reshape(N, 2)
  output = game.discriminate(variables.disc, {'images': images}, PHASE)
  np.testing.assert_allclose(
    output.logits, np.tile(flat, 2) @ w, rtol=1e-5, atol=1e-6
  )
  assert output.probability is None

  batch_dependent = mlp.Discriminator(hidden=(5,), dropout=0.5, stddev_group=2)
  game, variables = make(batch_dependent)
  logits_of = lambda images: game.discriminate(
    variables.disc, {'images': images}, PHASE
  )[0]
  np.testing.assert_allclose(
    logits_of(images), logits_of(images[::-1])[::-1], rtol=1e-5, atol=1e-6
  )

  outputs = []
  for loss in (losses.non_saturating(), losses.non_saturating_fake_is_one()):
    game = image_game(
      Generator(), Discriminator(), loss=loss, latent=LATENTS['gaussian'],
      latent_dim=1,
    )  # fmt: skip
    variables, _ = jax.jit(game.init)(jax.random.key(1), BATCH)
    outputs.append(game.discriminate(variables.disc, {'images': images}, PHASE))
  real, fake_is_one = outputs
  np.testing.assert_allclose(fake_is_one.logits, -real.logits, rtol=1e-6)
  np.testing.assert_allclose(
    fake_is_one.probability, 1 - real.probability, rtol=1e-5
  )


def test_pack_rejects_conditional_games():
  with pytest.raises(UserError, match='does not support conditional games'):
    make(classes=CLASSES, pack=2)


def test_clip_projects_disc_params():
  game, _ = make(clip=0.01)
  for update in game.updates.disc:
    clipped = update.project({'w': jnp.array([-1.0, 0.005, 1.0])})
    np.testing.assert_allclose(clipped['w'], [-0.01, 0.005, 0.01])
  assert game.updates.gen[0].project is None


def test_pack_of_two_has_half_as_many_logits():
  game, variables = make(augment=augment.make_augment(pack=2), pack=2)
  w = np.asarray(variables.disc['params']['Dense_0']['kernel'])[:, 0]
  assert w.shape == (4,)
  total, _, fakes = disc_step(game, variables)
  pairs = lambda x: np.asarray(x).reshape(2, 4) @ w
  expected = pairs(fakes).mean() - pairs(BATCH['images']).mean()
  np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_lazy_penalty_is_a_separate_update():
  """R1 of the linear D is |w|^2 / 2, and is multiplied by the weight."""
  r1 = penalties.WeightedPenalty('r1', penalties.r1(), weight=5.0, every=4)
  game, variables = make(penalties=[r1])
  update = game.updates.disc[1]
  assert (update.every, update.rescale, update.name) == (4, True, 'weighted_r1')
  w = np.asarray(variables.disc['params']['Dense_0']['kernel'])
  total, aux, _ = disc_step(game, variables, index=1)
  np.testing.assert_allclose(aux.metrics['r1'], np.sum(w**2) / 2, rtol=1e-5)
  np.testing.assert_allclose(total, 5 * np.sum(w**2) / 2, rtol=1e-5)
  _, aux, _ = disc_step(game, variables)
  assert 'r1' not in aux.metrics


def test_conditional_run_samples_by_label(tmp_path):
  config = get_config('cgan_digits', 'tiny')
  loop.train(config, tmp_path)
  run = gan_jax.load(tmp_path)
  sevens = run.sample(3, labels=7)
  np.testing.assert_array_equal(sevens, run.sample(3, labels=[7, 7, 7]))
  assert (sevens != run.sample(3, labels=8)).any()
  assert run.discriminator(sevens, labels=7).shape == (3,)
  for labels, message in ((10, '0 to 9'), ([1, -1, 2], '0 to 9'), ([1], 'one')):
    with pytest.raises(UserError, match=message):
      run.sample(3, labels=labels)
  with pytest.raises(UserError, match='labels='):
    run.discriminator(sevens)
  for images, message in (
    (sevens.astype(np.float32), r'floats in \[-1, 1\]'),
    (sevens[..., 0], r'takes \[n, 28, 28, 1\], not \[3, 28, 28\]'),
  ):
    with pytest.raises(UserError, match=message):
      run.discriminator(images, labels=7)
  assert run.sample(5).shape == run.interpolate(1, 5)[0].shape
  # 6 images of each of 10 classes, one class per row.
  last = sorted((tmp_path / 'samples').iterdir())[-1]
  with Image.open(last) as grid:
    assert grid.size == (6 * 28, 10 * 28)
  np.testing.assert_array_equal(labels_by_class(3, 8), [0, 0, 1, 1, 2, 2])
  np.testing.assert_array_equal(labels_by_class(5, 3), [0, 1, 2])
  labels = np.repeat(np.arange(10), 6)
  shown = show(run.sample(60, labels=labels), columns=6)
  np.testing.assert_array_equal(run.show(64), shown)
  for labels in (7, [3, 1, 4]):
    shown = show(run.sample(3, seed=2, labels=labels))
    np.testing.assert_array_equal(run.show(3, seed=2, labels=labels), shown)
  # Paths between the given classes, or within one.
  for labels in (7, [3, 1, 4, 1]):
    paths = run.interpolate(2, 5, seed=2, labels=labels).astype(int)
    ends = run.sample(4, seed=2, labels=labels)
    assert abs(paths[:, 0] - ends[0::2]).max() <= 1
    assert abs(paths[:, -1] - ends[1::2]).max() <= 1
  with pytest.raises(UserError, match='pass 4 labels, or one for all'):
    run.interpolate(2, labels=[1, 2])


def test_wrong_number_of_classes_raises():
  config = get_config('cgan_digits', 'tiny')
  with pytest.raises(UserError, match='classes=7, but digits has 10 labels'):
    data.make(cfg.changed(config, 'data.classes', 7))


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('cgan_digits', {'game.agument': ()}, "key 'agument'; did you mean 'augm"),
    (
      'cgan_digits',
      {'game.auxiliary': {'gen': 1.0}},
      'needs a D with an auxiliary classifier',
    ),
    (
      'acgan_cifar10',
      {'game.auxiliary': {'dics': 1.0}},
      'two weights: gen and disc',
    ),
    ('acgan_cifar10', {'data.classes': 0}, 'auxiliary needs classes'),
    ('cgan_digits', {'game.penalties': {'r1': {'every': 2}}}, 'has no weight'),
    (
      'cgan_digits',
      {'game.penalties': {'r1': {'weight': 1.0, 'evry': 2}}},
      "r1 has no key 'evry'; did you mean 'every'",
    ),
    ('dcgan_mnist', {'data.classes': 10}, 'config.model.gen takes no labels'),
    (
      'cgan_digits',
      {'schedule': ({'values': {'game.r1': 1.0}},)},
      "no scheduled value 'game.r1'",
    ),
  ],
)
def test_conflicting_settings_raise(name, changes, message):
  config = get_config(name, 'tiny')
  with config.unlocked():
    for key, value in changes.items():
      block, _, leaf = key.rpartition('.')
      where = config[block] if block else config
      where[leaf] = ConfigDict(value) if isinstance(value, dict) else value
  with pytest.raises(UserError, match=message):
    games.make(config)


@pytest.mark.parametrize(
  ('name', 'changes', 'warns'),
  [
    ('losses_mnist', {}, False),
    ('losses_mnist', {'loss.name': 'wasserstein'}, True),
    ('losses_mnist', {'loss.name': 'wasserstein', 'clip': 0.01}, False),
    (
      'losses_mnist',
      {'loss.name': 'wasserstein', 'penalties.gradient_penalty.weight': 1.0},
      False,
    ),
    ('wgan_mnist', {}, False),
    ('wgan_mnist', {'clip': None}, True),
    ('wgangp_cifar10', {}, False),
    ('wgangp_cifar10', {'penalties.gradient_penalty.weight': 0.0}, True),
    ('sngan_cifar10', {'loss.name': 'wasserstein'}, False),
    ('progressive_celebahq', {}, False),
  ],
)
def test_advice_warns_of_an_unbounded_critic(name, changes, warns):
  config = get_config(name, 'tiny')
  for key, value in changes.items():
    config = cfg.changed(config, f'game.{key}', value)
  assert (games.advice(config) is not None) == warns


def test_unbounded_critic_warning_is_printed_once(tmp_path, capsys):
  config = get_config('losses_mnist', 'tiny')
  config.game.loss.name, config.total_images = 'wasserstein', 32
  loop.train(config, tmp_path)
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('Warning: the wasserstein loss')
