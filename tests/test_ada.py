"""Tests of the adaptive augmentation against its reference implementation."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import get_config, metrics, state_arrays

from gan_jax import games
from gan_jax.errors import UserError
from gan_jax.games.ada import Ada, make_ada
from gan_jax.games.game import Context
from gan_jax.games.image_networks import ADA_STATE
from gan_jax.games.penalties import squared_gradients
from gan_jax.games.transforms import (
  PIPELINES,
  Transforms,
  augment,
  sample,
  transform,
)
from gan_jax.ops.resample import average_pool
from gan_jax.ops.warp import warp
from gan_jax.pair import player_params
from gan_jax.training import loop
from gan_jax.training.schedule import make_schedule

KEY = jax.random.key(0)
IDENTITY = jnp.eye(3)


def picture(size, channels):
  """Returns the image of the golden numbers."""
  k = np.arange(size * size * channels, dtype=np.float64)
  image = np.sin(k * k * 0.37 + 0.1 * k).reshape(size, size, channels)
  return jnp.asarray(image, jnp.float32)


# Computed by `AugmentPipe(NAME=1)(images, debug_percentile=Q)` of
# NVlabs/stylegan2-ada-pytorch, training/augment.py (PyTorch 2.14, on a CPU),
# for the image of `picture`. NAME, size, channels, Q; then of the result y: its
# mean, that of y^2, the sum of y_i cos(0.7 i), and the values n // 3, -5 and 7.
GOLDEN = """
xflip      16 3 0.7    0.01639   0.45827 -18.33729   0.51324  -0.65824  -0.96177
rotate90   16 3 0.7    0.01662   0.43148  -0.71861  -0.75109   0.04130   0.55058
xint       16 3 0.7    0.02635   0.48255  11.73491   0.01681  -0.53627   0.36194
scale      16 3 0.7    0.02064   0.31855  -2.18474   0.81939   0.16023   0.01314
rotate     16 3 0.7    0.02237   0.28780  19.12052  -0.93229  -0.26164  -0.61688
aniso      16 3 0.7    0.01615   0.29175  -9.20423   0.80204   0.19616  -0.00977
xfrac      16 3 0.7    0.02321   0.25203   3.88655   0.27703  -0.07153   0.16376
brightness 16 3 0.7    0.09138   0.49214   1.21108   0.99352  -0.05694   0.05461
contrast   16 3 0.7    0.01958   0.62595   1.33963   1.04543  -0.14908  -0.02224
lumaflip   16 3 0.7   -0.01722   0.48408   0.47742  -0.17240   0.41794  -0.25262
hue        16 3 0.7    0.01722   0.48408  -5.52025   1.32526  -0.89826   0.94417
saturation 16 3 0.7    0.01722   0.70154   1.42067   1.02881  -0.08907  -0.05944
cutout     16 3 0.7    0.01689   0.36599   4.10481   0.91935  -0.13110  -0.01955
color      16 1 0.7   -0.08425   0.63422  -5.99217   0.96274   0.23017  -0.06210
imgfilter  32 3 0.2    0.00841   0.38775  39.64783   0.66925  -0.78561  -0.01723
all        32 3 0.2   -0.05922   0.07741  -5.25823  -0.14113  -0.29660  -0.00000
all        32 3 0.7   -0.06613   0.41520  61.64397   0.19646  -0.99411  -0.53765
"""


def at_quantile(names, q):
  """Returns the parameters that the reference has at debug_percentile=q: its
  gaussian is erfinv.
  """
  erfinv = float(jax.scipy.special.erfinv(2 * q - 1))
  side = 2 * q - 1
  values = {
    'xflip': {'mirror': math.floor(2 * q)},
    'rotate90': {'quarter_turns': math.floor(4 * q)},
    'xint': {'shift': np.full(2, side / 8)},
    'scale': {'scale': 2 ** (0.2 * erfinv)},
    'rotate': {'rotation': side * math.pi},
    'aniso': {'stretch': 2 ** (0.2 * erfinv)},
    'xfrac': {'offset': np.full(2, erfinv / 8)},
    'brightness': {'brightness': 0.2 * erfinv},
    'contrast': {'contrast': 2 ** (0.5 * erfinv)},
    'lumaflip': {'luma_flip': math.floor(2 * q)},
    'hue': {'hue': side * math.pi},
    'saturation': {'saturation': 2**erfinv},
    'imgfilter': {'gains': np.full(4, 2**erfinv)},
    'cutout': {'cut': 0.5, 'cut_centre': np.full(2, q)},
  }
  several = {'all': values, 'color': list(values)[7:12]}
  chosen = several.get(names, [names])
  merged = functools.reduce(lambda a, name: {**a, **values[name]}, chosen, {})
  return Transforms(**{k: jnp.float32(v) for k, v in merged.items()})


@functools.cache
def transformed(size, channels):
  """All transformations without noise, compiled once for a size."""
  groups = {k: 1.0 for k in PIPELINES['bgcfnc'] if k != 'noise'}
  if size < 22:  # the reference has no filter for smaller images
    del groups['filter']
  return jax.jit(lambda image, t: transform(image, t, groups, KEY))


@pytest.mark.parametrize('case', GOLDEN.split('\n')[1:-1])
def test_transforms_equal_the_reference(case):
  name, size, channels, q, *golden = case.split()
  size, channels = int(size), int(channels)
  parameters = at_quantile(name, float(q))
  y = transformed(size, channels)(picture(size, channels), parameters)
  y = np.asarray(y, np.float64).ravel()
  found = (
    y.mean(), (y**2).mean(), np.sum(y * np.cos(0.7 * np.arange(y.size))),
    y[y.size // 3], y[-5], y[7],
  )  # fmt: skip
  # Other transformations are the identity: only the filters of the warp are in
  # the way, which restore an unmoved image up to rounding.
  np.testing.assert_allclose(found, np.float64(golden), atol=1.5e-4)


@pytest.mark.parametrize('shape', [(4, 4, 3), (8, 8, 1), (15, 24, 2)])
def test_warp_is_exact_for_identity_and_whole_pixels(shape):
  """The wavelets are orthogonal, and borders mirror."""
  image = jax.random.normal(KEY, shape)
  warp_jit = jax.jit(warp)
  np.testing.assert_allclose(warp_jit(image, IDENTITY), image, atol=2e-5)
  if min(shape[:2]) < 8:  # the filters reach beyond the mirror images
    return
  shifted = warp_jit(image, IDENTITY.at[0, 2].set(-2.0))
  expected = np.pad(image, ((0, 0), (2, 0), (0, 0)), mode='reflect')[:, :-2]
  np.testing.assert_allclose(shifted, expected, atol=2e-5)


def test_filter_bands_sum_to_the_identity_at_any_size():
  """Equal gains scale the image by the same factor at every frequency."""
  for size in (8, 16, 40):
    image = jax.random.normal(KEY, (size, size, 3))
    equal_gains = Transforms(gains=jnp.full(4, 2.0))
    augmented = transform(image, equal_gains, {'filter': 1.0}, KEY)
    power = np.array([10, 1, 1, 1]) / 13
    factor = 2 / np.prod(np.sqrt(1 + power * 3))
    np.testing.assert_allclose(augmented, factor**2 * image, atol=1e-5)


def test_sample_applies_each_transformation_with_its_probability():
  """Each transformation has probability p times the strength of its group."""
  p, n = 0.4, 4000
  keys = jax.random.split(KEY, n)
  draw = jax.jit(
    jax.vmap(lambda key: sample(key, p, {**PIPELINES['bgcfnc'], 'color': 0.5}))
  )
  drawn, none = draw(keys), Transforms()
  share = {
    name: np.mean(np.asarray(getattr(drawn, name)) != getattr(none, name))
    for name in Transforms._fields
  }
  # A chosen mirror flips half of the images; one of 4 quarter turns is none.
  expected = dict.fromkeys(Transforms._fields, p)
  expected |= {'mirror': p / 2, 'quarter_turns': 3 / 4 * p, 'cut_centre': 1.0}
  # At least one of the two rotations is chosen with probability p.
  p_rotation = 1 - math.sqrt(1 - p)
  expected |= {'rotation': p_rotation, 'second_rotation': p_rotation}
  for name in ('brightness', 'contrast', 'hue', 'saturation'):
    expected[name] = p / 2
  expected['luma_flip'] = p / 4
  error = 4.5 * math.sqrt(0.25 / n)
  assert share == pytest.approx(expected, abs=error)

  # Standard deviations of the chosen values, as in the paper.
  def std(name, log=False):
    x = np.asarray(getattr(drawn, name))
    x = x[x != getattr(none, name)]
    return np.std(np.log2(x) if log else x)

  found = [std('scale', True), std('offset'), std('brightness')]
  found += [std('contrast', True), std('saturation', True), std('shift')]
  expected = [0.2, 0.125, 0.2, 0.5, 1.0, 0.125 / math.sqrt(3)]
  assert found == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize('channels', [1, 3])
def test_augment_keeps_images_at_p_0_and_clips_p_to_1(channels):
  images = jax.random.normal(KEY, (3, 16, 16, channels))
  keys = jax.random.split(KEY, 3)
  augment_all = jax.jit(lambda p: augment(images, keys, p, PIPELINES['bgcfnc']))
  np.testing.assert_allclose(augment_all(0.0), images, atol=2e-5)
  assert np.abs(augment_all(1.0) - images).mean() > 0.1
  np.testing.assert_array_equal(augment_all(1.0), augment_all(1.7))


def test_augment_uses_one_key_per_image():
  """The result does not depend on the rest of the batch."""
  images = jax.random.normal(KEY, (3, 16, 16, 3))
  keys = jax.random.split(KEY, 3)
  augment_all = jax.jit(
    lambda x, keys: augment(x, keys, 0.8, PIPELINES['bgcfnc'])
  )
  single = augment_all(images[1:2], keys[1:2])
  np.testing.assert_allclose(augment_all(images, keys)[1], single[0], atol=1e-5)
  same = augment_all(images[:1].repeat(2, 0), keys[:2])
  assert np.abs(same[0] - same[1]).mean() > 0.1


def test_pipeline_has_first_and_second_derivatives():
  """Compares with finite differences, in float64."""
  with jax.enable_x64(True):
    images = jax.random.normal(KEY, (2, 8, 8, 3), jnp.float64)
    keys, direction = jax.random.split(KEY, 2), jnp.roll(images, 1, axis=1)
    weights = images[::-1] ** 2

    def logits(scale, images):
      augmented = augment(images, keys, 0.9, PIPELINES['bgc'])
      return jnp.tanh(scale * augmented * weights).sum((1, 2, 3))

    r1 = jax.jit(
      lambda scale, images: jnp.sum(
        squared_gradients(lambda x: logits(scale, x), images)
      )
    )
    step = 1e-5
    central_difference = lambda f: (
      (float(f(step)) - float(f(-step))) / (2 * step)
    )
    total = jax.jit(lambda images: logits(0.3, images).sum())
    expected = central_difference(lambda d: total(images + d * direction))
    grad = jax.grad(total)(images)
    assert float(jnp.sum(grad * direction)) == pytest.approx(expected, rel=1e-6)
    expected = central_difference(lambda d: r1(0.3 + d, images))
    assert float(jax.grad(r1)(0.3, images)) == pytest.approx(expected, rel=1e-5)


# -- The adaptive probability --


def test_p_follows_the_signs_by_hand():
  """p changes by images / 1000 after every 2 updates, never below 0, and not at
  a tie.
  """
  ada = Ada(PIPELINES['bgc'], 0.02, target=0.5, adjust_images=1000, every=2)
  state = ada.init()
  steps = [
    # The signs of 8 logits, then of 8 more; p after each.
    ([1] * 7 + [-1], 0.02),  # mean 0.75
    ([1] * 6 + [-1] * 2, 0.036),  # mean of both 0.625 > 0.5: + 16 / 1000
    ([1] * 8, 0.036),
    ([1] * 4 + [-1] * 4, 0.036),  # 0.5: a tie
    ([0] * 8, 0.036),
    ([1] * 4 + [0] * 4, 0.02),  # 0.25: - 16 / 1000
    ([-1] * 8, 0.02),
    ([-1] * 8, 0.004),
    ([-1] * 8, 0.004),
    ([-1] * 8, 0.0),  # not below
    ([1] * 4, 0.0),
    ([1] * 8, 0.012),  # batches of 4 and 8
  ]
  for signs, expected in steps:
    state = ada.update(state, jnp.array(signs, jnp.float32))
    assert float(ada.probability(state, {})) == pytest.approx(
      expected, abs=1e-7
    )
  assert Ada(PIPELINES['b'], 0.3, None).init() is None
  constant = Ada(PIPELINES['b'], 0.3, None)
  assert constant.probability(None, {}) == 0.3
  assert constant.probability(None, {'game.ada.p': 0.1}) == 0.1


def tiny(**ada):
  config = get_config('ada_folder', 'tiny')
  config.game.ada.update(ada)
  return config


def test_logits_of_patches_count_as_one_image(tmp_path):
  """D has 4x4 logits of an image, and p is that of the number of images."""
  config = tiny(pipeline='b', every=1000)
  config.model.disc = {'name': 'patchgan', 'features': 4, 'num_downsamples': 1}
  config.steps_per_dispatch = 2
  config.total_images = 2 * config.batch_size
  state = loop.train(config, tmp_path).game_state[ADA_STATE]
  assert float(state['images']) == config.total_images
  assert abs(float(state['sign_sum'])) <= config.total_images


# p rises unless D rejects nearly all reals. (Colours compile fastest.)
RISING = {'target': -0.9, 'pipeline': 'c'}


@pytest.fixture(scope='module')
def straight_run(tmp_path_factory):
  """The workdir of a run that is not interrupted."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  loop.train(tiny(**RISING), workdir)
  return workdir


def test_run_adapts_p_and_resumes_bit_for_bit(straight_run, tmp_path):
  """The run stops between two changes of p."""
  interrupted = tmp_path / 'halves'
  config = tiny(**RISING)
  config.total_images = 16 * 4  # p changes after 3 updates
  loop.train(config, interrupted)
  (updates,) = (
    v for k, v in state_arrays(interrupted, 4).items() if 'updates' in k
  )
  assert np.frombuffer(updates, np.int32) == [1]
  loop.train(tiny(**RISING), interrupted)
  assert state_arrays(straight_run, 12) == state_arrays(interrupted, 12)
  lines = [x for x in metrics(straight_run) if 'disc/ada_p' in x]
  # Each line has two updates, and p rises by 48 / 200 after every third.
  assert [x['disc/ada_p'] for x in lines] == pytest.approx(
    [0, 0.12, 0.24, 0.48, 0.6, 0.72]
  )
  assert all(-0.9 < x['disc/ada_sign'] <= 1 for x in lines)


def losses(config, state=None, values=None):
  """Returns both players' losses on one batch, and D's new game state.

  Args:
    config: The config.
    state: The game state; None: the initial one.
    values: Scheduled values.
  """
  game, n = games.make(config), 8
  size, channels = config.data.resolution, config.data.channels
  batch = {
    'images': jnp.tanh(jax.random.normal(KEY, (n, size, size, channels))),
    'labels': jnp.arange(n) % 10,
    'example': jnp.arange(n),
  }
  phase = make_schedule(config).phase(0)
  phase = dataclasses.replace(phase, values={**phase.values, **(values or {})})
  variables, start = jax.jit(game.init)(KEY, batch)
  keys = jax.random.split(KEY, n)
  if game.downsample:
    batch['images'] = average_pool(batch['images'], game.downsample(phase))
  inputs = game.sample_inputs(keys, batch, phase)
  fakes, _ = game.generate(variables.gen, inputs, phase)
  context = Context(variables, inputs, start if state is None else state, ())
  found = {}
  for player, params in player_params(variables)._asdict().items():
    update = getattr(game.updates, player)[0]
    found[player] = update.loss(params, context, batch, fakes, keys, phase)
  return found['gen'][0], found['disc'][0], found['disc'][1].game_state


@pytest.mark.parametrize(
  'name',
  [
    'cgan_digits',
    'progressive_celebahq',
    pytest.param('acgan_cifar10', marks=pytest.mark.slow),
  ],
)
def test_losses_of_image_games_depend_on_p(name):
  """The game state holds p."""
  config = get_config(name, 'tiny')
  if config.game.loss.name == 'wasserstein':
    config.game.loss = {'name': 'non_saturating'}
  config.game.update({'ada': {'pipeline': 'c'}, 'augment': ('cutout',)})
  losses_at = jax.jit(
    lambda p: losses(config, {'disc/ada': {**make_ada().init(), 'p': p}})
  )
  gen, disc, state = losses_at(0.0)
  assert float(state['disc/ada']['images']) == 8
  other_gen, other_disc, _ = losses_at(1.0)
  assert abs(gen - other_gen) > 1e-5 and abs(disc - other_disc) > 1e-5


def test_p_without_a_target_is_constant_or_scheduled():
  """Without a target there is no game state."""
  config_at = lambda p: tiny(target=None, p=p, pipeline='c')
  gen, disc, state = jax.jit(lambda: losses(config_at(0.3)))()
  assert state is None
  scheduled_at = jax.jit(
    lambda p: losses(config_at(0.9), None, {'game.ada.p': p})
  )
  assert [float(x) for x in scheduled_at(0.3)[:2]] == pytest.approx(
    [float(gen), float(disc)], rel=1e-5
  )
  assert abs(scheduled_at(0.1)[1] - disc) > 1e-4
  config = tiny(target=None)
  init = games.make(config).init
  assert not jax.eval_shape(init, KEY, batch_of(config))[1]
  config.schedule = ({'values': {'game.ada.p': ('linear', 0.0, 0.5)}},)
  assert 'game.ada.p' in games.make(config).scheduled
  config.game.ada.target = 0.6
  with pytest.raises(UserError, match=r"no scheduled value 'game\.ada\.p'"):
    games.make(config)


def batch_of(config):
  size, channels = config.data.resolution, config.data.channels
  return {'images': jnp.zeros((4, size, size, channels))}


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'game.ada.pipeline': 'bgd'}, "unknown config.game.ada.pipeline 'bgd'"),
    ({'game.loss.name': 'wasserstein'}, 'loss whose logits have a sign'),
    ({'game.pack': 2}, 'set pack to 1'),
    ({'data.channels': 2}, 'need 1 or 3 channels'),
    ({'game.ada.kimg': 500}, "config.game.ada has no key 'kimg'"),
  ],
)
def test_unsupported_settings_raise(changes, message):
  config = tiny()
  config.game.loss = {'name': 'non_saturating'}
  with config.unlocked():
    for key, value in changes.items():
      config.update_from_flattened_dict({key: value})
  with pytest.raises(UserError, match=message) as error:
    games.make(config)
  assert '\n' not in str(error.value)


@pytest.mark.slow
def test_p_under_pmap_uses_the_reals_of_all_devices(straight_run, tmp_path):
  """Each device gets only its own reals, but the state is the same."""
  config = tiny(**RISING)
  config.parallel = 'pmap'
  loop.train(config, tmp_path / 'pmap')
  state = lambda workdir: {
    k: v for k, v in state_arrays(workdir, 12).items() if 'ada' in k
  }
  assert state(tmp_path / 'pmap') == state(straight_run)
  signs = lambda workdir: [
    x['disc/ada_sign'] for x in metrics(workdir) if 'disc/ada_sign' in x
  ]
  assert signs(tmp_path / 'pmap') == signs(straight_run)


def test_every_ada_key_changes_the_program():
  """`every` and `adjust_images` change only the new state."""
  program = lambda config: str(jax.make_jaxpr(lambda: losses(config))())
  small = {'pipeline': 'c'}  # is traced fastest
  before = program(tiny(**small))
  others = {'pipeline': 'b', 'p': 0.2, 'target': 0.5, 'adjust_images': 300}
  for key, value in {**others, 'every': 2}.items():
    assert program(tiny(**{**small, key: value})) != before, key
  assert program(tiny(**small)) == before
