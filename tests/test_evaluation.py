"""Tests of scores: during training, afterwards, and in a notebook."""

import errno
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from runs import evaluated_config, metrics

import gan_jax
from gan_jax import games
from gan_jax.data.digits import digits
from gan_jax.data.source import DataSpec, in_memory
from gan_jax.errors import UserError
from gan_jax.games.game import Output
from gan_jax.metrics import cifar10, fid, metric_inputs, scores
from gan_jax.metrics import digits as classifier
from gan_jax.metrics.evaluator import Evaluator
from gan_jax.modes import evaluate
from gan_jax.ops.pixels import quantize, to_uint8
from gan_jax.training import checkpoint, loop
from gan_jax.training.schedule import make_schedule


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  loop.train(evaluated_config(), workdir)
  return workdir


def pixels(images):
  return images.reshape(len(images), -1).astype(np.float64) / 127.5 - 1


def test_logged_fid_equals_that_of_the_samples(workdir):
  """Recomputed from 5,000 digits and 90 samples of the checkpoint."""
  run = gan_jax.load(workdir)
  from gan_jax.keys import Purpose, example_keys

  keys = example_keys(jax.random.key(0), Purpose.EVALUATE, jax.numpy.arange(90))
  inputs = run._game.sample_inputs(keys, {}, run._phase)
  samples = to_uint8(run.generator(run.params, inputs))
  source = digits(DataSpec('', 28, 1))
  data = source.fetch(np.arange(5000))['images']
  expected = fid(pixels(data), pixels(samples))
  line = metrics(workdir)[-1]
  assert line['eval/fid'] == pytest.approx(expected, rel=1e-5)
  assert {
    'eval/precision',
    'eval/recall',
    'eval/swd_28',
    'eval/ms_ssim',
  } <= set(line)


def test_evaluated_checkpoints_are_kept(workdir):
  """Each evaluation has a line of metrics, and the best checkpoint can be
  loaded.
  """
  lines = [line for line in metrics(workdir) if 'eval/fid' in line]
  assert [line['step'] for line in lines] == [0, 12, 24]
  lines = lines[1:]  # of checkpoints
  assert {12, 24} <= set(checkpoint.steps(workdir))
  best = min(lines, key=lambda line: line['eval/fid'])['step']
  assert gan_jax.load(workdir, best='fid').step == best
  highest = max(line['eval/precision'] for line in lines)
  found = gan_jax.load(workdir, best='precision').step
  assert {12: lines[0], 24: lines[1]}[found]['eval/precision'] == highest
  with pytest.raises(UserError, match="'fad'; did you mean 'fid'"):
    gan_jax.load(workdir, best='fad')


def test_protocol_records_network_data_and_fakes(workdir):
  newest = next(
    s for s in scores.read(workdir) if (s.name, s.step) == ('fid', 24)
  )
  assert newest.protocol['metric'] == {'name': 'fid', 'version': 1}
  pixels = {'name': 'pixels', 'sha256': '', 'version': 1}
  assert newest.protocol['features'] == pixels
  reference = newest.protocol['reference']
  assert (reference['source'], reference['images']) == ('digits', 5000)
  assert (reference['resolution'], reference['resize'][:7]) == (28, 'Lanczos')
  assert reference['preprocessing'] == 1
  assert newest.protocol['fakes'] == {
    'seeds': 1, 'images': 90, 'generator': 'ema', 'truncation': None,
  }  # fmt: skip
  swd = {s.name: s for s in scores.read(workdir)}['swd']
  assert swd.protocol['features'] is None
  ranking = {s.name for s in scores.read(workdir) if s.ranks}
  assert ranking == {'fid'}


def test_evaluate_mode_reproduces_the_score(workdir, capsys):
  """More samples and seeds make another protocol."""
  before = {s.name: s for s in scores.read(workdir)}
  evaluate.evaluate(evaluated_config(), workdir)
  after = {s.name: s for s in scores.read(workdir)}
  assert after['fid'].value == pytest.approx(before['fid'].value, rel=1e-6)
  # At iterations 0, 12 and 24; replaced, not added.
  assert len(scores.read(workdir)) == 3 * len(before)
  config = evaluated_config(num_samples=120, seeds=3, metrics=('fid',))
  evaluate.evaluate(config, workdir, step='all')
  printed = capsys.readouterr().out
  assert 'Iteration 12: fid' in printed
  assert '+-' in printed
  newest = [s for s in scores.read(workdir) if s.name == 'fid'][-1]
  assert newest.std > 0
  assert newest.protocol['fakes']['seeds'] == 3
  evaluate.evaluate(config, workdir, step='best', truncation=0.5)
  truncated = [s for s in scores.read(workdir) if s.name == 'fid'][-1]
  assert truncated.protocol['fakes']['truncation'] == 0.5
  assert truncated.value != newest.value
  with pytest.raises(UserError, match='--step=last'):
    evaluate.evaluate(config, workdir, step='last')


def test_summary_names_the_metrics(tmp_path, scripted, capsys):
  """The run summary has one line about the evaluation."""
  config = evaluated_config(every_images=16 * 24, metrics=('fid', 'classes'))
  config.evaluation.features = 'digits'
  scripted += [2.0, 1.0]
  loop.train(config, tmp_path)
  lines = capsys.readouterr().out.splitlines()
  assert 'Scores:   fid, classes (features: digits) every 384 images' in lines


def refuse(*_):
  raise PermissionError(errno.EACCES, 'Permission denied')


def test_read_only_workdir_prints_scores_and_one_warning(
  workdir, tmp_path, capsys, monkeypatch
):
  copy = shutil.copytree(workdir, tmp_path / 'copy')
  before = (copy / 'scores.jsonl').read_bytes()
  # (Root can write to every folder.)
  monkeypatch.setattr('gan_jax.metrics.scores.held', refuse)
  config = evaluated_config(num_samples=40, metrics=('swd',))
  evaluate.evaluate(config, copy, step='all')
  printed = capsys.readouterr()
  assert printed.out.count('swd_28') == len(checkpoint.steps(copy)) > 1
  (line,) = printed.err.splitlines()
  assert line.startswith('Warning: the scores are not saved')
  assert (copy / 'scores.jsonl').read_bytes() == before


def test_compare_sorts_runs_by_score(workdir, tmp_path):
  """Only scores of the same protocol are compared."""
  run = gan_jax.load(workdir)
  settings = {'metrics': ('fid',), 'features': 'pixels', 'num_samples': 90}
  rough = gan_jax.evaluate(gan_jax.load(workdir, step=12), **settings)
  fine = gan_jax.evaluate(run, **settings)
  table = gan_jax.compare(rough, fine)
  order = sorted([rough['fid'].value, fine['fid'].value])
  assert table['fid'].tolist() == order
  other = gan_jax.evaluate(run, **{**settings, 'num_samples': 60})
  with pytest.raises(UserError, match=r'differ in fakes\.images \(90 and 60\)'):
    gan_jax.compare(fine, other)
  with pytest.raises(UserError, match=r"no score 'kid'.*valid: fid"):
    gan_jax.compare(fine, other, name='kid')


def test_compare_uses_a_shared_protocol(workdir, tmp_path):
  """Even if the newest score of a run has another protocol."""
  other = shutil.copytree(workdir, tmp_path / 'other')
  config = evaluated_config(num_samples=50, metrics=('fid',))
  evaluate.evaluate(config, other, truncation=0.5)
  assert scores.read(other)[-1].protocol['fakes']['truncation'] == 0.5
  table = gan_jax.compare(workdir, other)
  assert table['fid'].nunique() == 1
  assert table['images'].tolist() == [384, 384]
  with pytest.raises(UserError, match='not both'):
    gan_jax.load(workdir, step=12, best='fid')


def test_evaluate_takes_arrays_and_folders(workdir, tmp_path):
  """Samples of another system can be an array or a folder."""
  run = gan_jax.load(workdir)
  samples = run.sample(50)
  settings = {'metrics': ('fid',), 'features': 'pixels'}
  direct = gan_jax.evaluate(samples, run, **settings)['fid']
  for i, image in enumerate(samples):
    Image.fromarray(image[..., 0]).save(tmp_path / f'{i:02}.png')
  of_folder = gan_jax.evaluate(str(tmp_path), run, **settings)['fid']
  assert of_folder.value == pytest.approx(direct.value, rel=1e-6)
  itself = gan_jax.evaluate(samples, samples, **settings)['fid']
  assert itself.value == pytest.approx(0, abs=1e-6)
  with pytest.raises(
    UserError, match=r'14x14x1 cannot be compared with images of 28x28x1'
  ):
    gan_jax.evaluate(samples[:, :14, :14], run, **settings)
  Image.new('RGB', (64, 64)).save(tmp_path / '00.png')
  with pytest.raises(
    UserError, match='images of 64 pixels, but the others have 28'
  ):
    gan_jax.evaluate(run, str(tmp_path), **settings)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'metrics': ('fidd',)}, "'fidd'; did you mean 'fid'"),
    ({'features': 'digit'}, "'digit'; did you mean 'digits'"),
    ({'features': 'nowhere:look'}, 'cannot be imported'),
    ({'metrics': ('classes',)}, 'use a classifier'),
    ({'metrics': ('memorisation',)}, 'evaluation.held_out=SPLIT'),
    ({'features': None}, r'weights-inception-2015-12-05-6726825d\.pth'),
    ({'num_samples': 0}, 'must be from 2 to 10,000,000'),
    ({'num_samples': 3}, '3 examples are too few for 3 neigh'),
    (
      {'features': 'test_evaluation:pictures'},
      'must return features',
    ),
  ],
)
def test_user_errors_come_before_training(tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    loop.train(evaluated_config(**changes), tmp_path / 'run')


def test_memorisation_counts_copies_of_training_images(workdir):
  """Copies of any training image count; unseen images do not."""
  data = digits(DataSpec('', 28, 1)).fetch(np.arange(5000))['images']
  evaluator = Evaluator(
    evaluated_config(
      metrics=('memorisation', 'kid'), num_samples=60
    ).evaluation,
    in_memory({'images': data[::2]}),
    {},
    in_memory({'images': data[1::10]}),
  )
  of = lambda images: evaluator.evaluate_images(in_memory({'images': images}))
  copies = of(data[4000:4120:2])['memorisation']['memorisation'][0]
  unseen = of(data[3::80][:60])['memorisation']['memorisation'][0]
  assert copies == 1
  assert 0.3 < unseen < 0.7
  assert evaluator.main == 'kid'  # memorisation does not rank
  with pytest.raises(UserError, match='does not rank generators'):
    gan_jax.compare(workdir, workdir, name='ms_ssim')


def test_metrics_without_inception_weights_use_pixels(tmp_path, capsys):
  config = evaluated_config(metrics=(), features=None)
  loop.train(config, tmp_path)
  line = metrics(tmp_path)[-1]
  assert {'eval/swd', 'eval/ms_ssim'} <= set(line)
  assert 'eval/fid' not in line
  (printed,) = re.findall('^Scores: .*', capsys.readouterr().out, re.MULTILINE)
  assert printed.startswith(
    'Scores:   swd, ms_ssim every 192 images (FID needs'
  )
  assert 'weights-inception-2015-12-05-6726825d.pth' in printed


def pictures(images):
  """Not a feature function: it returns no vectors."""
  return images.astype('float32')


def columns(images):
  """A custom feature function: the means of the columns."""
  return images.astype('float32').mean((1, 3))


def test_custom_feature_function_is_used(workdir):
  run = gan_jax.load(workdir)
  settings = {'metrics': ('fid',), 'features': 'test_evaluation:columns'}
  score = gan_jax.evaluate(run.sample(200), run, **settings)['fid']
  data = digits(DataSpec('', 28, 1)).fetch(np.arange(5000))['images']
  expected = fid(
    columns(data).astype(float), columns(run.sample(200)).astype(float)
  )
  assert score.value == pytest.approx(expected, rel=1e-4)
  assert len(score.protocol['features']['sha256']) == 64


def test_reference_statistics_are_cached(workdir, capsys):
  """A damaged cache file is replaced."""
  run = gan_jax.load(workdir)
  settings = {'metrics': ('fid',), 'features': 'pixels', 'num_samples': 77}
  first = gan_jax.evaluate(run, **settings)['fid'].value
  assert 'statistics of 5,000 images' in capsys.readouterr().out
  assert gan_jax.evaluate(run, **settings)['fid'].value == first
  assert 'statistics' not in capsys.readouterr().out
  from gan_jax.files import cache_folder

  for file in (cache_folder() / 'references').iterdir():
    file.write_bytes(file.read_bytes()[:100])
  assert gan_jax.evaluate(run, **settings)['fid'].value == first


def write_noise(folder, seed, chosen=range(20)):
  """Writes a folder of 20 images, or replaces the chosen ones."""
  for i in chosen:
    shape = (8, 8 + seed)
    pixels = np.random.default_rng((seed, i)).integers(0, 256, shape, np.uint8)
    path = folder / f'{"ab"[i % 2]}' / f'{i:02}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def reference_of(folder, seen):
  """Returns the protocol of a folder, and whether statistics were computed."""
  settings = {'metrics': ('fid',), 'features': 'pixels'}
  images = np.zeros((5, 8, 8, 1), np.uint8)
  score = gan_jax.evaluate(images, str(folder), **settings)['fid']
  return score.protocol['reference'], 'statistics of 20 images' in seen().out


def test_large_set_is_identified_by_its_files(tmp_path, monkeypatch, capsys):
  """A changed file makes another reference."""
  monkeypatch.setattr('gan_jax.metrics.fingerprint.MAX_HASHED_BYTES', 0)
  of = lambda folder: reference_of(folder, capsys.readouterr)
  one, other = tmp_path / 'one', tmp_path / 'other'
  write_noise(one, 0)
  protocol, computed = of(one)
  assert computed
  assert of(one) == (protocol, False)
  # A copy whose files were touched is the same set, but is read again.
  shutil.copytree(one, other)
  for path in other.rglob('*.png'):
    os.utime(path, ns=(1, 1))
  assert of(other) == (protocol, True)
  write_noise(one, 1, range(1, 20))
  changed, computed = of(one)
  assert computed
  assert changed['content'] != protocol['content']


def test_small_set_is_identified_by_its_pixels(tmp_path, capsys):
  write_noise(tmp_path, 0)
  first = reference_of(tmp_path, capsys.readouterr)
  assert first[1]
  (tmp_path / 'a' / '00.png').rename(tmp_path / 'a' / '000.png')
  assert reference_of(tmp_path, capsys.readouterr) == (first[0], False)
  write_noise(tmp_path, 1, [7])
  assert reference_of(tmp_path, capsys.readouterr)[1]


def test_nearest_finds_a_memorized_image(workdir, monkeypatch):
  """The neighbor of a memorized sample is the training image itself."""
  run = gan_jax.load(workdir)
  data = digits(DataSpec('', 28, 1)).fetch(np.array([17, 4711]))['images']
  monkeypatch.setattr(run, 'sample', lambda n, seed: data[:n])
  picture = np.asarray(run.nearest(2, k=3))
  scale = picture.shape[0] // (2 * 28)
  small = picture[::scale, ::scale].reshape(2, 28, 4, 28).swapaxes(1, 2)
  np.testing.assert_array_equal(small[:, 0], data[..., 0])
  np.testing.assert_array_equal(small[:, 1], data[..., 0])
  assert (small[:, 2] != data[..., 0]).any()


def test_quantize_equals_to_uint8():
  values = np.float32([-9, -1, -0.999, 0, 0.5, 1, 9, np.nan, 3 / 255 - 1])
  on_device = quantize(jax.numpy.asarray(values))
  np.testing.assert_array_equal(on_device, to_uint8(values))


def test_evaluation_uses_all_devices():
  """With two devices, every example is generated once, in its position."""
  config = evaluated_config(num_samples=7)  # which two do not divide
  source = digits(DataSpec('', 28, 1))
  evaluator = Evaluator(config.evaluation, source, {})
  assert jax.device_count() == 2

  def sample(gen_vars, keys, phase):
    value = jax.vmap(jax.random.uniform)(keys)[:, None, None, None]
    return jax.numpy.broadcast_to(value, (len(keys), 28, 28, 1))

  game = games.make(config)._replace(
    sample_inputs=lambda keys, batch, phase: keys,
    outputs={'images': Output(sample)},
  )
  collected = []
  collect = metric_inputs.collect

  def record(batches, needs, count, limit):
    found = collect(batches, needs, count, limit)
    collected.append(found)
    return found

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('gan_jax.metrics.evaluator.collect', record)
    evaluator.make_evaluate_fn(game)({}, make_schedule(config).phase(0))
  fake = collected[0]
  from gan_jax.keys import Purpose, example_keys

  keys = example_keys(jax.random.key(0), Purpose.EVALUATE, jax.numpy.arange(7))
  expected = to_uint8(jax.vmap(jax.random.uniform)(keys))
  assert fake.count == fake.moments.count == 7
  np.testing.assert_array_equal(fake.images[:, 0, 0, 0], expected)


def test_digit_classifier_recognizes_test_digits(shared):
  """Its accuracy on genuine test digits is 98%."""
  from gan_jax.data.mnist import parse_idx, unpack

  of = lambda name: next((shared / 'mnist').glob(f't10k-{name}*'))
  images, labels = (
    parse_idx(unpack(of(name)), of(name)) for name in ('images', 'labels')
  )
  weights, _ = classifier.load()
  extract = jax.jit(classifier.extract)
  outputs = extract(weights, images[:2000, ..., None])
  assert (outputs['probabilities'].argmax(1) == labels[:2000]).mean() > 0.96
  larger = np.kron(images[:50], np.ones((1, 2, 2), np.uint8))[..., None]
  larger = jax.numpy.asarray(np.repeat(larger, 3, -1))
  again = extract(weights, larger)['probabilities'].argmax(1)
  assert (again == outputs['probabilities'][:50].argmax(1)).mean() > 0.9


def test_cifar10_classifier_recognizes_test_images(shared):
  """Its accuracy on genuine test images is 84%."""
  with tarfile.open(shared / 'cifar10_jpg.tar.xz') as archive:
    members = [m for m in archive if 'test/' in m.name and m.isfile()]
    members = members[::50]
    images = [Image.open(archive.extractfile(m)) for m in members]
    images = np.stack([np.asarray(image) for image in images])
  names = [Path(member.name).parent.name for member in members]
  labels = np.searchsorted(sorted(set(names)), names)
  weights, _ = cifar10.load()
  outputs = jax.jit(cifar10.extract)(weights, images)
  assert outputs['features'].shape == (200, 128)
  assert (outputs['probabilities'].argmax(1) == labels).mean() > 0.8


@pytest.mark.slow
def test_training_reproduces_the_digit_classifier():
  """A newly trained classifier agrees with the stored one almost always."""
  images = digits(DataSpec('', 28, 1)).fetch(np.arange(5000))['images']
  extract = jax.jit(classifier.extract)
  labels = [
    extract(weights, images)['probabilities'].argmax(1)
    for weights in (classifier.load()[0], classifier.train())
  ]
  assert (labels[0] == labels[1]).mean() > 0.99


def test_truncation_by_hand():
  """Quantiles: 0.5 stays 0, and +-infinity become +-t."""
  from gan_jax.games.latents import LATENTS

  z = jax.numpy.array([[0.0, 20.0, -20.0, 1.0]])
  got = LATENTS['gaussian'].truncate(z, 0.7)
  assert got[0, :3] == pytest.approx([0, 0.7, -0.7], abs=1e-6)
  from scipy.stats import norm

  low = norm.cdf(-0.7)
  expected = norm.ppf(low + norm.cdf(1) * (norm.cdf(0.7) - low))
  assert got[0, 3] == pytest.approx(expected, rel=1e-5)


def test_damaged_scores_raise(tmp_path):
  (tmp_path / 'scores.jsonl').write_text('{"name": 3\n')
  with pytest.raises(UserError, match='is damaged'):
    scores.read(tmp_path)


def test_recorded_lines_have_protocols(workdir):
  for line in (workdir / 'scores.jsonl').read_text().splitlines():
    assert json.loads(line)['protocol']['metric']['version']
