"""Tests of evaluations that were due when a run stopped."""

import json
import os
import signal
import time

import numpy as np
import pytest
from runs import evaluated_config, get_config, metrics, preempt_at, state_arrays
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)

import gan_jax
from gan_jax.errors import Preempted
from gan_jax.metrics import scores
from gan_jax.pair import Pair
from gan_jax.sweep.trial import MetricsReader
from gan_jax.training import checkpoint, evaluations, loop, run_log
from gan_jax.training.log_lines import scheduled_values
from gan_jax.training.schedule import place_segments


def fid_config():
  """Returns a config with two evaluations by the features of `digits`."""
  return evaluated_config(metrics=('fid',), features='digits')


def fids(workdir):
  """Returns the FID by step in scores.jsonl, metrics.jsonl and TensorBoard."""
  events = EventAccumulator(str(workdir / 'tensorboard')).Reload()
  return (
    {s.step: s.value for s in scores.read(workdir) if s.name == 'fid'},
    {
      line['step']: line['eval/fid']
      for line in metrics(workdir)
      if 'eval/fid' in line
    },
    {
      event.step: pytest.approx(event.value, rel=1e-6)
      for event in events.Scalars('eval/fid')
    },
  )


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
  """A complete run with evaluations at iterations 0, 12 and 24."""
  workdir = tmp_path_factory.mktemp('straight')
  loop.train(fid_config(), workdir)
  return workdir


def test_initial_generator_is_evaluated(straight):
  """Its log record has no training metrics."""
  in_scores, in_metrics, in_tensorboard = fids(straight)
  assert in_scores.keys() == {0, 12, 24}
  assert in_scores == in_metrics == in_tensorboard
  assert metrics(straight)[0].keys() == {'step', 'images', 'eval/fid'}
  first = gan_jax.load(straight).metrics().iloc[0]
  assert (first['step'], first['eval/fid']) == (0, in_scores[0])
  assert np.isnan(first['images_per_second'])


@pytest.mark.parametrize('step', [12, pytest.param(24, marks=pytest.mark.slow)])
def test_pending_evaluation_runs_on_resume(
  straight, tmp_path, monkeypatch, step
):
  """Even if the run stopped after its last dispatch, before the evaluation."""
  config = fid_config()
  with monkeypatch.context() as patch:
    preempt_at(step, patch)
    with pytest.raises(Preempted, match=f'saved at iteration {step}'):
      loop.train(config, tmp_path)
  assert checkpoint.steps(tmp_path)[-1] == step
  assert step not in fids(tmp_path)[0]
  reader = MetricsReader(str(tmp_path), 'eval/fid')
  reader.read()
  loop.train(config, tmp_path)
  assert metrics(tmp_path) == metrics(straight)
  assert state_arrays(tmp_path, 24) == state_arrays(straight, 24)
  assert fids(tmp_path)[0] == pytest.approx(fids(straight)[0], rel=1e-6)
  assert len({json.dumps(fids(tmp_path)[i]) for i in range(2)}) == 1
  # A sweep reads the score.
  reader.read()
  assert reader.points[-1].score == pytest.approx(fids(straight)[0][24])
  # A resumed run does not repeat the evaluation.
  monkeypatch.setattr(evaluations.Evaluations, 'measure', None)
  loop.train(config, tmp_path)


@pytest.mark.parametrize('evaluation', [0, 1, 2])
def test_preemption_ends_an_evaluation(
  straight, tmp_path, monkeypatch, evaluation
):
  """The state is saved before the evaluation ends; the resumed run repeats it.

  Before the first iteration there is nothing to save.
  """
  config, steps = fid_config(), (0, 12, 24)
  measure, begun, batches = evaluations.Evaluations.measure, [], []
  log, excluded = run_log.RunLog.log, {}

  def record(self, step, images, metrics, until, seconds):
    excluded[step] = seconds
    log(self, step, images, metrics, until, seconds)

  def interrupted(self, ema, step, stop_requested):
    begun.append(step)

    def before(*args):
      if len(begun) == evaluation + 1:
        batches.append(step)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
      return stop_requested(*args)

    return measure(self, ema, step, before)

  saved = f'saved at iteration {steps[evaluation]}'
  with monkeypatch.context() as patch:
    patch.setattr(evaluations.Evaluations, 'measure', interrupted)
    patch.setattr(run_log.RunLog, 'log', record)
    with pytest.raises(
      Preempted, match=saved if evaluation else 'before iteration 1'
    ):
      loop.train(config, tmp_path)
  assert batches == [steps[evaluation]]
  if evaluation:
    assert checkpoint.steps(tmp_path)[-1] == steps[evaluation]
    assert 0.2 < excluded[steps[evaluation]] < 10  # from the logged speed
  assert [s.step for s in scores.read(tmp_path)] == [*steps[:evaluation]]
  loop.train(config, tmp_path)
  assert metrics(tmp_path) == metrics(straight)
  assert state_arrays(tmp_path, 24) == state_arrays(straight, 24)
  assert fids(tmp_path)[0] == pytest.approx(fids(straight)[0], rel=1e-6)


def test_score_of_a_lost_iteration_does_not_hide_a_missing_one(
  straight, tmp_path, monkeypatch
):
  """A kill after the score of iteration 12, before its checkpoint is whole."""
  config = fid_config()
  (score,) = (s for s in scores.read(straight) if s.step == 12)
  with monkeypatch.context() as patch:
    preempt_at(8, patch)
    with pytest.raises(Preempted):
      loop.train(config, tmp_path)
  scores.record(tmp_path, [score._replace(value=1.0)])
  with monkeypatch.context() as patch:
    preempt_at(4, patch)
    with pytest.raises(Preempted, match='saved at iteration 12'):
      loop.train(config, tmp_path)
  loop.train(config, tmp_path)
  assert fids(tmp_path)[0] == pytest.approx(fids(straight)[0], rel=1e-6)
  assert len({json.dumps(fids(tmp_path)[i]) for i in range(2)}) == 1


def test_run_without_evaluations_has_none_pending(tmp_path, scripted):
  config = fid_config()
  config.evaluation.every_images = None
  loop.train(config, tmp_path)
  config.evaluation.every_images = 16 * 12
  scripted += [3.0]  # of iteration 24 only
  loop.train(config, tmp_path)
  assert {s.step for s in scores.read(tmp_path)} == {24}
  assert metrics(tmp_path)[-1]['eval/fid'] == 3.0


def test_trial_ignores_the_initial_score(straight):
  reader = MetricsReader(str(straight), 'eval/fid')
  assert reader.read()
  scored = [point for point in reader.points if point.score is not None]
  assert [point.images for point in scored] == [192, 384]


def test_speed_excludes_evaluations(tmp_path, monkeypatch):
  """An evaluation takes half a second; the logged speed is that of training."""

  def make_evaluate_fn(self, game, truncation=None, exact=None):
    def measure(gen_vars, phase, check_stop):
      time.sleep(0.5)
      return {'ms_ssim': {'ms_ssim': [0.5]}}

    return measure

  monkeypatch.setattr(
    'gan_jax.metrics.evaluator.Evaluator.make_evaluate_fn', make_evaluate_fn
  )
  logged = []
  log = run_log.RunLog.log

  def record(self, step, images, *rest):
    logged.append((time.perf_counter(), images))
    log(self, step, images, *rest)

  monkeypatch.setattr(run_log.RunLog, 'log', record)
  loop.train(evaluated_config(metrics=('ms_ssim',), features=None), tmp_path)
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  seconds = [line['eval/seconds'] for line in lines if 'eval/seconds' in line]
  assert len(seconds) == 3
  assert all(0.5 <= x < 0.9 for x in seconds)
  index = next(i for i, (_, images) in enumerate(logged) if images == 384)
  elapsed = logged[index][0] - logged[index - 1][0]
  trained = logged[index][1] - logged[index - 1][1]
  speed = trained / (elapsed - seconds[-1])
  assert lines[-1]['images_per_second'] == pytest.approx(speed, rel=0.2)


# Scheduled values.


def test_scheduled_values_by_hand():
  """Two dispatches of 4 iterations of 16: linear curves, by hand."""
  falling = ('linear', 4.0, 0.0)
  segments = [
    {
      'images': 128,
      'gen_learning_rate_factor': falling,
      'values': {'a': 0.25},
    },
    {'images': 128, 'stage': 1, 'values': {'b': ('linear', 0.0, 1.0)}},
  ]
  defaults = {'batch_size': 16, 'gen_batch_size': None, 'disc_steps': 1}
  schedule = place_segments(
    segments, defaults=defaults, learning_rate=Pair(2e-4, 1e-4),
    total_images=None, steps_per_dispatch=4, ema_halflife_images=1,
    ema_rampup=None,
  )  # fmt: skip
  assert scheduled_values(schedule, ['4x4', '8x8'], 3) == {
    'schedule/gen_learning_rate': 5e-4,  # 3/8 of the way
    'schedule/disc_learning_rate': 1e-4,
    'schedule/a': 0.25,
    'schedule/stage': 0,
    'schedule/resolution': 4,
  }
  assert scheduled_values(schedule, ['4x4', '8x8'], 15) == {
    'schedule/gen_learning_rate': 2e-4,
    'schedule/disc_learning_rate': 1e-4,
    'schedule/b': 0.875,
    'schedule/stage': 1,
    'schedule/resolution': 8,
  }


def test_run_logs_scheduled_values(tmp_path):
  """A log record has the values of its last iteration. A run with one stage
  logs no stage.
  """
  config = get_config('vanilla_mnist', 'tiny')
  falling = ('linear', 1.0, 0.0)
  config.schedule = ({'disc_learning_rate_factor': falling},)
  loop.train(config, tmp_path)
  for line in metrics(tmp_path):
    rate = 2e-4 * (1 - (line['step'] - 1) / 24)
    assert line['schedule/disc_learning_rate'] == pytest.approx(rate, rel=1e-6)
    assert line['schedule/gen_learning_rate'] == 2e-4
    assert 'schedule/stage' not in line
