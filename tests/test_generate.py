"""Tests of samples and films of a finished run, in Python and by launch.py."""

import json
import stat

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import gan_jax
import launch
from experiments import cgan_digits, vanilla_mnist
from gan_jax.errors import UserError
from gan_jax.modes import generate as mode
from gan_jax.plots.grid import show
from gan_jax.runs import film as films
from gan_jax.runs import generate
from gan_jax.training import loop


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('vanilla')
  loop.train(vanilla_mnist.get_config('tiny'), workdir)
  return gan_jax.load(workdir)


@pytest.fixture(scope='module')
def conditional(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('cgan')
  loop.train(cgan_digits.get_config('tiny'), workdir)
  return gan_jax.load(workdir)


def open_png(path):
  with Image.open(path) as image:
    return np.asarray(image)


def read(folder):
  return {path.name: open_png(path) for path in folder}


def assert_same(saved, expected):
  # A batch of another size may round differently.
  assert np.abs(saved.astype(int) - expected).max() <= 1


def test_save_samples_writes_samples_of_the_run(run, tmp_path):
  folder = run.save_samples(tmp_path / 'out', 3, seeds=(0, 5))
  images = read(folder.glob('*.png'))
  assert sorted(images) == [
    '0_000000.png', '0_000001.png', '0_000002.png',
    '5_000000.png', '5_000001.png', '5_000002.png',
  ]  # fmt: skip
  assert_same(images['5_000002.png'], run.sample(3, seed=5)[2, ..., 0])


def test_save_samples_truncates_as_sample_does(run, tmp_path):
  folder = run.save_samples(tmp_path / 'out', 2, truncation=0.2)
  images = read(folder.glob('*.png'))
  assert_same(images['0_000001.png'], run.sample(2, truncation=0.2)[1, ..., 0])


def test_save_samples_generates_only_missing_parts(run, tmp_path, monkeypatch):
  monkeypatch.setattr(generate, 'CHUNK', 2)
  folder = run.save_samples(tmp_path / 'out', 5)
  times = {p.name: p.stat().st_mtime_ns for p in folder.glob('*.png')}
  (folder / '0_000003.png').unlink()
  first_indices = []
  inputs = run.inputs
  monkeypatch.setattr(
    run,
    'inputs',
    lambda *a, **k: first_indices.append(k['first']) or inputs(*a, **k),
  )
  run.save_samples(tmp_path / 'out', 7)  # and two more
  assert first_indices == [0, 2, 4, 6]  # the first is a check of the arguments
  after = {p.name: p.stat().st_mtime_ns for p in folder.glob('*.png')}
  assert len(after) == 7
  del times['0_000003.png']
  assert times.items() <= after.items()


def test_npz_resumes_after_a_kill(run, tmp_path, monkeypatch):
  monkeypatch.setattr(generate, 'CHUNK', 2)
  file, generate_images = tmp_path / 'out.npz', run.generate
  calls = []

  def interrupt(inputs, output=None):
    calls.append(1)
    if len(calls) == 4:
      raise KeyboardInterrupt
    return generate_images(inputs, output)

  monkeypatch.setattr(run, 'generate', interrupt)
  with pytest.raises(KeyboardInterrupt):
    run.save_samples(file, 4, seeds=(1, 2))
  assert not file.exists()
  run.save_samples(file, 4, seeds=(1, 2))
  assert len(calls) == 4 + 1 + 2  # the check, and the two missing parts
  with np.load(file) as saved:
    saved = dict(saved)
  assert saved['seeds'].tolist() == [1] * 4 + [2] * 4
  assert_same(saved['images'][4:], run.sample(4, seed=2))
  assert [path.name for path in tmp_path.iterdir()] == ['out.npz']


def test_save_samples_puts_classes_into_folders(conditional, tmp_path):
  folder = conditional.save_samples(tmp_path / 'out', 5, labels=(3, 7))
  names = {p.relative_to(folder).as_posix() for p in folder.rglob('*.png')}
  assert names == {
    '003/0_000000.png', '007/0_000001.png', '003/0_000002.png',
    '007/0_000003.png', '003/0_000004.png',
  }  # fmt: skip
  file = conditional.save_samples(tmp_path / 'out.npz', 5, labels=(3, 7))
  with np.load(file) as saved:
    saved = dict(saved)
  assert saved['labels'].tolist() == [3, 7, 3, 7, 3]
  assert_same(saved['images'], conditional.sample(5, labels=[3, 7, 3, 7, 3]))


def test_points_of_a_toy_are_saved_as_npz(run, tmp_path, monkeypatch):
  points = lambda inputs: np.asarray(inputs['z'][:, :2])
  monkeypatch.setattr(run, 'generate', points)
  with np.load(run.save_samples(tmp_path / 'points.npz', 10)) as saved:
    np.testing.assert_allclose(saved['points'], points(run.inputs(10)))
  with pytest.raises(UserError, match=r'are points: name a FILE\.npz'):
    run.save_samples(tmp_path / 'out', 10)
  with pytest.raises(UserError, match='generates points'):
    run.film(tmp_path / 'out.gif', seconds=1)


def test_save_samples_overwrites_only_on_request(run, tmp_path):
  out = run.save_samples(tmp_path / 'out', 2)
  with pytest.raises(UserError, match=r'other samples \(with another seeds\)'):
    run.save_samples(out, 2, seeds=1)
  run.save_samples(out, 1, seeds=1, overwrite=True)
  assert [path.name for path in out.glob('*.png')] == ['1_000000.png']
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'thesis.txt').touch()
  with pytest.raises(UserError, match='holds other files'):
    run.save_samples(tmp_path / 'mine', 2, overwrite=True)
  assert (tmp_path / 'mine' / 'thesis.txt').exists()
  (tmp_path / 'a.npz').touch()
  with pytest.raises(UserError, match='exists: name another'):
    run.save_samples(tmp_path / 'a.npz', 2)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'n': 0}, 'n=0 must be 1 or more'),
    ({'seeds': (1, 1)}, 'must be different numbers'),
    ({'seeds': -1}, 'must be different numbers'),
    ({'seeds': ()}, 'must be different numbers'),
    ({'labels': 3}, 'unconditional'),
    ({'truncation': -1.0}, 'must be a positive number'),
  ],
)
def test_wrong_arguments_write_nothing(run, tmp_path, arguments, message):
  with pytest.raises(UserError, match=message):
    run.save_samples(tmp_path / 'out', **{'n': 2, **arguments})
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('suffix', ['gif', 'webp'])
def test_film_starts_at_a_sample_and_loops(run, tmp_path, suffix):
  file = run.film(tmp_path / f'a.{suffix}', n=4, seconds=1, fps=8, keyframes=2)
  first_frame = np.asarray(show(run.sample(4)))
  with Image.open(file) as film:
    assert (film.n_frames, film.info.get('loop')) == (8, 0)
    film.seek(0)
    error = np.abs(np.asarray(film.convert('L')).astype(int) - first_frame)
  assert error.mean() < 4  # GIF has few colours, WebP is lossy


def test_film_interpolates_from_sample_to_sample_and_back(run):
  frames = list(films._frames(run, 2, 0, None, None, 1, 4, 8))
  assert len(frames) == 8
  for index in range(4):
    assert_same(
      np.asarray(frames[2 * index]),
      np.asarray(show(run.sample(8)[2 * index :][:2])),
    )
  a, b = (_row(run, i) for i in (3, 0))
  wrapped = run._game.interpolate(a, b, jnp.full(2, 0.5))
  expected = show(run.generate(wrapped))
  assert_same(np.asarray(frames[7]), np.asarray(expected))


def _row(run, i):
  inputs = run.inputs(8)
  return {name: x[2 * i : 2 * i + 2] for name, x in inputs.items()}


def test_mp4_is_written_by_ffmpeg(run, tmp_path, monkeypatch):
  """A fake ffmpeg gets the frames, and its error message is passed on."""
  fake = tmp_path / 'bin' / 'ffmpeg'
  fake.parent.mkdir()
  fake.write_text('#!/bin/sh\nfor last; do :; done\ncat > "$last"\n')
  fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
  monkeypatch.setenv('PATH', f'{fake.parent}:/usr/bin:/bin')
  file = run.film(tmp_path / 'a.mp4', n=1, seconds=1, fps=4, keyframes=2)
  side = show(run.sample(1)).width
  assert file.stat().st_size == 4 * side * side * 3
  with pytest.raises(UserError, match='exists'):
    run.film(file)
  fake.write_text('#!/bin/sh\necho no such codec >&2\nexit 1\n')
  with pytest.raises(UserError, match=r'could not write .*no such codec'):
    run.film(file, n=1, seconds=1, overwrite=True)
  monkeypatch.setenv('PATH', '')
  with pytest.raises(UserError, match='needs ffmpeg on the PATH'):
    run.film(tmp_path / 'b.mp4')
  assert films.default_file('a').name == 'film.webp'


@pytest.mark.parametrize(
  ('output', 'arguments', 'message'),
  [
    ('a.avi', {}, 'a film is one of FILE.gif, FILE.mp4, FILE.webp'),
    ('a.gif', {'n': 0}, 'n=0 must be 1 or more'),
    ('a.gif', {'keyframes': 1}, 'keyframes of a film must be at least 2'),
    ('a.gif', {'seconds': -1}, 'seconds of a film must be a positive'),
    ('a.gif', {'labels': 1}, 'unconditional'),
  ],
)
def test_wrong_film_arguments_raise(run, tmp_path, output, arguments, message):
  with pytest.raises(UserError, match=message):
    run.film(tmp_path / output, **arguments)


def test_modes_pass_their_flags(conditional, tmp_path):
  mode.generate(
    conditional.workdir,
    samples=2,
    seeds=['4'],
    labels=['3'],
    truncation=0.5,
    output=str(tmp_path / 'out'),
    step=str(conditional.step),
  )
  described = json.loads((tmp_path / 'out' / 'generation.json').read_text())
  assert described['seeds'] == [4]
  assert described['labels'] == [3]
  assert described['truncation'] == 0.5
  assert len(list((tmp_path / 'out' / '003').iterdir())) == 2
  mode.film(
    conditional.workdir,
    samples=4,
    labels=['1', '2'],
    seconds=1.0,
    output=str(tmp_path / 'a.gif'),
  )
  with Image.open(tmp_path / 'a.gif') as film:
    assert film.n_frames == 24


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'seeds': ['x']}, '--seeds=x must be whole numbers'),
    ({'labels': ['1.5']}, '--labels=1.5 must be whole numbers'),
    ({'step': 'best'}, '--step=best must be a number'),
    ({'step': '7'}, 'no checkpoint at step 7'),
  ],
)
def test_wrong_flags_raise(conditional, arguments, message):
  with pytest.raises(UserError, match=message):
    mode.generate(conditional.workdir, **arguments)


def test_modes_on_a_run_take_no_config(tmp_path):
  assert set(launch.RUN_MODES) == {'apply', 'film', 'generate'}
  for name in launch.RUN_MODES.values():
    assert callable(launch._import(name))
