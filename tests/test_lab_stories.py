"""Tests that the games of the lab's stories do what the stories say."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('starlette', reason="needs pip install -e '.[lab]'")

from runs import get_config

from gan_jax.lab.advice import advise
from gan_jax.lab.engine import Engine
from gan_jax.lab.measures import measure
from gan_jax.lab.presets import PRESETS
from gan_jax.lab.program import CHUNK
from gan_jax.lab.settings import Settings, check
from gan_jax.lab.trained_game import TrainedGame

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def engine(tmp_path_factory):
  base = get_config('toy', 'ring')
  engine = Engine(base, tmp_path_factory.mktemp('lab'), ahead=False)
  yield engine
  engine.close()


def begin(engine: Engine, settings: Settings) -> TrainedGame:
  settings = check(settings)
  game = TrainedGame(settings)
  game.use(settings, *engine.program(settings).result())
  game.restart()
  return game


def train(game: TrainedGame, to_step: int, only: str = 'both'):
  """Trains to an iteration, and measures the game there."""
  while game.step < to_step:
    game.train(min(CHUNK, to_step - game.step), only)
  view = game.look('view', game.state)
  scores = measure(game.program.real, view['fake'], game.program.toy)
  arrows = np.linalg.norm(view['forces'], axis=-1)
  row = game.history[-1] if game.history else {'step': 0}
  return SimpleNamespace(
    **{**row, **scores}, arrows=arrows, view=view,
    advice=[x.text for x in advise(
      game.settings, [{**row, **scores}] * 8, game.program.toy, only)],
  )  # fmt: skip


def both(engine, name):
  preset = PRESETS[name]
  return (
    begin(engine, preset.settings),
    begin(engine, {**preset.settings, **preset.compare}),
  )


def error_of_d(view) -> float:
  """Returns the mean |D - D*| where there are points."""
  has_points = view['p'] + view['q'] > 0.05
  return float(np.abs(view['scores'] - view['optimal'])[has_points].mean())


def test_two_players_reach_the_equilibrium(engine):
  found = train(begin(engine, PRESETS['two_players'].settings), 3000)
  assert found.modes == 8
  assert abs(found.disc_loss - math.log(4)) < 0.05


def test_minimax_gradients_vanish(engine):
  minimax, other = (train(game, 1000) for game in both(engine, 'vanishing'))
  assert minimax.fake_accuracy > 0.85
  assert np.median(minimax.arrows) < 0.05
  assert np.median(other.arrows) > 1
  assert other.modes > minimax.modes


def test_collapse_occurs_and_its_cures_help(engine):
  """Uses three seeds: a game may leave its collapse for a while, and the
  rounding of the compiler determines when.
  """
  seeds, steps = (0, 1, 2), (1000, 2000, 3000)
  has_warning = lambda found: any('Mode collapse' in x for x in found.advice)
  mean = lambda name, games: np.mean([getattr(x, name) for x in games])
  settings = PRESETS['collapse'].settings
  collapsed, last = [], []
  for seed in seeds:
    game = begin(engine, {**settings, 'seed': seed})
    measured = [train(game, step) for step in steps]
    collapsed += measured
    last.append(measured[-1])
  assert mean('modes', collapsed) <= 2
  assert all(has_warning(found) for found in collapsed if found.modes <= 2)
  for name in ('cure_r1', 'cure_pack', 'cure_stddev'):
    preset = PRESETS[name]
    assert preset.settings == settings
    cured = [
      train(begin(engine, {**settings, **preset.compare, 'seed': seed}), 3000)
      for seed in seeds
    ]
    assert mean('modes', cured) >= 4, name
    assert mean('wasserstein', cured) < mean('wasserstein', last) / 2, name
    assert not any(map(has_warning, cured)), name


def test_wasserstein_critic_keeps_gradients(engine):
  minimax, critic = both(engine, 'wasserstein')
  assert np.median(train(minimax, 1000).arrows) < 0.05
  for step in (100, 300, 1000):
    assert np.percentile(train(critic, step).arrows, 10) > 0.3
  minimax, critic = train(minimax, 2000), train(critic, 2000)
  assert critic.modes == 8
  assert critic.wasserstein < minimax.wasserstein / 2


def test_disc_of_one_gaussian_approaches_the_optimum(engine):
  game = begin(engine, PRESETS['gaussian'].settings)
  first, last = train(game, 0), train(game, 1000)
  assert last.wasserstein < first.wasserstein / 4
  assert error_of_d(last.view) < error_of_d(first.view) / 2
  has_points = last.view['p'] + last.view['q'] > 0.05
  assert np.abs(last.view['optimal'] - 0.5)[has_points].mean() < 0.15


def test_two_gaussians_are_both_covered(engine):
  found = train(begin(engine, PRESETS['two_gaussians'].settings), 1000)
  assert found.modes == 2
  between = np.abs(found.view['fake'][:, 0]) < 0.5
  assert 0 < between.mean() < 0.25


def test_frozen_player_stays_and_the_other_overfits(engine):
  game = begin(engine, PRESETS['frozen'].settings)
  first = train(game, 0)
  disc = train(game, 300, 'disc')
  np.testing.assert_array_equal(disc.view['fake'], first.view['fake'])
  assert error_of_d(disc.view) < 0.15 < error_of_d(first.view)
  assert disc.advice == []
  gen = train(game, 500, 'gen')
  np.testing.assert_array_equal(gen.view['scores'], disc.view['scores'])
  assert gen.wasserstein > 5 > disc.wasserstein
  assert gen.outside > 0.5
  assert any('Set Train to both' in text for text in gen.advice)


def test_grid_gains_modes_with_training(engine):
  game = begin(engine, PRESETS['grid'].settings)
  early, late = train(game, 300), train(game, 3000)
  assert late.modes > early.modes + 5


def test_every_story_has_a_test():
  tested = {'two_players', 'vanishing', 'collapse', 'cure_r1', 'cure_pack'}
  tested |= {'cure_stddev', 'wasserstein', 'gaussian', 'two_gaussians'}
  assert tested | {'frozen', 'grid'} == set(PRESETS)
