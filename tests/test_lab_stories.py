"""What the stories of the lab say is what their games do."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

pytest.importorskip('starlette', reason="needs pip install -e '.[lab]'")

from runs import get_config

from gan_jax.lab.advice import advise
from gan_jax.lab.measures import measure
from gan_jax.lab.presets import PRESETS
from gan_jax.lab.program import CHUNK, make_program
from gan_jax.lab.settings import IN_1D, check, make_config
from gan_jax.lab.trained_game import TrainedGame

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def base() -> ConfigDict:
  return get_config('toy', 'ring')


def begin(base: ConfigDict, settings: dict) -> TrainedGame:
  settings = check(settings)
  source = settings['data.source']
  dim = 1 if source.partition(':')[2] in IN_1D else 2
  config = make_config(base, settings, source, dim)
  game = TrainedGame(settings)
  game.use(settings, make_program(config), config)
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


def both(base, name):
  preset = PRESETS[name]
  return (
    begin(base, preset.settings),
    begin(base, {**preset.settings, **preset.compare}),
  )


def error_of_d(view) -> float:
  """The mean |D - D*| where there are points."""
  seen = view['p'] + view['q'] > 0.05
  return float(np.abs(view['scores'] - view['optimal'])[seen].mean())


def test_two_players(base):
  found = train(begin(base, PRESETS['two_players'].settings), 3000)
  assert found.modes == 8
  assert abs(found.disc_loss - math.log(4)) < 0.05


def test_vanishing(base):
  minimax, other = (train(game, 1000) for game in both(base, 'vanishing'))
  assert minimax.fake_accuracy > 0.85
  assert np.median(minimax.arrows) < 0.05
  assert np.median(other.arrows) > 1
  assert other.modes > minimax.modes


def test_collapse_and_its_cures(base):
  game = begin(base, PRESETS['collapse'].settings)
  for step in (1000, 2000, 3000):
    collapsed = train(game, step)
    assert collapsed.modes <= 2
    assert any('Mode collapse' in text for text in collapsed.advice)
  for name in ('cure_r1', 'cure_pack', 'cure_stddev'):
    assert PRESETS[name].settings == PRESETS['collapse'].settings
    _, cure = both(base, name)
    cured = train(cure, 3000)
    assert cured.modes >= 4, name
    assert cured.wasserstein < collapsed.wasserstein / 2, name
    assert not any('Mode collapse' in text for text in cured.advice), name


def test_wasserstein(base):
  minimax, critic = both(base, 'wasserstein')
  assert np.median(train(minimax, 1000).arrows) < 0.05
  for step in (100, 300, 1000):
    assert np.percentile(train(critic, step).arrows, 10) > 0.3
  minimax, critic = train(minimax, 2000), train(critic, 2000)
  assert critic.modes == 8
  assert critic.wasserstein < minimax.wasserstein / 2


def test_one_gaussian(base):
  game = begin(base, PRESETS['gaussian'].settings)
  first, last = train(game, 0), train(game, 1000)
  assert last.wasserstein < first.wasserstein / 4
  assert error_of_d(last.view) < error_of_d(first.view) / 2
  seen = last.view['p'] + last.view['q'] > 0.05
  assert np.abs(last.view['optimal'] - 0.5)[seen].mean() < 0.15


def test_two_gaussians(base):
  found = train(begin(base, PRESETS['two_gaussians'].settings), 1000)
  assert found.modes == 2
  between = np.abs(found.view['fake'][:, 0]) < 0.5
  assert 0 < between.mean() < 0.25


def test_frozen(base):
  game = begin(base, PRESETS['frozen'].settings)
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


def test_grid(base):
  game = begin(base, PRESETS['grid'].settings)
  early, late = train(game, 300), train(game, 3000)
  assert late.modes > early.modes + 5


def test_every_story_has_a_test():
  told = {'two_players', 'vanishing', 'collapse', 'cure_r1', 'cure_pack'}
  told |= {'cure_stddev', 'wasserstein', 'gaussian', 'two_gaussians'}
  assert told | {'frozen', 'grid'} == set(PRESETS)
