"""Tests of toys: their distributions, metrics and plots."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from PIL import Image
from runs import get_config, metrics
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr, wasserstein_distance

import gan_jax
from gan_jax import data, games
from gan_jax.data.on_device import read
from gan_jax.data.toys import TOYS, drawing, named_toy
from gan_jax.errors import UserError
from gan_jax.keys import Purpose, example_keys
from gan_jax.metrics.points import divergence, modes, wasserstein
from gan_jax.plots.toy_plot import (
  PlotData,
  _plot_2d,
  arrows,
  disc_grid,
  make_plot_data,
  plot,
)
from gan_jax.training.loop import train
from gan_jax.training.schedule import make_schedule


def points_of(toy, count=20_000):
  keys = jax.random.split(jax.random.key(3), count)
  return np.asarray(jax.vmap(toy.draw)(keys), np.float64)


# Mean and standard deviation of each coordinate, by the definitions.
ROLL = 1.5 * np.pi * (1 + 2 * (np.arange(200_000) + 0.5) / 200_000)
ROLL = ROLL * np.stack([np.cos(ROLL), np.sin(ROLL)]) / 10
MOMENTS = {
  'gaussian': ([1.0], [0.5]),
  'two_gaussians': ([0.0], [np.hypot(1.5, 0.3)]),
  'uniform': ([0.0], [1 / np.sqrt(3)]),
  'ring': ([0.0, 0.0], [np.hypot(np.sqrt(2), 0.02)] * 2),
  'grid': ([0.0, 0.0], [np.hypot(np.sqrt(8), 0.05)] * 2),
  'line': ([0.0, 0.0], [1 / np.sqrt(3), 1 / np.sqrt(12)]),
  # x = s (cos a - 1/2), y = s (sin a - 1/4), of a half circle and a sign.
  'moons': (
    [0.0, 0.0],
    [np.sqrt(0.75 + 0.05**2), np.sqrt(0.5625 - 1 / np.pi + 0.05**2)],
  ),
  'swiss_roll': (ROLL.mean(1), np.hypot(ROLL.std(1), 0.02)),
}


@pytest.mark.parametrize('name', sorted(TOYS))
def test_moments_and_modes_of_toys(name):
  toy = TOYS[name]()
  points = points_of(toy)
  mean, std = MOMENTS[name]
  assert points.shape[1] == toy.dim == len(mean)
  np.testing.assert_allclose(points.mean(0), mean, atol=0.05)
  np.testing.assert_allclose(points.std(0), std, rtol=0.03)
  assert (np.abs(points) < toy.limit).mean() > 0.999
  if len(toy.modes):
    # All modes are equally likely. Of genuine points, 1 - e^-4.5 lie within 3
    # standard deviations in 2-D, and 99.73% in 1-D.
    result = modes(points, toy.modes, toy.std)
    assert result.found == len(toy.modes)
    within = 1 - np.exp(-4.5) if toy.dim == 2 else 0.9973
    assert result.high_quality == pytest.approx(within, abs=0.003)
    nearest_mode = np.abs(points[:, None] - toy.modes).sum(-1).argmin(1)
    shares = np.bincount(nearest_mode) / len(points)
    np.testing.assert_allclose(shares, 1 / len(toy.modes), rtol=0.12)


def test_density_of_a_drawing_is_its_ink(tmp_path):
  """Black on the left, half as dark at the upper right, else white."""
  pixels = np.full((40, 80), 255, np.uint8)
  pixels[:, :40] = 0
  pixels[:20, 40:] = 128  # (127 of 255 of ink)
  Image.fromarray(pixels).save(tmp_path / 'ink.png')
  points = points_of(named_toy(f'drawing:{tmp_path / "ink.png"}'))
  assert np.abs(points[:, 0]).max() <= 1
  assert np.abs(points[:, 1]).max() <= 0.5  # it is half as high as wide
  left, above = points[:, 0] < 0, points[:, 1] > 0
  total = 255 * 1600 + 127 * 800
  assert left.mean() == pytest.approx(255 * 1600 / total, abs=0.01)
  assert (~left & above).mean() == pytest.approx(127 * 800 / total, abs=0.01)
  assert not (~left & ~above).any()


def test_drawing_is_searched_in_the_current_folder_and_the_project(
  tmp_path, monkeypatch
):
  """The file in the current folder comes before that of the project."""
  monkeypatch.chdir(tmp_path)
  name = 'experiments/drawing.png'
  assert len(points_of(drawing(name)))
  Path('experiments').mkdir()
  Image.new('L', (40, 80)).save(name)  # black: twice as high as wide
  points = points_of(drawing(name))
  assert np.abs(points[:, 0]).max() <= 0.5 < np.abs(points[:, 1]).max()
  with pytest.raises(UserError) as raised:
    drawing('nowhere.png')
  for folder in (tmp_path, ROOT):
    assert str(folder / 'nowhere.png') in str(raised.value)


def test_modes_by_hand():
  centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
  fake = np.array([[0.0, 2.9], [0.1, 0.0], [10.0, 3.1], [5.0, 5.0]])
  assert modes(fake, centres, 1.0) == (1, 0.5)
  assert modes(np.array([[10.0, 2.9]]), centres, 1.0) == (1, 1.0)


def test_divergences_by_hand():
  """In 1-D, with 100 cells from -1 to 1: p in one cell, q in two of them."""
  p = np.full((8, 1), -0.99)
  q = np.array([[-0.99]] * 2 + [[0.99]] * 6)
  found = divergence(p, q, 1.0)
  # JS of (1, 0) and (1/4, 3/4): by the definition.
  js = (np.log(1 / 0.625) + 0.25 * np.log(0.25 / 0.625)) / 2
  js += 0.75 * np.log(0.75 / 0.375) / 2
  assert found.jensen_shannon == pytest.approx(js, rel=1e-12)
  # KL(q || p), with 1% of both distributed over the 100 cells.
  few, some, most, all_of_it = 1e-4, 0.2476, 0.7426, 0.9901
  kl = some * np.log(some / all_of_it) + most * np.log(most / few)
  assert found.kl == pytest.approx(kl, rel=1e-12)
  # For any numbers of points.
  assert divergence(np.tile(p, (9, 1)), q, 1.0).kl == pytest.approx(kl)
  assert np.isnan(divergence(p, q * np.nan, 1.0)).all()
  assert divergence(p, p, 1.0) == (0.0, 0.0)
  # Points outside are counted in the outermost cells.
  assert divergence(p - 7, p, 1.0) == (0.0, 0.0)


def test_wasserstein_distance_is_exact():
  """Equals SciPy's distance in 1-D, and the best assignment in 2-D."""
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(700, 1)), rng.normal(1.0, 2.0, (300, 1))
  expected = wasserstein_distance(a[:, 0], b[:, 0])
  assert wasserstein(a, b) == pytest.approx(expected, rel=1e-6)
  a, b = rng.normal(size=(2, 200, 2))
  costs = np.linalg.norm(a[:, None] - b[None], axis=-1)
  best = costs[linear_sum_assignment(costs)].mean()
  assert wasserstein(a, b) == pytest.approx(best, rel=1e-6)
  # Only the first thousand points count.
  a, b = np.zeros((1500, 2)), np.ones((1500, 2))
  b[1000:] = 100.0
  assert wasserstein(a, b) == pytest.approx(np.sqrt(2))


def test_reference_points_and_latents_are_independent():
  """Points do not correlate with latents of any purpose."""
  source = data.make(get_config('toy:line'))
  along = source.fetch(np.arange(2000))['images'][:, 0, 0, 0]
  game = games.make(get_config('toy:line'))
  phase = make_schedule(get_config('toy:line')).phase(0)
  for purpose in (Purpose.EVALUATE, Purpose.SAMPLE, Purpose.INPUTS):
    keys = example_keys(jax.random.key(0), purpose, jnp.arange(2000))
    z = np.asarray(game.sample_inputs(keys, {}, phase)['z'])
    for coordinate in z.T:
      assert abs(spearmanr(along, coordinate)[0]) < 0.1


def test_large_drawing_gives_all_reference_points(tmp_path):
  """The points are drawn at once from an image of 600x600 pixels."""
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (600, 600), np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'photo.png')
  config = get_config('toy:drawing')
  config.data.source = f'drawing:{tmp_path / "photo.png"}'
  source = data.make(config)
  points = source.fetch(np.arange(source.size))['images'][:, 0, 0]
  assert points.shape == (source.size, 2)
  np.testing.assert_allclose(points.mean(0), 0, atol=0.03)
  np.testing.assert_allclose(points.std(0), 1 / np.sqrt(3), rtol=0.03)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """Trains the `:tiny` ring, with two evaluations."""
  workdir = tmp_path_factory.mktemp('ring')
  config = get_config('toy:ring', 'tiny')
  config.evaluation.every_images = 192
  config.evaluation.num_samples = 100
  train(config, workdir)
  return config, workdir


def test_run_of_points_has_metrics_film_and_samples(trained):
  _, workdir = trained
  last = metrics(workdir)[-1]
  for name in ('high_quality', 'modes_found', 'jensen_shannon', 'wasserstein'):
    assert np.isfinite(last[f'eval/{name}'])
  frames = sorted((workdir / 'samples').iterdir())
  with Image.open(workdir / 'training.gif') as film:
    assert film.n_frames == len(frames) == 3
  run = gan_jax.load(workdir)
  points = run.sample(300, seed=1)
  assert points.shape == (300, 2)
  inputs = run.inputs(300, seed=1)
  outputs = run.generator(run.params, inputs)
  np.testing.assert_allclose(points, outputs[:, 0, 0], atol=1e-6)
  assert run.interpolate(2, 5).shape == (2, 5, 2)
  assert run.show().width > 800
  scored = gan_jax.evaluate(run, num_samples=100)
  assert scored['wasserstein'].value == pytest.approx(
    last['eval/wasserstein'], rel=1e-5
  )
  with pytest.raises(UserError, match='needs images'):
    run.nearest()


def test_every_iteration_has_new_points(trained):
  """Points are a function of seed, iteration and example, on any device."""
  config, _ = trained
  source = data.make(config)
  draw = lambda step, examples: np.asarray(
    read(
      {}, {'example': jnp.asarray(examples)}, jax.random.key(0),
      jnp.int32(step), flip=False, draw=source.draw,
    )['images']
  )  # fmt: skip
  one, other = draw(0, [[0, 1], [2, 3]]), draw(1, [[0, 1], [2, 3]])
  assert one.shape == (2, 2, 1, 1, 2)
  assert (
    len(np.unique(np.concatenate([one, other]).reshape(-1, 2), axis=0)) == 8
  )
  np.testing.assert_array_equal(draw(0, [3, 1]), one[[1, 0], [1, 1]])
  known = source.fetch(np.arange(4))['images']
  assert not np.isin(known, one).any()


@pytest.mark.slow
@pytest.mark.parametrize('stddev_group', [0, 4])
def test_jit_and_pmap_draw_the_same_points(stddev_group, tmp_path):
  """Also with minibatch stddev in D."""
  config = get_config('toy:ring', 'tiny')
  config.model.disc.stddev_group = stddev_group
  runs = []
  for parallel in ('jit', 'pmap'):
    config.parallel = parallel
    train(config, tmp_path / parallel)
    runs.append(metrics(tmp_path / parallel))
  for one, other in zip(*runs, strict=True):
    assert one == pytest.approx(other, rel=2e-4, abs=1e-4)


def test_plot_data_equals_both_players_outputs(trained):
  config, workdir = trained
  run, toy = gan_jax.load(workdir), named_toy('toy:ring')
  plot_data = make_plot_data(games.make(config), config, toy)
  plotted = plot_data(run._variables, run._phase)
  expected = 1 / (
    1 + np.exp(-run.discriminator(disc_grid(toy).astype(np.float32)))
  )
  np.testing.assert_allclose(
    plotted.disc_values, expected, rtol=1e-4, atol=1e-5
  )
  # Gradients, by central differences.
  x = np.asarray(plotted.fake[: len(plotted.gradients)], np.float32)
  for axis in range(2):
    step = np.zeros(2, np.float32)
    step[axis] = 1e-3
    rise = run.discriminator(x + step) - run.discriminator(x - step)
    is_close = np.isclose(
      rise / 2e-3, plotted.gradients[:, axis], rtol=0.05, atol=5e-3
    )
    assert is_close.mean() > 0.9  # (elsewhere D has a kink within the step)
  assert plotted.mapped_latents.shape == (42, 101, 2)
  assert plot(jax.tree.map(np.asarray, plotted), toy).shape[2] == 3


def test_arrows_have_the_same_scale_in_all_plots():
  """A tenth of the limit for a gradient of norm 1, at most a quarter."""
  gradients = np.array([[0.6, 0.8], [0.0, -2.0], [30.0, 40.0], [0.0, 0.0]])
  expected = np.array([[0.12, 0.16], [0.0, -0.4], [0.3, 0.4], [0.0, 0.0]])
  np.testing.assert_allclose(arrows(gradients, 2.0), expected, atol=1e-12)
  # The plot draws them in the units of the axes, for any number of arrows.
  points = np.zeros((9, 2))
  for indices in ([0, 1], [0, 2, 3]):
    plotted = PlotData(
      points, points, np.zeros(6400), False, gradients[indices], None
    )
    figure = Figure()
    _plot_2d(figure, plotted, named_toy('toy:moons'))
    (quiver,) = (
      part for part in figure.axes[0].collections if isinstance(part, Quiver)
    )
    assert (quiver.angles, quiver.scale_units, quiver.scale) == ('xy', 'xy', 1)
    first = np.array([quiver.U[0], quiver.V[0]])
    limit = named_toy('toy:moons').limit
    np.testing.assert_allclose(first, [0.06 * limit, 0.08 * limit])


@pytest.mark.parametrize(
  ('keys', 'message'),
  [
    ({'data.source': 'toy:rings'}, "unknown .* 'rings'; did you mean 'ring'"),
    ({'data.channels': 1}, 'config.data.channels=2, the number of coord'),
    ({'data.channels': 3}, 'number of coordinates, 1 or 2, not 3'),
    ({'data.flip': True}, 'does not support mirroring'),
    (
      {'data.source': 'drawing:nowhere.png'},
      'nowhere.png: there is no such fil',
    ),
    ({'evaluation.metrics': ('fid',)}, 'fid is not a metric of these points'),
    (
      {'data.source': 'toy:moons', 'evaluation.metrics': ('modes',)},
      'modes is not a metric of these points',
    ),
  ],
)
def test_invalid_settings_raise(keys, message, tmp_path):
  config = get_config('toy:ring', 'tiny')
  config.evaluation.every_images = 192
  config.update_from_flattened_dict(keys)
  with pytest.raises(UserError, match=message):
    train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_point_metrics_of_images_raise(tmp_path):
  config = get_config('vanilla_mnist', 'tiny')
  config.evaluation.every_images = 192
  config.evaluation.metrics = ('modes',)
  with pytest.raises(UserError, match='modes is a metric of points'):
    train(config, tmp_path / 'run')
