"""Tests of DINOv2 and CLIP: they are exactly the reference networks.

The golden numbers are those of the references, run once in float64 (PyTorch
2.14, transformers 5.24) on the tensors of vit_weights.py and its `images()`: of
each image the first four features, the last one, and the sum of feature i *
cos(i).
"""

import json
import math

import inception_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vit_weights
from PIL import Image
from safetensors.numpy import save_file

import gan_jax
from gan_jax import metrics, safetensors_weights
from gan_jax.errors import UserError
from gan_jax.metrics import clip, dinov2, vit
from gan_jax.metrics.features import FEATURES
from gan_jax.ops.bicubic import pillow_resize, pytorch_weights

# facebookresearch/dinov2 (b8931f7) with the settings of PyTorch Hub, on images
# that dgm-eval (74c79f7) prepared in float32, for positions of 37x37 patches
# (which it interpolates in float32: its `float` was replaced) and of 16x16.
# transformers' Dinov2Model gave the same numbers for 16x16 patches.
DINOV2 = {
  37: [
    [-0.932544638, -0.0566217348, 1.47511175, 1.4041568, 0.275427005,
     -0.844567241],
    [-0.901925286, -0.00479984571, 1.43056461, 1.36807309, 0.586812072,
     -0.879229057],
  ],
  16: [
    [0.0220571726, -0.474359739, -0.153817116, 1.01574605, 0.384652813,
     7.99247871],
    [-0.120844115, -0.183208516, 0.270047988, 1.03573377, 0.344030657,
     9.94769707],
  ],
}  # fmt: skip
# transformers' CLIPVisionModelWithProjection, on images that cmmd-pytorch
# (f7673a9) prepared, at 56x56 pixels.
CLIP = [
  [-0.0211147898, 0.279585667, -0.038790574, -0.0469176625, -0.151235544,
   -0.0118551743],
  [-0.00801586355, 0.144897911, 0.0215916661, -0.0942536891, -0.0956660109,
   -0.150328338],
]  # fmt: skip


def summary(features):
  """What the golden numbers hold of features [n, d]."""
  features = np.asarray(features, np.float64)
  cosines = features @ np.cos(np.arange(features.shape[1]))
  columns = features[:, [0, 1, 2, 3, -1]]
  return np.concatenate([columns, cosines[:, None]], axis=1)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """The small networks, in the formats of their files."""
  folder = tmp_path_factory.mktemp('vit')
  for grid in DINOV2:
    arrays = vit_weights.dinov2(grid)
    save_file(arrays, folder / f'dinov2_{grid}.safetensors')
  hub = vit_weights.of_pytorch_hub(vit_weights.dinov2(37))
  inception_weights.write_arrays(folder / 'dinov2_37.pth', hub)
  save_file(vit_weights.clip(4), folder / 'clip.safetensors')
  return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """Makes an empty cache, and unsets the variables that name files."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  for network in (dinov2, clip):
    monkeypatch.delenv(network.FILE.variable, raising=False)
  return tmp_path


def in_float64(network, path):
  """The features of `images()`, computed in float64."""
  weights, _ = network.load(path)
  with jax.enable_x64(True):
    weights = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), weights)
    found = jax.jit(network.extract)(weights, vit_weights.images())
    assert found['features'].dtype == jnp.float64
    return np.asarray(found['features'])


def in_float32(network, path):
  weights, _ = network.load(path)
  found = jax.jit(network.extract)(weights, vit_weights.images())['features']
  assert found.dtype == jnp.float32
  return found


@pytest.mark.parametrize('grid', DINOV2)
def test_dinov2_is_that_of_pytorch_hub_and_dgm_eval(files, grid):
  path = files / f'dinov2_{grid}.safetensors'
  expected = np.array(DINOV2[grid])
  exact = in_float64(dinov2, path)
  assert exact.shape == (2, vit_weights.WIDTH)
  np.testing.assert_allclose(summary(exact), expected, atol=1e-6)
  found = in_float32(dinov2, path)
  assert abs(found - exact).max() < 1e-5 * abs(exact).max()


def test_clip_is_that_of_transformers_and_cmmd_pytorch(files):
  path = files / 'clip.safetensors'
  exact = in_float64(clip, path)
  assert exact.shape == (2, vit_weights.OUTPUT)
  np.testing.assert_allclose(np.linalg.norm(exact, axis=1), 1, rtol=1e-12)
  np.testing.assert_allclose(summary(exact), np.array(CLIP), atol=1e-8)
  found = in_float32(clip, path)
  assert abs(found - exact).max() < 1e-5 * abs(exact).max()


def test_the_versions_of_these_features(files, monkeypatch):
  """If the numbers above change on purpose, the version is raised by one."""
  path = files / 'dinov2_16.safetensors'
  monkeypatch.setenv('GAN_JAX_DINOV2', str(path))
  monkeypatch.setenv('GAN_JAX_CLIP', str(files / 'clip.safetensors'))
  for name, load in (('dinov2', dinov2.load), ('clip', clip.load)):
    network = FEATURES[name]()
    assert (network.name, network.version) == (name, 1)
    assert network.sha256 == load()[1]


def test_float_images_are_not_rounded(files):
  """Path lengths need it: images that differ by less than a level differ."""
  weights, _ = dinov2.load(files / 'dinov2_16.safetensors')
  images = vit_weights.images()
  extract = lambda x: jax.jit(dinov2.extract)(weights, x)['features']
  floats = jnp.asarray(images, jnp.float32)
  near = extract(floats)
  scale = abs(near).max()
  assert abs(near - extract(images)).max() < 0.05 * scale
  change = abs(extract(floats + 0.01) - near).max()
  assert 1e-6 * scale < change < 0.05 * scale


def test_grey_images_are_repeated(files):
  weights, _ = clip.load(files / 'clip.safetensors')
  grey = vit_weights.images()[..., :1]
  first, second = (
    jax.jit(clip.extract)(weights, x)['features']
    for x in (grey, np.repeat(grey, 3, axis=-1))
  )
  np.testing.assert_allclose(first, second, atol=1e-6)
  with pytest.raises(UserError, match='1 or 3 channels, not 2'):
    clip.extract(weights, jnp.repeat(grey, 2, axis=-1))


def test_all_products_have_full_precision(files):
  """TF32 on GPUs and bfloat16 on TPUs would change the scores."""
  for network, name, count in (
    (dinov2, 'dinov2_37', 2 + 7),  # of rows and columns of the positions
    (clip, 'clip', 1 + 7),
  ):
    weights, _ = network.load(files / f'{name}.safetensors')
    lowered = jax.jit(network.extract).lower(weights, vit_weights.images())
    products = [
      line
      for line in lowered.as_text().splitlines()
      if 'dot_general' in line and 'i32' not in line
    ]
    assert len(products) == count, products
    assert all(line.count('HIGHEST') == 2 for line in products)


def count(shapes):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def test_the_large_networks_have_their_number_of_weights():
  """304,368,640 of dinov2_vitl14, with a mask token of 1,024 that no feature
  uses; 303,507,456 of the vision tower of CLIP ViT-L/14 at 336 pixels, and its
  projection.
  """
  images = jax.ShapeDtypeStruct((2, 32, 32, 3), np.uint8)
  large = dinov2.shapes(vit.Size(24, 1024, 4096, 14, 37, 1024))
  assert count(large) + 1024 == 304_368_640
  found = jax.eval_shape(dinov2.extract, large, images)
  assert found['features'].shape == (2, 1024)
  large = clip.shapes(vit.Size(24, 1024, 4096, 14, 24, 768))
  assert count(large) == 303_507_456 + 1024 * 768
  found = jax.eval_shape(clip.extract, large, images)
  assert found['features'].shape == (2, 768)


def by_transformers(folder, config, arrays, network, images):
  """The output of a network that transformers loads from its files."""
  import torch

  config.save_pretrained(folder)
  metadata = {'format': 'pt'}
  save_file(arrays, folder / 'model.safetensors', metadata=metadata)
  loaded = network.from_pretrained(folder).eval()
  with torch.no_grad():
    return loaded(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))


def prepared(images, size, details):
  """Images resized by Pillow, and normalized."""
  resized = [
    np.asarray(Image.fromarray(x).resize((size, size), Image.BICUBIC))
    for x in images
  ]
  x = np.stack(resized).astype(np.float32) / 255
  return (x - np.float32(details.mean)) / np.float32(details.std)


@pytest.mark.certify
@pytest.mark.parametrize('side', [32, 224, 301])
@pytest.mark.parametrize('name', ['dinov2', 'clip'])
def test_random_images_agree_with_transformers(name, side, tmp_path):
  transformers = pytest.importorskip('transformers')
  images = np.random.default_rng(side).integers(
    0, 256, (2, side, side, 3), np.uint8
  )
  size = {
    'hidden_size': vit_weights.WIDTH,
    'num_hidden_layers': vit_weights.LAYERS,
    'num_attention_heads': vit_weights.WIDTH // vit.HEAD_WIDTH,
    'patch_size': 14,
  }
  if name == 'dinov2':
    arrays, network = vit_weights.dinov2(16, seed=side), dinov2
    config = transformers.Dinov2Config(image_size=224, mlp_ratio=2, **size)
    x = prepared(images, 224, dinov2.DETAILS)
    given = tmp_path, config, arrays, transformers.Dinov2Model, x
    theirs = by_transformers(*given).last_hidden_state[:, 0].numpy()
  else:
    arrays, network = vit_weights.clip(24, seed=side), clip
    config = transformers.CLIPVisionConfig(
      image_size=336,
      intermediate_size=vit_weights.HIDDEN,
      projection_dim=vit_weights.OUTPUT,
      **size,
    )
    x = prepared(images, 336, clip.DETAILS)
    model = transformers.CLIPVisionModelWithProjection
    theirs = by_transformers(tmp_path, config, arrays, model, x).image_embeds
    theirs = theirs.numpy()
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
  weights, _ = network.load(tmp_path / 'model.safetensors')
  ours = jax.jit(network.extract)(weights, images)['features']
  difference = abs(ours - theirs).max() / abs(theirs).max()
  print(name, side, f'{difference:.1e}')
  assert difference < 1e-5


# Files.


def same(a, b):
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_a_file_of_pytorch_hub_is_the_same_network(files):
  weights, sha256 = dinov2.load(files / 'dinov2_37.safetensors')
  hub, hub_sha256 = dinov2.load(files / 'dinov2_37.pth')
  assert same(weights, hub)
  assert sha256 == hub_sha256 and len(sha256) == 64
  assert dinov2.load(files / 'dinov2_16.safetensors')[1] != sha256


def write_safetensors(path, arrays, name):
  """Writes the format by hand, with one type."""
  header, content = {}, b''
  for key, array in arrays.items():
    ends = [len(content), len(content) + array.nbytes]
    row = {'dtype': name, 'shape': array.shape, 'data_offsets': ends}
    header[key] = row
    content += array.tobytes()
  header['__metadata__'] = {'format': 'pt'}
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + content)


@pytest.mark.parametrize(
  ('name', 'dtype'),
  [('F16', np.float16), ('BF16', jnp.bfloat16), ('F64', np.float64)],
)
def test_files_of_other_types(tmp_path, name, dtype):
  """The weights are float32, of the values in the file."""
  arrays = vit_weights.dinov2(16)
  short = {key: array.astype(dtype) for key, array in arrays.items()}
  write_safetensors(tmp_path / 'short', short, name)
  values = {key: array.astype(np.float32) for key, array in short.items()}
  save_file(values, tmp_path / 'values.safetensors')
  (found, a), (expected, b) = (
    dinov2.load(tmp_path / x) for x in ('short', 'values.safetensors')
  )
  assert same(found, expected) and a == b
  assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype('float32')}


def test_files_are_found(files, cache, monkeypatch):
  """The first place, the cache folders of other programs, the variable."""
  for network, source, places in (
    (
      dinov2,
      'dinov2_37.safetensors',
      (
        'gan_jax/dinov2-large/model.safetensors',
        'huggingface/hub/models--facebook--dinov2-large/snapshots/47b/'
        'model.safetensors',
        'torch/hub/checkpoints/dinov2_vitl14_pretrain.pth',
      ),
    ),
    (
      clip,
      'clip.safetensors',
      (
        'gan_jax/clip-vit-large-patch14-336/model.safetensors',
        'gan_jax/clip-vit-large-patch14-336/pytorch_model.bin',
        'huggingface/hub/models--openai--clip-vit-large-patch14-336/snapshots/'
        'ce1/pytorch_model.bin',
      ),
    ),
  ):
    assert not network.FILE.is_available()
    for place in places:
      path = cache / place
      path.parent.mkdir(parents=True)
      path.symlink_to(files / source)  # as Hugging Face's files are
      assert network.FILE.is_available()
      assert network.FILE.find() == path
      path.unlink()
      path.parent.rmdir()
    monkeypatch.setenv(network.FILE.variable, str(cache / 'nowhere'))
    assert not network.FILE.is_available()
    monkeypatch.setenv(network.FILE.variable, str(files / source))
    assert network.FILE.find() == files / source


def test_files_are_found_where_variables_move_the_caches(
  files, cache, tmp_path, monkeypatch
):
  for variable, place in (
    ('HF_HOME', 'hub/models--facebook--dinov2-large/snapshots/47b'),
    ('TORCH_HOME', 'hub/checkpoints'),
  ):
    monkeypatch.setenv(variable, str(tmp_path / variable))
    folder = tmp_path / variable / place
    folder.mkdir(parents=True)
    name = 'model.safetensors'
    if variable == 'TORCH_HOME':
      name = 'dinov2_vitl14_pretrain.pth'
    (folder / name).symlink_to(files / 'dinov2_37.safetensors')
    assert dinov2.FILE.find() == folder / name
    (folder / name).unlink()


@pytest.mark.parametrize('name', ('dinov2', 'clip'))
def test_a_missing_file_says_where_to_get_it(name, cache):
  with pytest.raises(UserError) as raised:
    FEATURES[name]()
  message = str(raised.value)
  model = {
    'dinov2': 'facebook/dinov2-large',
    'clip': 'openai/clip-vit-large-patch14-336',
  }[name]
  for part in (
    f'https://huggingface.co/{model}',
    f'into {cache / "gan_jax" / model.split("/")[1]}',
    f'GAN_JAX_{name.upper()}=FILE',
    'model.safetensors',
  ):
    assert part in message
  assert '\n' not in message
  with pytest.raises(UserError, match=r'no weights of .* at /no/file: '):
    {'dinov2': dinov2, 'clip': clip}[name].load('/no/file')


OTHER = {
  'a text': b'hello',
  'nothing': b'',
  'a header beyond the file': (2**40).to_bytes(8, 'little') + b'{}',
  'a header that is no JSON': (4).to_bytes(8, 'little') + b'{abc',
}


@pytest.mark.parametrize('content', OTHER.values(), ids=OTHER)
def test_damaged_files_are_one_line(tmp_path, content):
  path = tmp_path / 'x.safetensors'
  path.write_bytes(content)
  with pytest.raises(UserError, match=r'x\.safetensors is damaged'):
    dinov2.load(path)


def test_truncated_files_are_one_line(files, tmp_path):
  whole = (files / 'clip.safetensors').read_bytes()
  path = tmp_path / 'x.safetensors'
  for size in (20, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:size])
    with pytest.raises(UserError, match=r'x\.safetensors is damaged'):
      clip.load(path)
  with pytest.raises(UserError, match='there is no file'):
    safetensors_weights.read(tmp_path / 'nowhere')


def test_weights_of_another_network_are_one_line(files, tmp_path):
  path = tmp_path / 'other.safetensors'
  arrays = vit_weights.dinov2(16)
  first = 'encoder.layer.1.mlp'
  for changes, reason in (
    ({'embeddings.register_tokens': np.zeros((1, 4, 128))}, 'it has registers'),
    ({f'{first}.fc1.bias': None}, f"no '{first}.fc1.bias'"),
    (  # one number would be added to all features
      {f'encoder.layer.{i}.mlp.fc2.bias': np.zeros(1) for i in range(3)},
      r'blocks\.down\.bias is \(3, 1\), not \(3, 128\)',
    ),
    ({'embeddings.cls_token': np.zeros((1, 1, 96))}, '96 is not a multiple'),
    (
      {'embeddings.position_embeddings': np.zeros((1, 256, 128))},
      r'positions is \(256, 128\), not \(226, 128\)',
    ),
  ):
    changed = {k: v for k, v in (arrays | changes).items() if v is not None}
    save_file(changed, path)
    with pytest.raises(UserError, match=f'holds another network .*{reason}'):
      dinov2.load(path)
  with pytest.raises(UserError, match=r'another network \(no .*GAN_JAX_'):
    clip.load(files / 'dinov2_16.safetensors')


# Scores.


def test_fd_and_cmmd_of_images(files, monkeypatch):
  """The scores of two sets are those of the features, with their stamps."""
  monkeypatch.setenv('GAN_JAX_DINOV2', str(files / 'dinov2_16.safetensors'))
  monkeypatch.setenv('GAN_JAX_CLIP', str(files / 'clip.safetensors'))
  draw = np.random.default_rng(0)
  real, fake = (
    draw.integers(0, high, (n, 8, 8, 1), np.uint8)
    for high, n in ((256, 9), (200, 6))
  )
  how = {'num_samples': 6}
  scores = {}
  for metric, network in (('fid', 'dinov2'), ('cmmd', 'clip')):
    scores |= gan_jax.evaluate(
      fake, real, metrics=(metric,), features=network, **how
    )
  for metric, network in (('fid', dinov2), ('cmmd', clip)):
    weights, sha256 = network.load()
    of = lambda x, network=network, weights=weights: np.asarray(
      jax.jit(network.extract)(weights, x)['features']
    )
    expected = getattr(metrics, metric)(of(real), of(fake))
    assert scores[metric].value == pytest.approx(expected, rel=1e-3)
    stamp = scores[metric].protocol['features']
    name = network.__name__.rpartition('.')[2]
    assert stamp == {'name': name, 'sha256': sha256, 'version': 1}


@pytest.mark.parametrize('features', [None, 'digits'])
def test_cmmd_is_defined_for_clip(features):
  images = np.zeros((4, 8, 8, 1), np.uint8)
  with pytest.raises(UserError, match=r'evaluation\.features=clip'):
    gan_jax.evaluate(images, images, metrics=('cmmd',), features=features)


def halves(images):
  """Features of the test: the means of the upper and the lower half."""
  x = images.astype('float32') / 255
  return jnp.stack([x[:, :4].mean((1, 2, 3)), x[:, 4:].mean((1, 2, 3))], 1)


def test_cmmd_of_a_users_features():
  images = np.zeros((4, 8, 8, 1), np.uint8)
  images[2:, :4] = 255
  score = gan_jax.evaluate(
    images[:2], images, metrics=('cmmd',), features=halves
  )
  # Half of the reals are at a distance of 1 from the fakes.
  expected = 1000 * (2 * 0.5 - 0.5) * (1 - np.exp(-1 / 200))
  assert score['cmmd'].value == pytest.approx(expected, rel=1e-5)


# Resizing.


@pytest.mark.parametrize(
  ('height', 'width', 'size'),
  [(32, 32, 224), (112, 56, 224), (224, 300, 224), (400, 31, 56)],
)
def test_uint8_is_resized_bitwise_as_by_pillow(height, width, size):
  draw = np.random.default_rng(0)
  image = draw.integers(0, 256, (height, width, 3), np.uint8)
  image[: height // 2] = 255 * (image[: height // 2] > 127)  # overshoots
  found = pillow_resize(jnp.asarray(image[None]), size)[0]
  # (In two steps, because versions of Pillow differ in which axis is first.)
  wide = Image.fromarray(image).resize((size, height), Image.BICUBIC)
  expected = wide.resize((size, size), Image.BICUBIC)
  np.testing.assert_array_equal(found, np.asarray(expected))


def test_pytorch_weights_by_hand():
  """Cubic of a = -3/4 halfway between pixels: -3/32 and 19/32."""
  near, far = 19 / 32, -3 / 32
  matrix = pytorch_weights(4, 2, 0.5)
  middle = [[far + near, near, far, 0], [0, far, near, near + far]]
  np.testing.assert_allclose(matrix, middle, atol=1e-12)
  # Outputs are at (i + 1/2) / scale - 1/2, whatever the sizes are.
  assert pytorch_weights(4, 1, 1.0)[0] == pytest.approx([1, 0, 0, 0])
