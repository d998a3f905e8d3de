"""Tests of exported generators, opened with and without this package."""

import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from runs import get_config, untrained_run
from safetensors import safe_open
from safetensors.numpy import save_file

import gan_jax
from gan_jax.errors import UserError
from gan_jax.runs.onnx_graph import to_onnx
from gan_jax.training.schedule import make_schedule

# Prevents imports of this package, as on a machine that has only JAX.
PLAIN = """
import sys

class Refuse:
  def find_spec(self, name, *_):
    if name.split('.')[0] in ('gan_jax', 'experiments', 'flax'):
      raise ImportError(name)

sys.meta_path.insert(0, Refuse())
"""
KINDS = [
  ('vanilla_mnist', 0),
  ('cgan_digits', 0),
  ('dcgan_celeba', 0),
  pytest.param('projection_cifar10', 0, marks=pytest.mark.slow),
  pytest.param('progressive_celeba', 0, marks=pytest.mark.slow),
  ('progressive_celeba', 1),
  pytest.param('progressive_celeba', -1, marks=pytest.mark.slow),
]


def stage_step(config, segment):
  """Returns the middle step of a segment; if it fades in, 0 < alpha < 1."""
  placed = make_schedule(config).segments[segment]
  return (placed.first_step + placed.end_step) // 2


@pytest.mark.parametrize(('name', 'segment'), KINDS)
def test_exported_generator_equals_the_run(
  name, segment, monkeypatch, tmp_path
):
  config = get_config(name, 'tiny')
  run = untrained_run(config, monkeypatch, stage_step(config, segment))
  for suffix in ('stablehlo', 'safetensors', 'onnx'):
    generate = gan_jax.open_export(
      run.export(tmp_path / f'g.{suffix}', overwrite=True)
    )
    for n in (1, 5):
      inputs = run.inputs(n)
      expected = np.asarray(run.generator(run.params, inputs))
      inputs = {k: inputs[k] for k in generate.shapes}
      atol = 1e-4 if suffix == 'onnx' else 1e-5
      np.testing.assert_allclose(generate(**inputs), expected, atol=atol)


@pytest.fixture
def run(monkeypatch):
  return untrained_run(get_config('cgan_digits', 'tiny'), monkeypatch)


@pytest.mark.processes
def test_card_code_opens_the_export_with_jax_alone(run, tmp_path):
  """The code runs where gan_jax cannot be imported."""
  run.export(tmp_path / 'g.safetensors')  # of the same name, with its card
  run.export(tmp_path / 'g.stablehlo', licence='CC0-1.0')
  card = (tmp_path / 'g.stablehlo.md').read_text()
  code = card.split('```python\n')[1].split('```')[0]
  code = f'{PLAIN}{code}\nnp = __import__("numpy")\nnp.save("z", z)\n'
  done = subprocess.run(
    [sys.executable, '-c', code + 'np.save("images", images)'],
    cwd=tmp_path,
    env={'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  inputs = run.inputs(16, labels=0)
  inputs = {**inputs, 'z': jnp.asarray(np.load(tmp_path / 'z.npy'))}
  expected = run.generator(run.params, inputs)
  found = np.load(tmp_path / 'images.npy')
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert 'license: "CC0-1.0"' in card
  assert '`digits`, split `train`' in card
  assert '| `labels` | [n, 10] | one-hot classes |' in card
  assert 'has not been evaluated' in card


def test_card_has_scores_but_no_local_paths(run, tmp_path, monkeypatch):
  protocol = {'metric': {'name': 'fid'}, 'fakes': {'images': 100}}
  score = {
    'name': 'fid', 'value': 12.5, 'std': None, 'step': 0, 'images': 0,
    'protocol': protocol,
  }  # fmt: skip
  (tmp_path / 'scores.jsonl').write_text(json.dumps(score) + '\n')
  run.workdir = tmp_path
  run.config.data.source = 'folder:/data/someone/cats'
  run.config.data.files = '/data/someone/files'
  run.export(tmp_path / 'g.safetensors')
  card = (tmp_path / 'g.safetensors.md').read_text()
  assert '| fid | 12.5 | lowest | 1 |' in card
  assert 'Protocol 1: fakes.images 100.' in card
  assert '`folder:cats`' in card
  assert 'someone' not in card
  with safe_open(tmp_path / 'g.safetensors', 'numpy') as file:
    described = file.metadata()
    names = set(file.keys())
  config = json.loads(described['config'])
  assert config['data']['files'] is None
  assert config['model']['gen']['name'] == 'mlp'
  assert 'params/Dense_0/kernel' in names


def test_code_in_a_config_needs_trust(run, tmp_path):
  run.config.game.latent = 'mine.py:latent'
  file = run.export(tmp_path / 'g.safetensors')
  with pytest.raises(UserError, match=r'names code of its own, mine\.py:lat'):
    gan_jax.open_export(file)


@pytest.mark.parametrize(
  ('inputs', 'message'),
  [
    ({'z': (3, 64)}, r'g\.stablehlo takes labels, z, not z'),
    ({'z': (3, 65), 'labels': (3, 10)}, r'z of .* shape \[n, 64\]'),
    ({'z': (3, 64), 'labels': (2, 10)}, 'with one n for all inputs'),
    ({'z': (), 'labels': (3, 10)}, r'shape \[n, 64\]'),
  ],
)
def test_wrong_inputs_raise(run, tmp_path, inputs, message):
  generate = gan_jax.open_export(run.export(tmp_path / 'g.stablehlo'))
  with pytest.raises(UserError, match=message):
    generate(**{name: np.zeros(shape) for name, shape in inputs.items()})


def test_unwritable_and_unreadable_files_raise(run, tmp_path, monkeypatch):
  file = run.export(tmp_path / 'g.stablehlo')
  with pytest.raises(UserError, match='exists: name another, or pass overwr'):
    run.export(file)
  with pytest.raises(UserError, match=r'an export is one of FILE\.onnx'):
    run.export(tmp_path / 'g.pt')
  file.write_bytes(file.read_bytes()[:1000])
  with pytest.raises(UserError, match='cannot be read'):
    gan_jax.open_export(file)
  with pytest.raises(UserError, match='there is no file'):
    gan_jax.open_export(tmp_path / 'h.stablehlo')
  save_file({'x': np.zeros(2)}, tmp_path / 'x.safetensors')
  with pytest.raises(UserError, match='is not an export of gan_jax'):
    gan_jax.open_export(tmp_path / 'x.safetensors')
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"needs flatbuffers: pip .*\[export\]'"):
    run.export(tmp_path / 'h.stablehlo')


def converted(function, **shapes):
  """Returns the outputs of ONNX and of JAX on random inputs."""
  content = to_onnx(lambda x: function(**x), shapes)
  session = onnxruntime.InferenceSession(
    content, providers=['CPUExecutionProvider']
  )
  rng = np.random.default_rng(0)
  inputs = {
    name: rng.standard_normal((3, *shape)).astype(np.float32)
    for name, shape in shapes.items()
  }
  (found,) = session.run(None, inputs)
  return found, function(**jax.tree.map(jnp.asarray, inputs))


class Stock(nn.Module):
  """Stock layers of Flax, with a grouped and a strided convolution."""

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(6, (3, 2), strides=2, feature_group_count=3)(x)
    x = nn.GroupNorm(2)(nn.silu(x))
    x = nn.gelu(nn.Conv(4, (3, 3), padding='VALID', kernel_dilation=2)(x))
    return nn.softmax(nn.LayerNorm()(x))


def test_onnx_of_flax_layers_equals_jax():
  variables = Stock().init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
  apply = lambda x: Stock().apply(variables, x)
  found, expected = converted(apply, x=(12, 12, 3))
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
  ('function', 'shapes'),
  [
    (lambda x: jnp.einsum('nij,nkj->nik', x, x), {'x': (4, 5)}),
    (
      lambda x, y: jax.lax.slice_in_dim(
        jnp.concatenate([x, y], -1), 1, 6, 2, 1
      ),
      {'x': (3,), 'y': (4,)},
    ),
    (lambda x: jnp.where(x > 0, x**3, jnp.sign(x)).T.T, {'x': (4,)}),
    (lambda x: jnp.broadcast_to(jnp.arange(3.0), (len_of(x), 3)), {'x': (2,)}),
    (lambda x: jnp.clip(x, -0.5, 0.5).max(-1, keepdims=True), {'x': (6,)}),
  ],
)
def test_onnx_of_primitives_equals_jax(function, shapes):
  found, expected = converted(function, **shapes)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def len_of(x):
  return x.shape[0]


def test_unsupported_primitive_raises():
  with pytest.raises(UserError, match='uses cumsum, which the export to ONNX'):
    to_onnx(lambda x: jnp.cumsum(x['x'], -1), {'x': (4,)})
