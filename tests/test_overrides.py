"""Tests that overriding any key of any experiment acts or raises.

A key acts if it changes the schedule, the data, or the traced program of the
networks, the losses or the optimizers.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import EXPERIMENTS, TINY, get_config

from gan_jax import config as cfg
from gan_jax import data, games
from gan_jax.bounds import bound_of
from gan_jax.data.order import Stream
from gan_jax.errors import UserError
from gan_jax.games import Context
from gan_jax.games.game import main_output
from gan_jax.training import optimizers
from gan_jax.training.check import check_config
from gan_jax.training.overrides import settle
from gan_jax.training.schedule import make_schedule
from gan_jax.training.setup import create_state

# Keys that do not change the computation, but its placement on devices,
# logging, checkpoints and metrics. Other files test them. `total_images` is one
# of them because a run can be extended, but it acts on the schedule.
ELSEWHERE = {*cfg.CHANGEABLE} - {'total_images'}
# Keys whose values make no difference here, and why.
SAME = {
  'init.source': 'read only at the start of a run: test_initial.py',
  'data.split': "without splits, 'all' and 'train' are the same",
  'data.crop': 'generated images are never cropped',
  'evaluation.labels': 'acts only on metrics',
}

# Another valid choice for each choice.
OTHER = {
  'a_to_b': 'b_to_a',
  'cifar10': 'vgg19:none',
  'cut': 'image',
  'cyclegan': 'image',
  'digit_pairs': 'pairs:nowhere',
  'instance': 'batch',
  'l1': 'l2',
  'least_squares_half': 'hinge',
  'non_saturating_half': 'hinge',
  'patchgan': 'dcgan',
  'pix2pix': 'image',
  'relativistic_average': 'hinge',
  'rrdb': 'srresnet',
  'srresnet': 'rrdb',
  'super_resolution': 'image',
  'toy:moons': 'toy:ring',
  'toy:swiss_roll': 'toy:ring',
  'translation_mlp': 'unet',
  'translation_resnet': 'unet',
  'unet': 'translation_resnet',
  'vgg': 'dcgan',
  'adam': 'sgd',
  'bfloat16': 'float32',
  'all': 'train',
  'bgc': 'bg',
  'biggan': 'mlp',
  'dcgan': 'mlp',
  'digits': 'toy:ring',
  'float32': 'bfloat16',
  'gaussian': 'uniform',
  'hinge': 'minimax',
  'image': 'progressive',
  'leaky_relu': 'relu',
  'least_squares': 'hinge',
  'linear': 'tanh',
  'mean': 'sum',
  'mlp': 'dcgan',
  'non_saturating': 'hinge',
  'orthogonal': 'he',
  'progressive': 'image',
  'r3gan': 'mlp',
  'relativistic': 'hinge',
  'relu': 'leaky_relu',
  'resnet': 'mlp',
  'rmsprop': 'sgd',
  'sum': 'mean',
  'train': 'all',
  'wasserstein': 'hinge',
}


def other_value(key, value):
  """Returns another value of the same type and within the key's bounds."""
  if value is None:
    return {float: 0.05, int: 2, str: 'other'}[bound_of(key).kind]
  kind = type(value)
  if isinstance(value, tuple):
    return tuple(2 * item for item in value)
  if kind is str:
    return OTHER.get(value, 'toy:moons')
  if kind is bool:
    return not value
  if kind is int:
    return value // 2 if value > 1 else value + 1
  return value / 2 if value else 0.25


def overridden(config, key):
  """Returns the config with another value of the key, as by launch.py.

  Raises:
    UserError: The value is invalid.
  """
  value = other_value(key, cfg.flatten(config.to_dict())[key])
  config = cfg.changed(config, key, value)
  settle(config, {key})
  check_config(config)
  return config


def schedule_of(config):
  """Returns phases early, in the middle and at the end of each segment."""
  schedule = make_schedule(config)
  phases = [
    schedule.phase(placed.first_step + offset)
    for placed in schedule.segments
    for offset in (1, placed.steps // 2, placed.steps - 1)
  ]
  leaves = [float(x) for x in jax.tree.leaves(phases)]
  static = str(jax.tree.structure(phases))
  dispatch = schedule.steps_per_dispatch
  return schedule.total_steps, dispatch, static, leaves


def order_of(config):
  """Returns the key and the order of examples, which depend on the seed."""
  key = jax.random.key_data(jax.random.key(config.seed)).tolist()
  return key, Stream(config.seed, 100).indices(np.arange(5)).tolist()


IMAGES = {}


def data_of(config):
  """Returns the first images of the set: a function of `config.data` alone."""
  settings = config.data.to_json()
  if settings not in IMAGES:
    source = data.make(config, training=True)
    images = [x for x in source.fetch(np.arange(3)).values() if x.ndim == 4]
    described = [(x.shape, x.tobytes()) for x in images]
    IMAGES[settings] = source.size, described
  return *IMAGES[settings], config.data.flip, config.data.get('rotate')


def jaxpr_text(function, *args):
  """Returns the jaxpr of a function as text."""
  text = str(jax.make_jaxpr(function)(*args))
  return re.sub('0x[0-9a-f]+', '', text)  # addresses of functions


def optimizers_of(config):
  """Returns the traced updates of both optimizers."""
  params = {'kernel': jnp.zeros((2, 3)), 'bias': jnp.zeros(3)}
  update = lambda tx: lambda p: tx.update(p, tx.init(p), p)
  pair = optimizers.make(config.optimizer.to_dict())
  return [jaxpr_text(update(tx), params) for tx in pair]


def batch_of(config, n=16):
  size, channels = config.data.resolution, config.data.channels
  return {
    **{
      name: jnp.zeros((n, size, size, channels))
      for name in ('images', 'a', 'b')
    },
    'example': jnp.arange(n),
    'labels': jnp.zeros(n, jnp.int32),
  }


def networks_of(config):
  """Returns the traced initialization of the networks."""
  game, batch = games.make(config), batch_of(config)
  return jaxpr_text(lambda key: game.init(key, batch), jax.random.key(0))


def updates_of(config):
  """Returns the traced losses of the last iteration, without optimizers."""
  game, batch = games.make(config), batch_of(config)
  schedule = make_schedule(config)
  phase = schedule.phase(schedule.total_steps - 1)
  make = lambda key: game.init(key, batch)
  variables, state = jax.eval_shape(make, jax.random.key(0))

  def run(key, variables, state, batch):
    keys = jax.random.split(key, len(batch['example']))
    inputs = game.sample_inputs(keys, batch, phase)
    fakes, _ = game.generate(variables.gen, inputs, phase)
    context = Context(variables, inputs, state, game.frozen())
    parts = [main_output(game).sample(variables.gen, inputs, phase)]
    for player in ('gen', 'disc'):
      params = getattr(variables, player)['params']
      for update in getattr(game.updates, player):
        loss, aux = update.loss(params, context, batch, fakes, keys, phase)
        parts += [loss * update.every, aux.game_state]
        parts.append(update.project(params) if update.project else ())
    return parts

  return jaxpr_text(run, jax.random.key(0), variables, state, batch)


# Cheap aspects first: most keys change one of them.
ASPECTS = (
  schedule_of, order_of, optimizers_of, data_of, networks_of, updates_of
)  # fmt: skip


def keys_of(config):
  flat = cfg.flatten(config.to_dict())
  rampup, total = config.ema_rampup, config.total_images
  if rampup and total and rampup * total / 2 <= config.ema_halflife_images:
    del flat['ema_halflife_images']  # the ramp-up lasts to the end
  return [k for k in flat if k not in ELSEWHERE | SAME.keys() | {'schedule'}]


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_every_key_has_bounds(name):
  for arg in ('', 'tiny'):
    flat = cfg.flatten(get_config(name, arg).to_dict())
    assert [k for k in flat if k != 'schedule' and not bound_of(k)] == []


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_every_key_of_the_schedule_acts(name):
  """Uses the full configs, whose networks would take long to trace."""
  config = get_config(name)
  parts = r'(gen_)?batch_size|disc_steps|steps_per_dispatch|total_images|seed'
  pattern = rf'{parts}|ema_.*|optimizer\..*\.learning_rate|growth\..*'
  idle = []
  for key in filter(re.compile(pattern).fullmatch, keys_of(config)):
    try:
      other = overridden(config, key)
    except UserError:
      continue
    same_schedule = schedule_of(other) == schedule_of(config)
    if same_schedule and order_of(other) == order_of(config):
      idle.append(key)
  assert idle == []


# Together they use every part; the others run with `-m slow`.
ALWAYS = (
  'acgan_cifar10',
  'dcgan_celeba',
  'progressive_celeba',
  'toy:ring',
  'vanilla_mnist',
)


@pytest.mark.parametrize(
  'name',
  [
    name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow)
    for name in sorted(TINY.values())
  ],
)
def test_every_key_acts_or_raises(name):
  """Compares traced programs of the `:tiny` configs."""
  config = get_config(name, 'tiny')
  before = [aspect(config) for aspect in ASPECTS]
  idle = []
  for key in keys_of(config):
    try:
      other = overridden(config, key)
      acts = any(
        aspect(other) != old
        for aspect, old in zip(ASPECTS, before, strict=True)
      )
    except UserError:
      continue
    if not acts:
      idle.append(key)
  assert idle == []


def test_key_without_effect_is_detected():
  """If a learning rate did not act on the schedule, it would not act at all."""
  config = get_config('sngan_cifar10', 'tiny')
  constant = cfg.changed(config, 'optimizer.gen.learning_rate', 1e-4)
  assert schedule_of(constant) != schedule_of(config)
  others = [aspect for aspect in ASPECTS if aspect is not schedule_of]
  assert all(aspect(constant) == aspect(config) for aspect in others)


# Any key of any experiment, with arbitrary values.
TINY_CONFIGS = {name: get_config(name, 'tiny') for name in TINY.values()}
ANY_KEY = st.sampled_from(
  [
    (name, key)
    for name, config in sorted(TINY_CONFIGS.items())
    for key in cfg.flatten(config.to_dict())
  ]
)
SCALARS = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.floats(),
  st.sampled_from([0, 1, -1, 2**31, 2**63, 1e30, 1e-30]),
  st.text(max_size=8),
)
VALUES = st.one_of(SCALARS, st.tuples(SCALARS), st.tuples(SCALARS, SCALARS))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(ANY_KEY, VALUES)
def test_any_value_of_any_key_is_valid_or_raises(name_and_key, value):
  """The error is one line; with a valid value the run can be initialized."""
  name, key = name_and_key
  config = TINY_CONFIGS[name]
  try:
    config = cfg.changed(config, key, value)
  except (TypeError, ValueError):  # reported by the flags library
    return
  try:
    settle(config, {key})
    check_config(config)
    schedule = make_schedule(config)
    game = games.make(config)
    tx = optimizers.make(config.optimizer.to_dict())
    side = config.data.resolution
    batch = {
      **{
        entry: jax.ShapeDtypeStruct((2, side, side, 1), jnp.float32)
        for entry in ('images', 'a', 'b')
      },
      'example': jax.ShapeDtypeStruct((2,), jnp.int32),
      'labels': jax.ShapeDtypeStruct((2,), jnp.int32),
    }
    make = lambda: create_state(game, tx, batch, schedule.phase(0), config.seed)
    state = jax.eval_shape(make)
  except UserError as error:
    assert str(error).isprintable()
    return
  assert state.variables.gen['params']
  for phase in (schedule.phase(0), schedule.phase(schedule.total_steps - 1)):
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(phase))
