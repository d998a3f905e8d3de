"""Tests of image-to-image networks: outputs and gradients of the references.

GOLDEN was computed once in float64 with PyTorch 2: the networks of
junyanz/pytorch-CycleGAN-and-pix2pix (models/networks.py) and xinntao/BasicSR
(models/archs), in training mode. RandomState(0) fills the layers in the order
in which they are called: randn / sqrt(inputs) for weights, 1 + randn / 10 for
BatchNorm's gains, randn / 10 for biases; then it draws the images, uniform in
[-1, 1], and the cotangent, randn, all in PyTorch's layout. `outputs` and
`pixels` (the gradient of the images) are every quarter of the flat array, and
`weights` the norms of the gradients of the first, middle and last layer.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models import layers, super_resolution, translation
from gan_jax.ops.resample import pixel_shuffle, pixel_unshuffle

GOLDEN = {
  'translation_resnet': dict(
    shape=(2, 3, 16, 12),
    outputs=[-0.00120644161782, 0.661827512197, 0.940218212565, 0.604028535668],
    loss=26.9999461098,
    pixels=[0.32793011251, -2.15340322668, -0.919806249726, 0.407306508319],
    weights=[501.657004872, 241.508644382, 230.823201206],
  ),
  'unet': dict(
    shape=(2, 2, 64, 64),
    outputs=[
      0.0116799846858,
      -0.0499867850046,
      0.0393040489828,
      -0.217560275001,
    ],
    loss=96.0198359423,
    pixels=[
      -0.0247028886641,
      -0.0839164810519,
      -0.241481666706,
      -0.605824793353,
    ],
    weights=[370.358989767, 226.906937292, 230.500356248],
  ),
  'unet_instance': dict(
    shape=(2, 2, 64, 64),
    outputs=[
      -0.00710500518283,
      -0.0842219338575,
      0.00857462907352,
      -0.0494310798136,
    ],
    loss=25.6067008246,
    pixels=[0.0753835626432, -0.276048174931, -0.2149158173, -0.406258550147],
    weights=[443.312545156, 266.788328062, 266.753453159],
  ),
  'patchgan': dict(
    shape=(2, 1, 2, 1),
    outputs=[-0.646785745673, -0.138773453256, 0.264489285218, -0.148493091132],
    loss=-0.41988209621,
    pixels=[
      0.00119123384057,
      0.000930934785541,
      0.000284057523736,
      -0.000572529457142,
    ],
    weights=[13.2511119294, 12.9706930475, 26.4666390491],
  ),
  'patchgan_batch': dict(
    shape=(2, 1, 2, 2),
    outputs=[-0.283453407082, -0.795581280176, -0.760792399223, 0.448431147222],
    loss=-2.58957747968,
    pixels=[
      0.00194844778401,
      0.0144286013801,
      -0.0059181238381,
      -0.0262178376987,
    ],
    weights=[11.2743943951, 18.9085847807, 23.2136138331],
  ),
  'srresnet': dict(
    shape=(2, 3, 24, 20),
    outputs=[
      -0.342593442844,
      -0.138387785656,
      -0.270910671816,
      -0.769039119441,
    ],
    loss=14.5174158972,
    pixels=[3.17707136122, 0.241586352304, 3.23445295388, -2.04910553056],
    weights=[34.9038089497, 38.6774109839, 60.7150744788],
  ),
  'srresnet_x3': dict(
    shape=(1, 3, 12, 15),
    outputs=[
      -0.00628229079374,
      0.703544758904,
      0.379820785674,
      -0.081451263741,
    ],
    loss=-5.87921984345,
    pixels=[-1.54447075593, 1.40874573902, -4.08470729908, -1.27131184692],
    weights=[15.211391035, 15.6429254423, 13.3258760131],
  ),
  'rrdb': dict(
    shape=(2, 3, 24, 20),
    outputs=[
      -0.0307133376033,
      0.0407368279943,
      0.111690437698,
      -0.0354609433361,
    ],
    loss=-2.45402378298,
    pixels=[3.58892789718, 0.268025970926, -1.05519268772, -1.32441254765],
    weights=[64.4215888937, 0.866556078527, 127.256126586],
  ),
  'rrdb_x2': dict(
    shape=(1, 3, 12, 8),
    outputs=[0.102079959108, -0.0939661555422, 0.178910441375, 0.222492999114],
    loss=1.17355884317,
    pixels=[0.418618725123, 0.730146328517, -0.173037647624, 0.0311765009473],
    weights=[28.4652598898, 0.476800104676, 22.3631761664],
  ),
  'vgg': dict(
    shape=(3, 1),
    outputs=[0.0305633975255, -0.413484633737, 0.141816055568],
    loss=0.497162648124,
    pixels=[
      -7.49512790231e-05,
      -0.00366338932401,
      0.00541587955636,
      -0.000236558010324,
    ],
    weights=[8.10262586782, 0.892808660818, 6.86541259644],
  ),
}

SHAPES = {
  'translation_resnet': (2, 3, 16, 12),
  'unet': (2, 3, 64, 64),
  'unet_instance': (2, 3, 64, 64),
  'patchgan': (2, 6, 32, 24),
  'patchgan_batch': (2, 3, 16, 16),
  'srresnet': (2, 3, 6, 5),
  'srresnet_x3': (1, 3, 4, 5),
  'rrdb': (2, 3, 6, 5),
  'rrdb_x2': (1, 3, 6, 4),
  'vgg': (3, 3, 128, 128),
}
NETWORKS = {
  'translation_resnet': partial(translation.ResNet, 3, 4, 2),
  'unet': partial(translation.UNet, 2, 2, 6, 'batch', 0.0),
  'unet_instance': partial(translation.UNet, 2, 2, 5, 'instance', 0.0),
  'patchgan': partial(translation.PatchGAN, 4, 3, 'instance'),
  'patchgan_batch': partial(translation.PatchGAN, 4, 2, 'batch'),
  'srresnet': partial(super_resolution.SRResNet, 3, 4, 8, 2),
  'srresnet_x3': partial(super_resolution.SRResNet, 3, 3, 4, 1),
  'rrdb': partial(super_resolution.RRDB, 3, 4, 8, 2, 4),
  'rrdb_x2': partial(super_resolution.RRDB, 3, 2, 8, 1, 4),
  'vgg': partial(super_resolution.VGG, 128, 2),
}
LAYERS = (layers.Conv, layers.ConvTranspose, nn.Dense, nn.BatchNorm)


def calls(module, images):
  """Returns the shapes of the variables, and the layers in calling order."""
  order = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, LAYERS) and context.method_name == '__call__':
      order.append(context.module.path)
    return call(*args, **kwargs)

  def init():
    keys = jax.random.split(jax.random.key(0), len(images))
    with nn.intercept_methods(record):
      return module.init(jax.random.key(0), images, keys, False)

  return jax.eval_shape(init), order


def torch_shape(name, shape):
  """Returns PyTorch's shape of one of our parameters."""
  if name != 'kernel':
    return shape
  if len(shape) == 4:  # [kh, kw, in, out], or [kh, kw, out, in] transposed
    return shape[3], shape[2], shape[0], shape[1]
  return shape[::-1]


def from_torch(weight, shape, folded):
  """Returns PyTorch's weight in our layout; `folded` pixels come last there."""
  if weight.ndim == 4:
    return weight.transpose(2, 3, 1, 0)
  if folded:  # PyTorch flattens [c, h, w], we [h, w, c]
    square = weight.reshape(len(weight), -1, folded, folded)
    return square.transpose(2, 3, 1, 0).reshape(shape)
  return weight.T


def fill(module, images, rng):
  """Returns our variables with the weights of the reference, and the order."""
  shapes, order = calls(module, images)
  variables = jax.tree.map(lambda x: np.zeros(x.shape), shapes)
  for path in order:
    block = variables['params']
    for part in path:
      block = block[part]
    for name in ('kernel', 'scale', 'bias'):
      if name not in block:
        continue
      shape = block[name].shape
      drawn = rng.randn(*torch_shape(name, shape))
      if name == 'kernel':
        drawn /= np.sqrt(np.prod(drawn.shape[1:]))
        folded = 4 if path[-1] == 'Dense_0' else 0
        block[name] = from_torch(drawn, shape, folded)
      else:
        block[name] = (name == 'scale') + 0.1 * drawn
  return variables, order


QUICK = ('translation_resnet', 'unet', 'patchgan', 'srresnet', 'rrdb', 'vgg')
CASES = [
  pytest.param(
    name,
    dtype,
    marks=() if name in QUICK and dtype == jnp.float64 else pytest.mark.slow,
  )
  for name in NETWORKS
  for dtype in (jnp.float32, jnp.float64)
]


@pytest.mark.parametrize('name, dtype', CASES)
def test_outputs_and_gradients_equal_the_references(name, dtype):
  atol = 1e-10 if dtype == jnp.float64 else 1e-4
  golden, rng = GOLDEN[name], np.random.RandomState(0)
  to_ours = lambda x: x.transpose(0, 2, 3, 1)
  to_torch = lambda x: x.transpose(0, 3, 1, 2)
  sampled = lambda x: x.ravel()[:: max(1, x.size // 4)][:4]
  with jax.enable_x64(dtype == jnp.float64):
    module = NETWORKS[name](dtype=dtype)
    n, c, h, w = SHAPES[name]
    variables, order = fill(module, jnp.zeros((n, h, w, c), dtype), rng)
    images = to_ours(rng.uniform(-1, 1, SHAPES[name]))
    cotangent = rng.randn(*golden['shape'])
    if len(golden['shape']) == 4 and name.startswith('patchgan'):
      cotangent = cotangent[:, 0]
    elif len(golden['shape']) == 4:
      cotangent = to_ours(cotangent)
    else:
      cotangent = cotangent[:, 0]
    cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
    variables, images, cotangent = cast((variables, images, cotangent))
    keys = jax.random.split(jax.random.key(0), n)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def run(params, images):
      y, _ = module.apply(
        {**variables, 'params': params}, images, keys, True,
        mutable=['batch_stats'],
      )  # fmt: skip
      return jnp.sum(y * cotangent), y

    results = jax.tree.map(np.asarray, run(variables['params'], images))
  (loss, y), (grads, pixels) = results
  assert y.dtype == dtype
  y = to_torch(y) if y.ndim == 4 else y
  close = partial(np.testing.assert_allclose, rtol=atol, atol=atol)
  close(sampled(y), golden['outputs'])
  close(loss, golden['loss'])
  close(sampled(to_torch(pixels)), golden['pixels'])
  norms = []
  for path in (order[0], order[len(order) // 2], order[-1]):
    block = grads
    for part in path:
      block = block[part]
    norms.append(np.linalg.norm(block.get('kernel', block.get('scale'))))
  close(norms, golden['weights'])


def count(module, *shape):
  shapes, _ = calls(module, jnp.zeros(shape))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))


def test_parameter_counts_equal_the_references():
  """PyTorch counted those of the references."""
  resnet = partial(translation.ResNet, 3)
  assert count(resnet(), 1, 256, 256, 3) == 11_378_179
  assert count(resnet(num_blocks=6), 1, 128, 128, 3) == 7_837_699
  assert count(translation.UNet(3), 1, 256, 256, 3) == 54_413_955
  assert count(translation.PatchGAN(), 1, 256, 256, 3) == 2_764_737
  conditional = translation.PatchGAN(norm='batch')
  assert count(conditional, 1, 256, 256, 6) == 2_768_705
  srresnet = partial(super_resolution.SRResNet, 3)
  assert count(srresnet(), 1, 24, 24, 3) == 1_517_571
  assert count(srresnet(2), 1, 24, 24, 3) == 1_369_859
  assert count(super_resolution.RRDB(3), 1, 32, 32, 3) == 16_697_987
  assert count(super_resolution.VGG(128), 1, 128, 128, 3) == 14_499_401


def test_patchgan_has_a_receptive_field_of_70_pixels():
  """The gradient of a logit in the middle reaches 70x70 pixels."""
  images = jax.random.normal(jax.random.key(0), (1, 128, 128, 1))
  keys = jax.random.split(jax.random.key(0), 1)
  # Without instance norm, whose statistics depend on the whole image.
  module = translation.PatchGAN(2, norm='batch')
  init = jax.jit(module.init, static_argnums=3)
  variables = init(keys[0], images, keys, False)
  logit = lambda images: module.apply(variables, images, keys, False)[0, 7, 7]
  reached = np.asarray(jax.jit(jax.grad(logit))(images))[0, :, :, 0] != 0
  assert reached.any(axis=0).sum() == reached.any(axis=1).sum() == 70


def test_unet_dropout_acts_in_both_modes_by_the_key_of_the_example():
  module = translation.UNet(1, 4, 3)
  image = jax.random.normal(jax.random.key(1), (1, 8, 8, 1))
  images = jnp.tile(image, (3, 1, 1, 1))
  keys = jax.random.split(jax.random.key(0), 2)[jnp.array([0, 1, 0])]
  variables = jax.jit(module.init, static_argnums=3)(
    keys[0], images, keys, False
  )
  outputs = np.asarray(module.apply(variables, images, keys, False))
  np.testing.assert_array_equal(outputs[0], outputs[2])
  assert abs(outputs[0] - outputs[1]).max() > 1e-6


def test_pixel_shuffle_by_hand():
  """Channels (a, b) of a square: rows are a, columns are b."""
  x = jnp.arange(8.0).reshape(1, 1, 1, 8)
  y = pixel_shuffle(x, 2)
  np.testing.assert_array_equal(y[0, :, :, 0], [[0, 1], [2, 3]])
  np.testing.assert_array_equal(y[0, :, :, 1], [[4, 5], [6, 7]])
  np.testing.assert_array_equal(pixel_unshuffle(y, 2), x)


@pytest.mark.parametrize(
  'module, shape, message',
  [
    (translation.ResNet(3), (1, 10, 8, 3), 'multiples of 4 pixels'),
    (translation.ResNet(3), (1, 4, 4, 3), 'too small'),
    (translation.UNet(3, 4, 5), (1, 16, 16, 3), 'multiples of 32'),
    (translation.PatchGAN(), (1, 16, 16, 3), 'at least 24x24'),
    (super_resolution.SRResNet(3, 8), (1, 8, 8, 3), '2, 3 or 4'),
    (super_resolution.RRDB(3, 3), (1, 8, 8, 3), '2 or 4'),
    (super_resolution.RRDB(3, 2), (1, 7, 8, 3), 'even'),
    (super_resolution.VGG(48), (1, 48, 48, 3), '8, 16, 32'),
  ],
)
def test_unsupported_sizes_raise(module, shape, message):
  with pytest.raises(UserError, match=message):
    calls(module, jnp.zeros(shape))
