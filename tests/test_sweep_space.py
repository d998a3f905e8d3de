"""Tests of search spaces of sweeps, and of invalid descriptions."""

import importlib
import json
import shlex
import sys

import optuna
import pytest
from conftest import ROOT
from runs import config_path, get_config

from gan_jax import config as cfg
from gan_jax.errors import UserError
from gan_jax.sweep import plan as plans
from gan_jax.sweep import space as spaces
from gan_jax.training.schedule import make_schedule

GEN = 'optimizer.gen.learning_rate'
NESTED = {
  'batch_size': [16, 32],
  'shape': {
    'plain': {},
    'deep': {'model.gen.hidden': [(32,), (16, 16)], 'disc_steps': 2},
  },
  'seed': [0, 1, 2],
}


def suggested(space, **params):
  return spaces.suggest(optuna.trial.FixedTrial(params), space)


def test_grid_is_the_product():
  """2 sizes x (1 + 2 shapes) x 3 seeds, the last varies fastest; by hand."""
  points = spaces.grid(NESTED)
  assert len(points) == 2 * (1 + 2) * 3
  assert points[:4] == [
    {'batch_size': 16, 'shape': 'plain', 'seed': 0},
    {'batch_size': 16, 'shape': 'plain', 'seed': 1},
    {'batch_size': 16, 'shape': 'plain', 'seed': 2},
    {'batch_size': 16, 'shape': 'deep', 'deep:model.gen.hidden': '(32,)',
     'seed': 0},
  ]  # fmt: skip
  assert len({json.dumps(point) for point in points}) == len(points)
  assert not spaces.has_range(NESTED)


def test_suggest_returns_the_overrides_of_a_trial():
  """Tuples stay tuples; a chosen block sets only its own keys."""
  params = spaces.grid(NESTED)[-1]
  assert suggested(NESTED, **params) == {
    'batch_size': 32,
    'model.gen.hidden': (16, 16),
    'disc_steps': 2,
    'seed': 2,
  }
  assert suggested(NESTED, **spaces.grid(NESTED)[0]) == {
    'batch_size': 16,
    'seed': 0,
  }
  assert spaces.chosen_blocks(params, NESTED) == {'shape': 'deep'}
  assert spaces.titles(NESTED) == [
    'batch_size', 'shape', 'model.gen.hidden', 'disc_steps', 'seed',
  ]  # fmt: skip


def test_suggest_supports_integer_ranges_and_ranges_in_blocks():
  """Integer ends give integers; a key in two blocks is two parameters."""
  space = {
    'batch_size': {'low': 16, 'high': 64, 'log': True},
    'penalty': {
      'weak': {'game.r1': {'low': 0.1, 'high': 1.0}},
      'strong': {'game.r1': {'low': 1.0, 'high': 9.0}},
    },
  }
  assert spaces.has_range({'penalty': space['penalty']})
  study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
  for _ in range(20):
    trial = study.ask()
    found = spaces.suggest(trial, space)
    assert isinstance(found['batch_size'], int)
    strong = trial.params['penalty'] == 'strong'
    assert (found['game.r1'] >= 1.0) == strong
    assert 16 <= found['batch_size'] <= 64
  kinds = study.trials[0].distributions['batch_size']
  assert kinds == optuna.distributions.IntDistribution(16, 64, log=True)


def test_cover_contains_every_value():
  space = {**NESTED, GEN: {'low': 1e-4, 'high': 1e-2, 'log': True}}
  points = spaces.cover(space)
  assert len(points) == 3
  values = lambda key: {point[key] for point in points if key in point}
  assert values('batch_size') == {16, 32}
  assert values('model.gen.hidden') == {(32,), (16, 16)}
  assert values('seed') == {0, 1, 2}
  assert values(GEN) == {1e-4, 1e-2}
  assert any('disc_steps' not in point for point in points)


# Descriptions.

EXPERIMENT = """
from experiments import vanilla_mnist

def get_config(arg=''):
  return vanilla_mnist.get_config('tiny')

def sweep():
  return {sweeps}
"""


def make(
  folder,
  description,
  overrides=None,
  name=None,
  trials=None,
  remote_trials=False,
):
  """Makes the plan of a description, or of one of several."""
  several = description if name is None else {'one': description}
  file = folder / 'swept.py'
  file.write_text(EXPERIMENT.replace('{sweeps}', repr(several)))
  config = get_config('vanilla_mnist', 'tiny')
  for key, value in (overrides or {}).items():
    config = cfg.changed(config, key, value)
  typed = overrides or {}
  return plans.make(str(file), config, typed, name, trials, remote_trials)


RANKED = {'score': 'gen/loss', 'goal': 'min'}
RATES = {GEN: [1e-3, 1e-4]}
SEARCH = {GEN: {'low': 1e-4, 'high': 1e-2}}


@pytest.mark.parametrize(
  ('description', 'message'),
  [
    ({'space': {'optimizer.gen.learning_rat': [1.0]}, **RANKED},
     "did you mean 'optimizer.gen.learning_rate'?"),
    ({'space': {'x': {'a': {'sede': 1}}}, **RANKED}, "did you mean 'seed'?"),
    ({'space': {'optimizer.gen': [1]}, **RANKED}, 'optimizer.gen is a block'),
    ({'space': RATES, 'fixed': {'totl_images': 5}, **RANKED},
     "did you mean 'total_images'?"),
    ({'space': RATES, 'prunner': {}, **RANKED}, "did you mean 'pruner'?"),
    ({'space': {}, **RANKED}, 'varies nothing'),
    ({'space': {'seed': 3}, **RANKED}, "move 3 to 'fixed'"),
    ({'space': {'seed': [1, 1]}, **RANKED}, 'must list different values'),
    ({'space': {'seed': [1.5]}, **RANKED}, 'seed=1.5 must have the type of'),
    ({'space': {'seed': [True]}, **RANKED}, 'seed=True must have the type'),
    ({'space': {'seed': [None]}, **RANKED}, 'seed=None must have the type'),
    ({'space': {GEN: [0.1, 'a']}, **RANKED}, "learning_rate='a' must have the"),
    ({'space': {GEN: {'low': 1.0, 'high': 0.1}}, 'trials': 1, **RANKED},
     'A below B'),
    ({'space': {GEN: {'low': 0.0, 'high': 1.0, 'log': True}}, 'trials': 1,
      **RANKED}, 'on a log scale: set low above 0'),
    ({'space': {GEN: {'high': 1.0}}, **RANKED}, "range with 'low'"),
    ({'space': {GEN: [0.1], 'x': {'a': {GEN: 0.2}}}, **RANKED},
     f"sets {GEN} by '{GEN}' and 'x'"),
    ({'space': RATES, 'fixed': {GEN: 0.1}, **RANKED}, "by 'fixed' and"),
    ({'space': RATES, 'trials': 4, **RANKED}, 'of 2 trials: remove trials'),
    ({'space': SEARCH, **RANKED}, '--trials=None must be 1 or more'),
    ({'space': SEARCH, 'trials': 2, 'sampler': 'tpee', **RANKED},
     "did you mean 'tpe'?"),
    ({'space': RATES, 'pruner': {'name': 'medan'}, **RANKED},
     "did you mean 'median'?"),
    ({'space': RATES, 'pruner': {'name': 'median', 'warmup': 1}, **RANKED},
     "has no key 'warmup'; did you mean 'warmup_images'?"),
    ({'space': RATES, 'pruner': {'name': 'halving'}, **RANKED}, 'min_images'),
    ({'space': RATES, 'score': 'gen/loss'}, "must be 'min' or 'max'"),
    ({'space': RATES, 'score': 'ms_ssim'}, 'add evaluation.every_images'),
    ({'space': RATES}, 'eval/fid is never measured'),
    ({'space': {'game.loss.name': ['minmax']}, **RANKED},
     "'minmax'; did you mean 'minimax'?"),
    ({'space': {'batch_size': [16, 0]}, **RANKED}, 'batch_size=0 must be posi'),
  ],
)  # fmt: skip
def test_invalid_descriptions_raise(tmp_path, description, message):
  with pytest.raises(UserError) as raised:
    make(tmp_path, description, name='one')
  assert message in str(raised.value)
  assert '\n' not in str(raised.value)


def test_ambiguous_and_unknown_sweeps_raise(tmp_path):
  several = {'a': {'space': RATES, **RANKED}, 'b': {'space': SEARCH, **RANKED}}
  with pytest.raises(UserError, match='choose one by --sweep=a or b'):
    make(tmp_path, several)
  file = tmp_path / 'swept.py'
  with pytest.raises(UserError, match=r"unknown sweep of .* 'aa'; did you"):
    plans.make(str(file), get_config('vanilla_mnist', 'tiny'), {}, 'aa')
  with pytest.raises(UserError, match='declares no sweep: add a def sweep'):
    make(tmp_path, {})
  file.write_text(EXPERIMENT.replace('{sweeps}', '1 / 0'))
  with pytest.raises(UserError, match=r'swept\.py:8 failed: ZeroDiv'):
    plans.make(str(file), get_config('vanilla_mnist', 'tiny'), {})


def test_default_score_is_the_first_metric(tmp_path):
  """With the goal of that metric."""
  every = {'evaluation.every_images': 100}
  metrics_of = lambda *metrics: {'evaluation.metrics': metrics, **every}
  score_and_goal = lambda fixed, **more: make(
    tmp_path, {'space': RATES, 'fixed': fixed, **more}, name='one'
  )[4:6]
  assert score_and_goal(metrics_of('fid', 'kid')) == ('eval/fid', 'min')
  assert score_and_goal(metrics_of('precision_recall')) == (
    'eval/precision',
    'max',
  )
  assert score_and_goal(metrics_of('ms_ssim', 'swd')) == ('eval/swd', 'min')
  both = metrics_of('fid', 'precision_recall')
  assert score_and_goal(both, score='recall') == ('eval/recall', 'max')
  assert score_and_goal(metrics_of('classes'), score='classes_kl') == (
    'eval/classes_kl',
    'min',
  )
  assert score_and_goal(every, score='gen/diversity', goal='max') == (
    'gen/diversity',
    'max',
  )


EVERY = {'evaluation.every_images': 100}


@pytest.mark.parametrize(
  ('fixed', 'more', 'message'),
  [
    ({'evaluation.features': None, **EVERY}, {},
     'weights-inception-2015-12-05-6726825d.pth'),
    ({'evaluation.features': None, 'evaluation.metrics': (), **EVERY},
     {'score': 'fid'}, 'eval/fid is not measured (measured: swd, ms_ssim)'),
    ({'evaluation.metrics': ('fid',), **EVERY}, {'score': 'kid'},
     'eval/kid is not measured (measured: fid)'),
    ({'evaluation.metrics': ('fidd',), **EVERY}, {'score': 'fid'},
     "'fidd'; did you mean 'fid'"),
  ],
)  # fmt: skip
def test_score_that_cannot_be_measured_raises(tmp_path, fixed, more, message):
  """Before any trial starts, unless trials run on other machines."""
  description = {'space': RATES, 'fixed': fixed, **more}
  with pytest.raises(UserError) as raised:
    make(tmp_path, description, name='one')
  assert message in str(raised.value)
  make(tmp_path, description, name='one', remote_trials=True)


def test_score_of_one_pyramid_level_is_measured(tmp_path):
  fixed = {'evaluation.metrics': ('swd',), **EVERY}
  for score in ('swd', 'swd_28'):
    make(tmp_path, {'space': RATES, 'fixed': fixed, 'score': score}, name='one')


@pytest.mark.parametrize(
  ('name', 'metrics', 'score', 'goal'),
  [
    ('toy:ring', (), 'eval/jensen_shannon', 'min'),
    ('toy:line', ('wasserstein',), 'eval/wasserstein', 'min'),
    ('toy:grid', ('modes',), 'eval/high_quality', 'max'),
  ],
)
def test_default_score_of_a_toy_is_its_first_ranking_metric(
  tmp_path, name, metrics, score, goal
):
  """Of the named metrics, or of all."""
  file = tmp_path / 'swept.py'
  fixed = {'evaluation.metrics': metrics, **EVERY}
  sweeps = {'one': {'space': RATES, 'fixed': fixed}}
  file.write_text(EXPERIMENT.replace('{sweeps}', repr(sweeps)))
  plan = plans.make(str(file), get_config(name, 'tiny'), {})
  assert (plan.score, plan.goal) == (score, goal)


def test_typed_overrides_take_precedence(tmp_path):
  description = {'space': RATES, 'fixed': {'total_images': 500}, **RANKED}
  typed = {'total_images': 320, 'batch_size': 32}
  plan = make(tmp_path, description, typed, name='one')
  assert plan.base == typed
  assert plan.total_images == 320
  with pytest.raises(UserError, match=f'varies {GEN}: remove --config.{GEN}'):
    make(tmp_path, description, {GEN: 0.5}, name='one')


def test_startup_settings_are_known_in_advance(tmp_path):
  """TPE starts with ten settings of a random search, always the same."""
  search = {'space': {**SEARCH, 'seed': [4, 5]}, 'trials': 12, **RANKED}
  listed = plans.planned_trials(make(tmp_path, search, name='one'))
  assert listed == plans.planned_trials(make(tmp_path, search, name='one'))
  assert [params['seed'] for params in listed[:20]] == [4, 5] * 10
  assert all(listed[2 * i][GEN] == listed[2 * i + 1][GEN] for i in range(10))
  assert len({params[GEN] for params in listed[:20]}) == 10
  assert listed[20:] == [{'seed': 4}, None] * 2
  drawn = plans.planned_trials(
    make(tmp_path, {**search, 'sampler': 'random'}, name='one')
  )
  assert drawn[:20] == listed[:20]
  assert len({params[GEN] for params in drawn}) == 12
  longer = plans.planned_trials(make(tmp_path, search, name='one', trials=14))
  assert longer[:24] == listed


@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of the flags
def test_flags_round_trip(tmp_path, monkeypatch):
  """Values of every type survive the shell and the flags library."""
  values = {
    'seed': 3,
    GEN: 1.2345678901234567e-05,
    'data.flip': True,
    'data.source': "folder:/it's a $worker",
    'model.gen.hidden': (16, 16),
    'evaluation.metrics': ('fid',),
    'ema_rampup': None,
    'evaluation.every_images': 128,
  }
  plan = make(tmp_path, {'space': RATES, **RANKED}, name='one')
  typed = shlex.split(shlex.join(plan.flags(values)))
  monkeypatch.setattr(sys, 'argv', ['launch.py', *typed])
  monkeypatch.syspath_prepend(str(ROOT))
  launch = importlib.import_module('launch')
  launch.parse(sys.argv)
  read = cfg.flatten(launch.flags.FLAGS.config.to_dict())
  assert {key: read[key] for key in values} == values


# Those in experiments/.


@pytest.mark.parametrize(
  ('name', 'trials'),
  [
    ('dcgan_celeba', 32),
    ('losses_mnist', 9 * 6 * 3),
    ('toy:ring', 12),
    ('progressive_cifar10', 5 * 2),
    ('vanilla_mnist', 12),
    ('population_digits:population', 4 * 4),
    ('population_digits:random', 4),
  ],
)
def test_sweeps_of_experiments_have_their_number_of_trials(name, trials):
  name, _, sweep = name.partition(':') if 'toy' not in name else (name, '', '')
  experiment, config = f'{ROOT}/{config_path(name)}', get_config(name)
  # (This machine may lack the weights of Inception.)
  plan = plans.make(experiment, config, {}, sweep or None, remote_trials=True)
  assert len(plans.planned_trials(plan)) == trials


@pytest.mark.parametrize(
  ('name', 'score'),
  [
    ('dcgan_celeba', 'swd'),
    pytest.param('losses_mnist', 'swd', marks=pytest.mark.slow),
    ('toy:ring', 'wasserstein'),
    ('progressive_cifar10', 'swd'),
    ('vanilla_mnist', 'swd'),
  ],
)
def test_tiny_sweeps_have_tiny_trials(name, score):
  """Trials are as long as a `tiny` run, and can be measured anywhere."""
  config = get_config(name, 'tiny')
  plan = plans.make(f'{ROOT}/{config_path(name, "tiny")}', config, {})
  assert plan.score == f'eval/{score}'
  schedule = make_schedule(config)
  tiny = schedule.images(schedule.total_steps)
  for trial in trials_of(plan, config):
    schedule = make_schedule(trial)
    assert trial.evaluation.every_images < tiny
    assert schedule.images(schedule.total_steps) <= 1.5 * tiny


def trials_of(plan, config):
  """Yields the config of each trial that is known in advance."""
  for params in plans.planned_trials(plan):
    if params:
      trial = config.copy_and_resolve_references()
      overrides = {**plan.base, **suggested(plan.space, **params)}
      trial.update_from_flattened_dict(overrides)
      yield trial


@pytest.mark.parametrize(
  ('definition', 'seeds'),
  [('sweep()', (7, 7)), ("sweep(arg='')", (7, 9))],
)
def test_sweep_may_take_the_argument_of_its_config(tmp_path, definition, seeds):
  """`def sweep()` serves all arguments."""
  file = tmp_path / 'swept.py'
  block = {'space': RATES, **RANKED, 'fixed': {'seed': 7}}
  text = EXPERIMENT.replace('sweep()', definition)
  body = repr({'one': block})
  if 'arg' in definition:
    body = body.replace('7', "9 if arg == 'tiny' else 7")
  file.write_text(text.replace('{sweeps}', body))
  config = get_config('vanilla_mnist', 'tiny')
  for experiment, seed in zip((file, f'{file}:tiny'), seeds, strict=True):
    assert plans.make(str(experiment), config, {}).base == {'seed': seed}


def test_all_trials_of_fading_train_on_the_same_number_of_images():
  config = get_config('progressive_cifar10')
  plan = plans.make(f'{ROOT}/experiments/progressive_cifar10.py', config, {})
  totals = []
  for trial in trials_of(plan, config):
    schedule = make_schedule(trial)
    totals.append(schedule.images(schedule.total_steps))
  # Stages are rounded up to whole iterations.
  assert all(abs(total - 2_400_000) < 7 * 64 for total in totals)
