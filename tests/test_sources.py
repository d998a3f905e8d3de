"""Tests of several sources, pairs, outputs and random crops."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from runs import metrics

import gan_jax
from experiments import vanilla_mnist
from gan_jax import data
from gan_jax.data.loader import fetch_all
from gan_jax.data.on_device import read as read_on_device
from gan_jax.data.order import Stream, stream_of
from gan_jax.data.source import entry_source, in_memory, joined
from gan_jax.errors import UserError
from gan_jax.training import loop


def read(*args, **settings):
  """Calls `read` with JAX arrays."""
  args = jax.tree.map(jnp.asarray, args)
  return read_on_device(*args, **settings)


def numbered(n, size=1):
  """Returns images whose pixels all have the number of the image."""
  images = np.arange(n, dtype=np.uint8)[:, None, None, None]
  return in_memory({'images': np.tile(images, (1, size, size, 1))})


def levels(images):
  """Returns the uint8 values of images in [-1, 1]."""
  return np.rint((np.asarray(images)[..., 0, 0, 0] + 1) * 127.5).astype(int)


def test_source_of_a_file_may_have_an_absolute_path(tmp_path):
  (tmp_path / 'rows_of_noise.py').write_text(
    'import numpy as np\n'
    'from gan_jax.data.source import in_memory\n'
    'def rows(spec):\n'
    "  return in_memory({'images': np.zeros((7, 28, 28, 1), np.uint8)})\n"
  )
  config = vanilla_mnist.get_config('tiny')
  config.data.source = f'{tmp_path}/rows_of_noise.py:rows'
  assert data.make(config).size == 7
  config.data.source = f'{tmp_path}'
  with pytest.raises(UserError, match=r'set --config\.data\.source=folder:/'):
    data.make(config)


@pytest.mark.parametrize('resident', [True, False])
def test_each_source_has_its_own_size_and_order(resident):
  """Every epoch of a source shows each of its images once."""
  source = joined({'a': numbered(6), 'b': numbered(4)})
  assert source.size == 6
  stream = stream_of(source, seed=3)
  indices = stream.indices(np.arange(12))
  batch = {'example': np.arange(12)}
  dataset = {}
  if resident:
    dataset, batch['index'] = fetch_all(source), indices
  else:
    batch.update(source.fetch(indices))
  key = jax.random.key(0)
  result = read(
    dataset, batch, key, jnp.int32(0), flip=False, parts=source.parts
  )
  a, b = levels(result['a']), levels(result['b'])
  for epoch in (a[:6], a[6:]):
    assert sorted(epoch) == list(range(6))
  for epoch in (b[:4], b[4:8], b[8:]):
    assert sorted(epoch) == list(range(4))
  # The order depends on the name, not on the other source.
  assert a.tolist() == Stream(3, 6, name='a').indices(np.arange(12)).tolist()
  same_size = stream_of(joined({'a': numbered(6), 'b': numbered(6)}), seed=3)
  orders = same_size.indices(np.arange(6))
  assert orders['a'].tolist() != orders['b'].tolist()
  assert orders['a'].tolist() == a[:6].tolist()


def test_pairs_are_mirrored_together_and_sources_independently():
  """A pair has one random flip; the images of two sources have two."""
  ramp = np.tile(np.uint8([0, 255])[None, None, :, None], (64, 2, 1, 1))
  batch = {'a': ramp, 'b': ramp, 'example': np.arange(64)}
  args = {}, batch, jax.random.key(0), jnp.int32(0)
  mirrored = lambda x: np.asarray(x[:, 0, 0, 0] > 0)
  pair = read(*args, flip=True)
  coins = mirrored(pair['a'])
  assert 16 < coins.sum() < 48
  np.testing.assert_array_equal(coins, mirrored(pair['b']))
  separate = read(*args, flip=True, parts=('a', 'b'))
  assert 16 < (mirrored(separate['a']) != mirrored(separate['b'])).sum() < 48


def test_random_crops_depend_only_on_the_example():
  """Every window is equally likely, and the same for both images of a pair."""
  image = np.arange(36, dtype=np.uint8).reshape(1, 6, 6, 1)
  image = np.tile(image, (400, 1, 1, 1))
  batch = {'a': image, 'b': image, 'example': np.arange(400)}
  args = {}, batch, jax.random.key(0), jnp.int32(0)
  result = read(*args, flip=False, crop=4)
  assert result['a'].shape == (400, 4, 4, 1)
  np.testing.assert_array_equal(result['a'], result['b'])
  corners = levels(result['a'])
  expected = [6 * row + column for row in range(3) for column in range(3)]
  found, counts = np.unique(corners, return_counts=True)
  assert found.tolist() == expected
  assert counts.min() > 20  # 400 / 9 = 44 expected
  half = {name: x[200:] for name, x in batch.items()}
  cropped_again = read({}, half, *args[2:], flip=False, crop=4)
  np.testing.assert_array_equal(cropped_again['a'], result['a'][200:])


def test_generated_sources_are_independent():
  config = block(a='toy:ring', b='toy:ring', resolution=1, channels=2)
  source = data.make(config)
  batch = {'example': np.arange(8)}
  args = {}, batch, jax.random.key(0), jnp.int32(0)
  result = read(*args, flip=False, draw=source.draw, parts=source.parts)
  assert result['a'].shape == result['b'].shape == (8, 1, 1, 2)
  assert (result['a'] != result['b']).all()


def block(**changes):
  fields = {
    'source': None, 'a': None, 'b': None, 'split': 'all', 'files': None,
    'dir': None, 'crop': None, 'resolution': 28, 'channels': 1, 'flip': False,
    'max_device_bytes': 2**30, 'workers': 0, 'load_resolution': None,
  }  # fmt: skip
  return ConfigDict({'data': {**fields, **changes}})


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'a': 'digits'}, 'config.data.a is set, but the data needs'),
    ({}, 'no source is set, but the data needs config.data.source, or both'),
    (
      {'source': 'digits', 'a': 'digits', 'b': 'digits'},
      'config.data.source, config.data.a, config.data.b is set',
    ),
    (
      {'a': 'digits', 'b': 'slanted_land', 'resolution': 2},
      'config.data.b is drawn on the devices, but config.data.a has stored',
    ),
    (
      {'source': 'digits', 'load_resolution': 20},
      'load_resolution=20 is below config.data.resolution=28: set it to 28',
    ),
    (
      {'a': 'digits', 'b': 'digitz'},
      "config.data.b 'digitz'; did you mean 'digits'",
    ),
  ],
)
def test_invalid_sources_are_refused_in_one_line(changes, message):
  with pytest.raises(UserError) as error:
    data.make(block(**changes))
  assert message in str(error.value)
  assert '\n' not in str(error.value)


def test_only_training_loads_larger_images():
  config = block(source='digits', load_resolution=32)
  examples = lambda **kwargs: data.make(config, **kwargs).fetch(np.arange(2))
  assert examples(training=True)['images'].shape == (2, 32, 32, 1)
  assert examples()['images'].shape == (2, 28, 28, 1)


def test_split_of_a_folder_is_part_of_its_path(tmp_path):
  for name, level in (('trainA', 10), ('testA', 20)):
    (tmp_path / name).mkdir()
    for n in range(2):
      Image.new('L', (4, 4), level).save(tmp_path / name / f'{n}.png')
  changes = {'source': f'folder:{tmp_path}/{{split}}A', 'resolution': 4}
  for split, level in (('train', 10), ('test', 20)):
    source = data.make(block(split=split, **changes))
    assert source.fetch(np.arange(2))['images'].max() == level
  with pytest.raises(UserError, match=r'there is no folder .*valA'):
    data.make(block(split='val', **changes))


def test_entry_source_is_one_half_of_the_pairs():
  pairs = in_memory({'a': np.zeros((3, 2, 2, 1)), 'b': np.ones((3, 2, 2, 1))})
  half = entry_source(pairs, 'b')
  assert half.size == 3
  assert half.fetch(np.arange(2))['images'].min() == 1


MINE = """
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from gan_jax.data.source import in_memory
from gan_jax.games.game import Aux, Game, Output, Update
from gan_jax.metrics.measure import Metric
from gan_jax.pair import Pair


def images(level, count):
  return in_memory({'images': np.full((count, 28, 28, 1), level, np.uint8)})


dark = lambda spec: images(50, 12)
bright = lambda spec: images(200, 20)


def mean_error(reference, fake):
  error = fake.images.astype(float) - fake.targets
  assert (fake.given == (50 if fake.given.max() < 100 else 200)).all()
  assert len(error) == 20  # the size of the larger set
  return {'error': np.abs(error).mean()}


error = Metric('pairs', ('error',), mean_error, data='pairs')


def one_source(config, axis_name=None):
  return translation(config)._replace(sources=('source',))


def translation(config, axis_name=None):
  '''Two generators that add a learnt constant: a to b, and b to a.'''
  def init(key, batch):
    assert batch['a'].shape[1:] == batch['b'].shape[1:]
    gen = {'a_to_b': jnp.zeros(()), 'b_to_a': jnp.zeros(())}
    return Pair(gen={'params': gen}, disc={'params': jnp.zeros(())}), ()

  def translate(params, name, images):
    return images + params[name]

  def generate(gen_vars, inputs, phase):
    params = gen_vars['params']
    return {
      'b': translate(params, 'a_to_b', inputs['a']),
      'a': translate(params, 'b_to_a', inputs['b']),
    }, {}

  def gen_loss(params, context, batch, fakes, keys, phase):
    far = lambda name: jnp.mean((fakes[name] - batch[name].mean()) ** 2)
    return far('a') + far('b'), Aux({})

  def disc_loss(params, context, batch, fakes, keys, phase):
    return params ** 2, Aux({})

  def output(source, to):
    name = f'{source}_to_{to}'
    return Output(
      lambda gen_vars, inputs, phase: translate(
        gen_vars['params'], name, inputs[source]),
      reference=to,
      given=lambda batch: batch[source],
      target=lambda batch: batch[to],
    )

  return Game(
    init=init,
    sample_inputs=lambda keys, batch, phase: {
      'a': batch['a'], 'b': batch['b']},
    generate=generate,
    outputs={'a_to_b': output('a', 'b'), 'b_to_a': output('b', 'a')},
    updates=Pair(gen=(Update(gen_loss),), disc=(Update(disc_loss),)),
    reads=('a', 'b'),
    sources=('a', 'b'),
  )
"""


@pytest.fixture(scope='module')
def translation(tmp_path_factory):
  """The config of a game with two sources and two outputs, and its run."""
  folder = tmp_path_factory.mktemp('mine')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    (folder / 'two.py').write_text(MINE)
    config = vanilla_mnist.get_config('tiny')
    config.data.source = None
    config.data.a, config.data.b = 'two.py:dark', 'two.py:bright'
    config.game = ConfigDict({'name': 'two.py:translation'})
    config.model = ConfigDict()
    config.optimizer.gen.learning_rate = 0.05
    config.total_images = 16 * 60
    config.evaluation.every_images = 16 * 60
    config.evaluation.metrics = ('two.py:error', 'swd')
    loop.train(config, folder / 'run')
    yield config, folder / 'run'


def test_two_outputs_have_separate_grids_and_scores(translation):
  """Each output is compared with its own reference."""
  _, workdir = translation
  _, *_, last = metrics(workdir)
  for name in ('a_to_b', 'b_to_a'):
    assert last[f'eval/{name}/error'] < 5  # 150 at the start
    assert f'eval/{name}/swd' in last
    assert (workdir / 'samples' / f'{16 * 60:010d}_{name}.png').exists()
  grid = np.asarray(
    Image.open(workdir / 'samples' / f'{16 * 60:010d}_a_to_b.png')
  )
  given, sample, target = grid[0, 0], grid[0, 28], grid[0, 56]
  assert given == 50
  assert abs(int(sample) - 200) < 5
  assert target == 200
  saved = json.loads((workdir / 'config.json').read_text())
  assert saved['data']['size'] == [12, 20]


def test_run_with_two_outputs_can_be_loaded(translation):
  _, workdir = translation
  run = gan_jax.load(workdir, trust=True)
  images = run.sample(3, output='b_to_a')  # translates the run's data
  assert abs(images.astype(int) - 50).max() < 5
  inputs = jnp.full((2, 28, 28, 1), -1.0)
  images = run.sample(2, a=inputs, b=inputs)
  assert abs(images.astype(int) - 150).max() < 5
  assert run.show(4, output='b_to_a').width >= 3 * 28
  with pytest.raises(UserError, match=r'reads a=, b=, not images='):
    run.sample(2, images=inputs)
  with pytest.raises(UserError, match="unknown output 'b_to_b'"):
    run.sample(2, output='b_to_b')
  with pytest.raises(UserError, match='names code of its own'):
    gan_jax.load(workdir)


def test_run_of_two_sources_resumes_bit_for_bit(translation, tmp_path):
  config, workdir = translation
  config = config.copy_and_resolve_references()
  config.total_images = 16 * 24
  loop.train(config, tmp_path / 'run')
  config.total_images = 16 * 60
  loop.train(config, tmp_path / 'run')
  one, two = (
    gan_jax.load(path, trust=True).params['params']
    for path in (workdir, tmp_path / 'run')
  )
  assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), one, two))


def test_sources_of_another_game_raise(translation):
  config, _ = translation
  config = config.copy_and_resolve_references()
  config.game.name = 'two.py:one_source'
  with pytest.raises(UserError, match=r'trains on config.data.source: set it'):
    loop.train(config, '/nowhere')


def test_rotations_depend_only_on_the_example_and_are_equal_in_a_pair():
  """All four quarter turns are equally likely; compares with NumPy's rot90."""
  image = np.uint8([[0, 1], [2, 3]])[None, :, :, None]
  images = np.tile(image, (200, 1, 1, 1))
  batch = {'a': images, 'b': images, 'example': np.arange(200)}
  args = {}, batch, jax.random.key(0), jnp.int32(0)
  result = read(*args, flip=False, rotate=True)
  np.testing.assert_array_equal(result['a'], result['b'])
  pixels = np.rint((np.asarray(result['a'])[..., 0] + 1) * 127.5)
  rotated = [np.rot90(image[0, :, :, 0], k) for k in range(4)]
  counts = [(pixels == x).all((1, 2)).sum() for x in rotated]
  assert sum(counts) == 200
  assert min(counts) > 30
  half = {name: x[100:] for name, x in batch.items()}
  rotated_again = read({}, half, *args[2:], flip=False, rotate=True)
  np.testing.assert_array_equal(rotated_again['a'], result['a'][100:])
