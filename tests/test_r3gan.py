"""Tests of R3GAN's networks against the authors' code, and its experiment."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import r3gan_reference as reference
from runs import get_config

from gan_jax.errors import UserError
from gan_jax.games.losses import relativistic
from gan_jax.games.penalties import squared_gradients
from gan_jax.models import r3gan
from gan_jax.models.r3gan_weights import from_reference

GAMMA = 0.7
# Values of the reference for 0 and 3 classes: see r3gan_reference.py. `fake` is
# the pixel (2, 5) of the second image.
GOLDEN = {
  0: {
    'fake': [-0.21792975141421653, -0.38737862257000455, 0.12772228698618737],
    'fake_squares': 42.6595634167237,
    'logits': [0.35203473331144036, 0.4328775977625888, 0.3624193847790091],
    'gen_loss': 0.6942045970986377,
    'disc_loss': 0.6922885229074597,
    'r1': [0.21355442722637466, 0.23808329519881916, 0.2212866791607543],
    'r2': [0.15479960443154203, 0.12643837854066384, 0.1639664325865189],
    'gen_grad_norm': 0.6329754599795964,
    'gen_grad_dot': -0.06098929984728276,
    'disc_grad_norm': 1.2821759827802426,
    'disc_grad_dot': 1.5635185532355593,
  },
  3: {
    'fake': [-0.18996338319485087, -0.39934525415150074, 0.045232595581627164],
    'fake_squares': 46.29218501115166,
    'logits': [0.14525632984630515, -0.480467780773159, -0.24167832697365776],
    'gen_loss': 0.6937252224561264,
    'disc_loss': 0.6932854558450069,
    'r1': [0.0744520975200002, 0.35963758720368766, 0.18335499840287867],
    'r2': [0.07616354938619124, 0.2658245894365055, 0.12544699347192068],
    'gen_grad_norm': 0.3988235149653837,
    'gen_grad_dot': 0.20729433557229823,
    'disc_grad_norm': 0.9349380787173761,
    'disc_grad_dot': 1.6504765211149368,
  },
}


def squares(tree):
  return sum(jnp.sum(x**2) for x in jax.tree.leaves(tree))


def dot(one, other):
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return sum(jnp.sum(x * y) for x, y in pairs)


def network(found, dtype):
  """Returns (parameters, x) -> output of a converted network."""
  block = {k: v for k, v in found.block.items() if k != 'name'}
  make = r3gan.Generator if found.player == 'gen' else r3gan.Discriminator
  module = make(found.resolution, found.channels, dtype=dtype, **block)
  labels = jax.nn.one_hot(reference.LABELS, found.classes, dtype=dtype)
  keys = jax.random.split(jax.random.key(0), 3)
  return lambda params, x: module.apply(
    {'params': params}, x, keys, True, labels if found.classes else None
  )


def measured(classes, dtype):
  """Returns the golden numbers as this code computes them."""
  gen = from_reference(
    reference.arrays(reference.gen_shapes(classes), np.dtype(dtype))
  )
  disc = from_reference(
    reference.arrays(reference.disc_shapes(classes), np.dtype(dtype))
  )
  assert (gen.resolution, gen.channels, gen.latent_dim) == (8, 3, 5)
  assert gen.classes == disc.classes == classes
  assert gen.block == disc.block
  assert gen.block == {
    'name': 'r3gan', 'features': (8, 6), 'groups': (2, 3), 'num_blocks': 2,
    'expansion': 2,
  }  # fmt: skip
  g, d = network(gen, dtype), network(disc, dtype)
  z = reference.values('z', (3, 5)) * 5**0.5
  real = reference.values('real', (3, 3, 8, 8)).transpose(0, 2, 3, 1)
  z, real = jnp.asarray(z, dtype), jnp.asarray(real, dtype)
  loss = relativistic()
  gen_params, disc_params = (x.variables['params'] for x in (gen, disc))

  @jax.jit
  def compute(gen_params, disc_params):
    fake = g(gen_params, z)
    penalty = lambda params, x: squared_gradients(partial(d, params), x)

    def gen_loss(params):
      return loss.gen(d(disc_params, real), d(disc_params, g(params, z)))

    def adversarial(params):
      return loss.disc(d(params, real), d(params, fake))

    def disc_loss(params):
      penalties = (jnp.mean(penalty(params, x)) / 2 for x in (real, fake))
      return adversarial(params) + GAMMA * sum(penalties)

    gen_grads = jax.grad(gen_loss)(gen_params)
    disc_grads = jax.grad(disc_loss)(disc_params)
    return {
      'fake': fake[1, 2, 5],
      'fake_squares': squares(fake),
      'logits': d(disc_params, real),
      'gen_loss': gen_loss(gen_params),
      'disc_loss': adversarial(disc_params),
      'r1': penalty(disc_params, real),
      'r2': penalty(disc_params, fake),
      'gen_grad_norm': jnp.sqrt(squares(gen_grads)),
      'gen_grad_dot': dot(gen_grads, gen_params),
      'disc_grad_norm': jnp.sqrt(squares(disc_grads)),
      'disc_grad_dot': dot(disc_grads, disc_params),
    }

  return compute(gen_params, disc_params)


@pytest.mark.parametrize(
  'classes, dtype, rtol',
  [
    (3, 'float64', 1e-10),
    pytest.param(0, 'float64', 1e-10, marks=pytest.mark.slow),
    pytest.param(3, 'float32', 1e-4, marks=pytest.mark.slow),
    pytest.param(0, 'float32', 1e-4, marks=pytest.mark.slow),
  ],
)
def test_networks_equal_the_reference(classes, dtype, rtol):
  with jax.enable_x64(dtype == 'float64'):
    values = measured(classes, jnp.dtype(dtype))
    assert values['fake'].dtype == dtype
    for name, expected in GOLDEN[classes].items():
      np.testing.assert_allclose(
        values[name], expected, rtol=rtol, err_msg=name
      )


def shapes(config):
  """Returns the abstract parameters of both networks of a config."""
  classes, size = config.data.classes, config.data.resolution
  labels = jnp.zeros((1, classes)) if classes else None
  keys = jax.random.split(jax.random.key(0), 1)
  inputs = {
    'gen': jnp.zeros((1, config.game.latent_dim)),
    'disc': jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
  }
  found = []
  for player, make in (('gen', r3gan.Generator), ('disc', r3gan.Discriminator)):
    block = config.model[player].to_dict()
    del block['name']
    module = make(size, 3, **block)
    init = lambda x, module=module: module.init(
      keys[0], x, keys, True, labels=labels
    )
    found.append(jax.eval_shape(init, inputs[player])['params'])
  return found


@pytest.mark.parametrize(
  'arg, gen, disc',
  [
    ('cifar10', 20_781_952, 21_280_512),
    ('ffhq64', 22_429_824, 22_381_440),
    ('ffhq256', 23_057_952, 23_009_568),
    ('imagenet32', 82_914_304, 86_548_992),
    ('imagenet64', 103_570_432, 107_205_120),
  ],
)
def test_parameter_counts_of_published_settings_equal_the_reference(
  arg, gen, disc
):
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  assert [count(x) for x in shapes(get_config('r3gan', arg))] == [gen, disc]


def test_initialization_by_hand():
  """With L = 4 blocks: 1 / sqrt(fan in), times sqrt(2 / 1.04) L^(-1/4) within
  blocks, whose last convolution is 0. D's class embedding is smaller.
  """
  keys = jax.random.split(jax.random.key(0), 1)
  settings = {'features': (64, 64), 'groups': (4, 4)}
  labels = jnp.zeros((1, 100))
  init = lambda make, x: jax.jit(
    lambda: make(8, 3, **settings).init(keys[0], x, keys, True, labels)
  )()
  gen = init(r3gan.Generator, jnp.zeros((1, 48)))['params']
  disc = init(r3gan.Discriminator, jnp.zeros((1, 8, 8, 3)))['params']
  gain = (2 / 1.04) ** 0.5 * 4**-0.25
  for params in (gen, disc):
    block = params['block_8_1']
    assert not block['project']['kernel'].any()
    assert not block['activation_1']['bias'].any()
    for name, fan_in in (('expand', 64), ('spatial', 9 * 128 / 4)):
      std = np.std(block[name]['kernel'])
      assert std == pytest.approx(gain * fan_in**-0.5, rel=0.05)
  for array, std in (
    (gen['basis'], 1.0),
    (gen['scale'], 96**-0.5),
    (gen['embed'], 100**-0.5),
    (gen['to_image']['kernel'], 64**-0.5),
    (disc['basis'], 1 / 4),
    (disc['project'], 64**-0.5),
    (disc['embed'], (100 * 64) ** -0.5),
  ):
    assert np.std(array) == pytest.approx(std, rel=0.15)


def test_bfloat16_is_used_at_the_top_four_resolutions():
  """But never at 4x4. Outputs and parameters are float32."""
  for levels, low in ((4, [8, 16, 32]), (7, [32, 64, 128, 256])):
    module = r3gan.Generator(4 * 2 ** (levels - 1), 3, dtype=jnp.bfloat16)
    sizes = [4 * 2**level for level in range(levels)]
    assert [s for s in sizes if module.dtype_at(s) == jnp.bfloat16] == low
    assert module.dtype_at(4) == jnp.float32
  settings = {'features': (8, 8), 'groups': (2, 2), 'dtype': jnp.bfloat16}
  keys = jax.random.split(jax.random.key(0), 2)
  z, images = jnp.zeros((2, 5)), jnp.zeros((2, 8, 8, 3))
  for network, x in ((r3gan.Generator, z), (r3gan.Discriminator, images)):
    module = network(8, 3, **settings)
    make = lambda module=module, x=x: module.init_with_output(
      keys[0], x, keys, True
    )
    out, variables = jax.eval_shape(make)
    assert out.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {out.dtype}


def test_schedule_equals_that_of_the_reference():
  """train.py of the reference, at the start, halfway and at the end."""
  from gan_jax.training.schedule import make_schedule

  config = get_config('r3gan', 'ffhq256')
  schedule = make_schedule(config)
  last = 78_125
  assert schedule.images(last) == 20_000_000
  for step, rate, gamma, b2, p in (
    (0, 2e-4, 150, 0.9, 0),
    (last // 2, 1.25e-4, 82.5, 0.945, 0.15),
    (last, 5e-5, 15, 0.99, 0.3),
  ):
    phase = schedule.phase(step)
    values = {
      'optimizer.gen.b2': b2,
      'optimizer.disc.b2': b2,
      'game.penalties.r1.weight': gamma,
      'game.penalties.r2.weight': gamma,
      'game.ada.p': p,
    }
    assert phase.learning_rate == pytest.approx((rate, rate), rel=1e-4)
    for name, value in values.items():
      assert phase.values[name] == pytest.approx(value, rel=1e-3), name
    assert (phase.batch_size, phase.gen_batch_size) == (256, 256)
  assert schedule.phase(0).ema_decay == 0
  decay = schedule.phase(last).ema_decay
  assert decay == pytest.approx(0.5 ** (256 / 500_000))


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'resolution': 16}, '2 resolutions, 4 to 8, but the images have 16'),
    ({'groups': (2,)}, 'has 1 items, but'),
    ({'groups': (2, 5)}, 'groups=5 does not divide the channels, 16'),
  ],
)
def test_invalid_widths_raise(changes, message):
  fields = {'resolution': 8, 'features': (8, 8), 'groups': (2, 2), **changes}
  module = r3gan.Generator(channels=3, **fields)
  keys = jax.random.split(jax.random.key(0), 1)
  with pytest.raises(UserError, match=message):
    module.init(keys[0], jnp.zeros((1, 5)), keys, True)


def test_weights_of_another_network_raise():
  arrays = reference.arrays(reference.gen_shapes())
  with pytest.raises(UserError, match=r"'Model.Other.weight', which R3GAN"):
    from_reference({**arrays, 'Model.Other.weight': np.zeros(3)})
  name = 'Model.MainLayers.1.Layers.2.LinearLayer3.Layer.weight'
  with pytest.raises(UserError, match=r'project.*expected \(1, 1, 12, 6\)'):
    from_reference({**arrays, name: np.zeros((7, 12, 1, 1))})
  arrays.pop(name)
  with pytest.raises(UserError, match='do not fit an R3GAN network'):
    from_reference(arrays)
  kernel = {'Model.MainLayers.1.Layers.0.Resampler.Kernel': np.ones((4, 4))}
  with pytest.raises(UserError, match='another filter'):
    from_reference({**reference.arrays(reference.gen_shapes()), **kernel})
