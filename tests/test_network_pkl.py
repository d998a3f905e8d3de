"""Tests that published .pkl files are read without running their code."""

import os
import pickle

import jax
import jax.numpy as jnp
import network_pkls as pkls
import numpy as np
import pytest
import r3gan_reference as reference

import gan_jax
from gan_jax.errors import UserError
from gan_jax.models import style, style_discriminator, style_weights
from gan_jax.models.r3gan_weights import from_reference
from gan_jax.training import network_pkl

GEN = reference.arrays(reference.gen_shapes(), np.float32)
DISC = reference.arrays(reference.disc_shapes(), np.float32)
EMA = {name: 2 * array for name, array in GEN.items()}


def read_error(path):
  with pytest.raises(UserError) as raised:
    network_pkl.read(path)
  message = str(raised.value)
  assert str(path) in message and '\n' not in message
  return message


def assert_equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture
def r3gan_file(tmp_path):
  path = tmp_path / 'r3gan.pkl'
  return pkls.write(path, pkls.by_name, G=GEN, D=DISC, G_ema=EMA)


def test_r3gan_file_opens_as_a_run(r3gan_file):
  run = gan_jax.load_pkl(r3gan_file)
  assert_equal(run.params, from_reference(EMA).variables)
  assert_equal(run.disc_vars, from_reference(DISC).variables)
  images = run.sample(3, labels=[0, 1, 2])
  assert images.shape == (3, 8, 8, 3)
  assert images.std() > 1
  np.testing.assert_array_equal(images[:2], run.sample(2, labels=[0, 1]))
  assert (run.sample(3, truncation=0.1, labels=[0, 1, 2]) != images).any()
  assert run.interpolate(1, 3).shape == (1, 3, 8, 8, 3)
  assert run.discriminator(images, labels=1).shape == (3,)
  with pytest.raises(UserError, match=r'r3gan.pkl has no metrics'):
    run.metrics()
  with pytest.raises(UserError, match='style-based'):
    run.mix()


def style_arrays():
  """Returns random arrays by reference names of two networks of 8x8 images."""
  arrays, keys = [], jax.random.split(jax.random.key(0), 1)
  block = {'features': 64, 'most_features': 8}
  for make, shape in (
    (style.Generator, (1, 6)),
    (style_discriminator.Discriminator, (1, 8, 8, 3)),
  ):
    more = {'w_dim': 6, 'mapping_layers': 2} if shape == (1, 6) else {}
    module = make(resolution=8, channels=3, **block, **more)
    init = lambda module=module, shape=shape: module.init(
      keys[0], jnp.zeros(shape), keys, False
    )
    arrays.append(style_weights.to_reference(jax.jit(init)()))
  return arrays


def test_stylegan2_file_does_not_run_its_source(tmp_path):
  gen, disc = style_arrays()
  marker = tmp_path / 'ran'
  wrap = pkls.persistent(pkls.SOURCE.format(str(marker)))
  path = pkls.write(tmp_path / 'a.pkl', wrap, G=gen, D=disc, G_ema=gen)
  found = network_pkl.read(path)
  assert not marker.exists()
  assert_equal(found.ema.variables, style_weights.from_reference(gen).variables)
  assert (found.gen.resolution, found.gen.latent_dim) == (8, 6)
  run = gan_jax.load_pkl(path)
  images = run.sample(2, truncation=0.5)
  assert images.shape == (2, 8, 8, 3)
  w = run.w(run.inputs(2)['z'], truncation=0.5)
  np.testing.assert_array_equal(run.synthesize(w), images)


class Evil:
  """Creates a file when pickle loads it."""

  def __init__(self, created):
    self.created = created

  def __reduce__(self):
    return os.system, (f'touch {self.created}',)


def test_code_is_refused_and_not_run(tmp_path):
  """The code is a network, a part of its state, or in a nested pickle."""
  created = tmp_path / 'created'
  for protocol in (0, 2, 4):
    attack = pickle.dumps(Evil(created), protocol)
    opcodes = attack.removesuffix(b'.')
    wrapped = pkls.persistent('')({'_parameters': opcodes})
    nested = pkls.tensor(None, np.zeros(3), content=attack)
    state = {'_parameters': {'a': nested}, '_buffers': {}, '_modules': {}}
    for part in (opcodes, wrapped, pkls.by_name(state)):
      path = pkls.write(tmp_path / 'evil.pkl', None, G=part, D={}, G_ema={})
      assert f"'{os.system.__module__}.system'" in read_error(path)
      assert not created.exists()
  pickle.loads(attack)  # plain pickle runs the code
  assert created.exists()


@pytest.mark.parametrize(
  'name',
  [
    'builtins:eval',
    'builtins:getattr',
    'torch:load',
    'torch.hub:load',
    'torch.nn.modules:os.system',
    'training.networks:os.system',
    'torch_utils.persistence:_src_to_module',
    'numpy:load',
    'subprocess:run',
  ],
)
def test_other_names_are_refused_or_inert(tmp_path, name):
  """A class in a network's module becomes a record, whatever its name."""
  opcodes = pkls.call(name, '1')
  path = pkls.write(tmp_path / 'a.pkl', None, G=opcodes, D={}, G_ema={})
  message = read_error(path)
  inert = name.endswith(':os.system')
  assert (
    ('damaged' in message or 'requests' in message)
    if inert
    else (repr(name.replace(':', '.')) in message)
  )


@pytest.mark.parametrize(
  'arrays, kind',
  [
    ({'synthesis.input.freqs': np.ones(3)}, 'this is a StyleGAN3'),
    ({'synthesis.L0_36_8.weight': np.ones(3)}, 'this is a StyleGAN3'),
    ({'feature_network.pretrained.a': np.ones(3)}, 'this is a StyleGAN-XL'),
    ({'fc.weight': np.ones((3, 3))}, 'not those of a StyleGAN2'),
    ({**GEN, 'Model.MainLayers.0.Layers.9.x': np.ones(3)}, 'R3GAN does not'),
  ],
)
def test_unsupported_networks_are_named(tmp_path, arrays, kind):
  wrap = pkls.persistent('')
  path = pkls.write(tmp_path / 'a.pkl', wrap, G=arrays, D=DISC, G_ema=arrays)
  assert kind in read_error(path)


@pytest.mark.parametrize(
  'name, kind',
  [
    ('dnnlib.tflib.network:Network', 'a TensorFlow StyleGAN: convert it'),
    ('timm.models.efficientnet:EfficientNet', 'StyleGAN-XL'),
    ('pg_modules.discriminator:Any', 'StyleGAN-XL'),
  ],
)
def test_unsupported_pickles_are_named(tmp_path, name, kind):
  opcodes = pkls.call(name)
  path = pkls.write(tmp_path / 'a.pkl', None, G=opcodes, D={}, G_ema={})
  assert kind in read_error(path)


def test_damaged_files_raise(r3gan_file, tmp_path):
  content = r3gan_file.read_bytes()
  for size in (0, 10, len(content) // 2, len(content) - 1):
    r3gan_file.write_bytes(content[:size])
    assert 'is damaged' in read_error(r3gan_file)
  assert 'cannot read' in read_error(tmp_path / 'none.pkl')
  other = tmp_path / 'other.pkl'
  other.write_bytes(pickle.dumps({'G': 3}))
  assert "holds a int as 'G'" in read_error(other)
  other.write_bytes(pickle.dumps({'model': [1]}))
  assert "has no network 'G'" in read_error(other)
  other.write_bytes(pickle.dumps([1, 2]))
  assert "has no network 'G'" in read_error(other)


def test_reading_does_not_affect_later_reads(tmp_path, r3gan_file):
  """A pickle can change only objects that were created for it."""
  change = b'ctraining.networks\nGenerator\n(N(V__setstate__\nNdtb'
  path = pkls.write(tmp_path / 'a.pkl', None, G=change, D={}, G_ema={})
  read_error(path)
  assert network_pkl.read(r3gan_file).ema.resolution == 8
