"""Compares SAGAN and BigGAN with outputs and gradients of the reference code.

GOLDEN was computed once in float64 with PyTorch 2 and the networks of
ajbrock/BigGAN-PyTorch (BigGAN.py) in training mode, with the weights of `fill`
carried over. All u of the spectral normalization are singular vectors, which
the power iteration does not change. `outputs` and `inputs` (the gradient of z
or of the images) are every quarter of the flat array, and `weights` the norms
of the gradients of the first, middle and last kernels, in the order of JAX's
tree. All gradients agreed within 1e-10 of the largest of each parameter.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import get_config

from gan_jax import games
from gan_jax.errors import UserError
from gan_jax.games.penalties import GenPenaltyInputs, orthogonal
from gan_jax.models import attention, biggan, resnet

CLASSES, N = 5, 2
KEYS = jax.random.split(jax.random.key(0), N)
WIDE = {'wide': True, 'spectral': True, 'initializer': 'orthogonal'}
# (the network, the shape of its input). The reference's arguments are, for
# biggan_gen: resolution 32, G_ch 4, G_attn 16, G_shared, hier, dim_z 12,
# shared_dim 6; biggan_disc: resolution 64, D_ch 4, D_attn 16; sagan_gen:
# resolution 32, G_ch 4, G_attn 16, dim_z 6.
NETWORKS = {
  'biggan_gen': (
    lambda dtype: biggan.Generator(
      32, 3, 4 * (16,), attention=(16,), shared_dim=6, dtype=dtype
    ),
    (N, 12),
  ),
  'biggan_disc': (
    lambda dtype: resnet.Discriminator(
      (4, 8, 16, 32, 64), 4, attention=(16,), dtype=dtype, **WIDE
    ),
    (N, 64, 64, 3),
  ),
  'sagan_gen': (
    lambda dtype: resnet.Generator(
      32, 3, 4 * (16,), True, attention=(16,), dtype=dtype
    ),
    (N, 6),
  ),
}


def fill(variables):
  """Draws all parameters, and makes each u a singular vector."""
  random = np.random.RandomState(0)

  def draw(path, leaf):
    name, x = path[-1].key, random.randn(*leaf.shape)
    if name == 'kernel':
      return x / np.sqrt(np.prod(leaf.shape[:-1]))
    return x / 10 + (name in ('scale', 'gain', 'gamma'))

  def top(params):
    kernel = params['kernel'].reshape(-1, params['kernel'].shape[-1])
    return np.linalg.svd(kernel)[2][0]

  def spectral(tree, params):
    if 'u' in tree:
      return {'u': top(params)}
    return {name: spectral(tree[name], params[name]) for name in tree}

  params = jax.tree_util.tree_map_with_path(draw, variables['params'])
  return {
    **{k: jax.tree.map(np.asarray, v) for k, v in variables.items()},
    'params': params,
    'spectral': spectral(variables['spectral'], params),
  }


def problem(name, dtype):
  """Returns the network, its variables, input, labels and cotangent."""
  make, shape = NETWORKS[name]
  module = make(dtype)
  labels = np.eye(CLASSES)[[3, 0]]
  random = np.random.RandomState(1)
  x = random.uniform(-1, 1, shape)
  init = lambda x, labels: module.init(
    jax.random.key(0), x, KEYS, True, labels=labels
  )
  variables = jax.eval_shape(init, x, labels)
  ones = lambda s: np.ones(s.shape)
  variables = fill(jax.tree.map(ones, variables))
  out = (N,) if 'disc' in name else (N, *2 * [module.resolution], 3)
  cast = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)
  return (module, *map(cast, (variables, x, labels, random.randn(*out))))


def computed(name, dtype):
  """Returns outputs, and the gradients of the input and of the parameters."""
  module, variables, x, labels, cotangent = problem(name, dtype)

  def loss(params, x):
    y, _ = module.apply(
      {**variables, 'params': params},
      x,
      KEYS,
      True,
      labels=labels,
      mutable=['batch_stats'],
    )
    return jnp.sum(y * cotangent), y

  grad = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
  (params, inputs), outputs = grad(variables['params'], x)
  return outputs, inputs, params


GOLDEN = {
  'biggan_gen': dict(
    outputs=[-0.619063123827, -0.181397053361, -0.353284571031,
             -0.0176742075473],
    inputs=[46.4263739725, -0.0332798866235, -33.9849759063, 9.53444668973],
    weights=[453.263901043, 434.469885757, 62.3863902026],
  ),
  'biggan_disc': dict(
    outputs=[-1.0906255107, 2.64038357247],
    inputs=[-6.52034042681e-06, 1.10227093488e-05, 0.000147450788627,
            0.000220993986936],
    weights=[23.0256522905, 0.372777778542, 20.0411352929],
  ),
  'sagan_gen': dict(
    outputs=[-0.313176755866, -0.386079616064, -0.187112845359,
             0.0682255152922],
    inputs=[6.1320123596, 13.1696215855, -74.5358418835, 45.6760811431],
    weights=[405.265231115, 788.483318786, 69.8867703054],
  ),
}  # fmt: skip


@pytest.mark.parametrize(
  'dtype, tolerance',
  [
    (np.float64, 1e-10),
    pytest.param(np.float32, 1e-4, marks=pytest.mark.slow),
  ],
)
@pytest.mark.parametrize('name', NETWORKS)
def test_outputs_and_gradients_equal_the_reference(name, dtype, tolerance):
  with jax.enable_x64(dtype == np.float64):
    outputs, inputs, params = computed(name, dtype)
  kernels = [
    np.linalg.norm(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key == 'kernel'
  ]
  few = lambda x: x.reshape(-1)[:: -(-x.size // 4)]
  ends = kernels[0], kernels[len(kernels) // 2], kernels[-1]
  found = {'outputs': few(outputs), 'inputs': few(inputs), 'weights': ends}
  for key, expected in GOLDEN[name].items():
    scale = np.abs(expected).max()
    close = np.allclose(found[key], expected, rtol=0, atol=tolerance * scale)
    assert close, (key, found[key], expected)


def count(module, x, classes):
  labels = jnp.zeros((N, classes))
  init = lambda: module.init(jax.random.key(0), x, KEYS, True, labels=labels)
  params = jax.eval_shape(init)['params']
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def networks(experiment):
  """Returns (network, input) of both players, and the number of classes."""
  config = get_config(*experiment.split(':'))
  models = games.models.make(
    config.model.to_dict(),
    resolution=config.data.resolution,
    channels=config.data.channels,
    precision='float32',
    axis_name=None,
    auxiliary=False,
  )
  size = config.data.resolution
  images = jnp.zeros((N, size, size, config.data.channels))
  z = jnp.zeros((N, config.game.latent_dim))
  return (models.gen, z), (models.disc, images), config.data.classes


@pytest.mark.parametrize(
  'experiment, expected',
  [
    # What the reference prints for launch_BigGAN_bs256x8.sh.
    ('biggan:imagenet128', (70_433_988, 87_982_370)),
    # The same code with the arguments of launch_SAGAN_bs128x2_ema.sh.
    ('sagan:imagenet128', (42_017_412, 39_448_258)),
  ],
)
def test_parameter_counts_at_128_equal_the_reference(experiment, expected):
  gen, disc, classes = networks(experiment)
  assert (count(*gen, classes), count(*disc, classes)) == expected


def test_parameter_counts_at_32_by_hand():
  """CIFAR-10 with the settings of StudioGAN."""
  conv = lambda n, m, k=3: k * k * n * m + m
  attend = lambda c: 2 * c * (c // 8) + 2 * c * (c // 2) + 1
  c, condition = 384, 128 + 20
  block = 2 * conv(c, c) + conv(c, c, 1) + 2 * 2 * condition * c
  gen = 10 * 128 + (20 + 1) * 16 * c + 3 * block + attend(c)
  gen += 2 * c + conv(c, 3)
  d = 192
  disc = conv(3, d) + conv(d, d) + conv(3, d, 1)
  disc += 3 * 2 * conv(d, d) + conv(d, d, 1) + attend(d)
  disc += (d + 1) + 10 * d
  (gen_and_z, disc_and_images, classes) = networks('biggan:cifar10')
  assert count(*gen_and_z, classes) == gen
  assert count(*disc_and_images, classes) == disc


def test_attention_by_hand():
  """NumPy computes one query at a time; gamma = 0 gives the identity."""
  layer = attention.SelfAttention(
    False, jax.nn.initializers.normal(1.0), 'float32'
  )
  x = np.random.RandomState(2).randn(1, 4, 4, 8).astype('float32')
  variables = layer.init(jax.random.key(0), jnp.asarray(x))
  same = layer.apply(variables, jnp.asarray(x))
  np.testing.assert_array_equal(same, x)
  kernels = {
    name: np.asarray(variables['params'][name]['kernel'][0, 0], 'float64')
    for name in ('query', 'key', 'value', 'out')
  }
  pool = lambda y: y.reshape(2, 2, 2, 2, -1).max((1, 3)).reshape(4, -1)
  keys, values = (pool(x[0] @ kernels[name]) for name in ('key', 'value'))
  expected = np.array(x[0], 'float64')
  for row, column in np.ndindex(4, 4):
    weights = np.exp(keys @ (x[0, row, column] @ kernels['query']))
    mixed = weights / weights.sum() @ values
    expected[row, column] += 3.0 * mixed @ kernels['out']
  params = {**variables['params'], 'gamma': jnp.float32(3)}
  y = layer.apply({'params': params}, jnp.asarray(x))[0]
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_orthogonal_regularization_equals_the_reference():
  """The gradient that utils.ortho of the reference adds, in its layout."""
  random = np.random.RandomState(3)
  kernel, shared = random.randn(3, 3, 2, 4), random.randn(5, 6)

  def value(kernel):
    params = {
      'Conv_0': {'kernel': kernel, 'bias': jnp.ones(4)},
      'shared': {'kernel': jnp.asarray(shared)},
    }
    inputs = GenPenaltyInputs(None, None, None, (), params=params)
    return orthogonal().value(inputs)[0]

  w = kernel.transpose(3, 2, 0, 1).reshape(4, -1)
  grad = 2 * (w @ w.T * (1 - np.eye(4))) @ w
  grad = grad.reshape(4, 2, 3, 3).transpose(2, 3, 1, 0)
  found = jax.grad(value)(jnp.asarray(kernel, jnp.float32))
  np.testing.assert_allclose(found, grad, rtol=1e-5, atol=1e-4)


def test_ema_copies_the_singular_vectors():
  game = games.make(get_config('biggan', 'tiny'))
  assert 'spectral' in game.ema_copies


def test_unsupported_settings_raise():
  config = get_config('biggan', 'tiny')
  batch = {
    'images': jnp.zeros((N, 16, 16, 1)),
    'labels': jnp.zeros(N, jnp.int32),
  }

  def init(key, value):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict({key: value})
    game = games.make(changed)
    jax.eval_shape(lambda: game.init(jax.random.key(0), batch))

  for key, value, message in (
    ('game.latent_dim', 13, 'must be a multiple of 3'),
    ('model.gen.attention', (4,), r'no block has an output of 4x4 .*8, 16'),
    ('model.disc.attention', (16,), r'no block has an output of 16x16'),
    ('model.disc.features', (4, 8), 'needs 8 or more channels, not 4'),
    ('model.gen.initializer', 'he2', "unknown .*initializer 'he2'"),
  ):
    with pytest.raises(UserError, match=message):
      init(key, value)
