"""Tests of which checkpoints are kept as the best."""

from runs import evaluated_config

import gan_jax
from gan_jax.data.digits import digits
from gan_jax.data.source import DataSpec
from gan_jax.metrics import measure as measures
from gan_jax.metrics import scores
from gan_jax.metrics.evaluator import Evaluator
from gan_jax.training import checkpoint, loop


def some_score(step, value, ranks=True, fakes=90, **protocol):
  """Returns an FID of this number of fakes."""
  protocol = {'metric': {'name': 'fid', 'version': 1}, **protocol}
  protocol['fakes'] = {'images': fakes, 'generator': 'ema'}
  return scores.Score('fid', value, None, step, 16 * step, protocol, ranks)


def save_and_score(workdir, scores_by_step):
  """Saves checkpoints with scores, keeping only the newest; returns the kept
  steps.
  """
  from test_failures import some_state

  checkpoints = checkpoint.Checkpoints(workdir, 1)
  for step, scores_of_step in scores_by_step.items():
    scores.record(workdir, scores_of_step)
    checkpoints.save(step, some_state(), {'gen/loss': 0.0}, {})
    checkpoints.finish()
  checkpoints.close()
  return checkpoint.steps(workdir)


def test_best_checkpoint_is_kept_beside_the_newest(tmp_path):
  """One checkpoint is kept, and the best one in addition."""
  values = {1: 9.0, 2: 3.0, 3: None, 4: float('nan'), 5: 5.0, 7: 7.0}
  scores_by_step = {
    step: [] if value is None else [some_score(step, value)]
    for step, value in values.items()
  }
  scores_by_step[6] = [
    some_score(6, 0.1, ranks=False)
  ]  # does not rank checkpoints
  assert save_and_score(tmp_path, dict(sorted(scores_by_step.items()))) == [
    2,
    7,
  ]


def test_best_is_kept_for_each_protocol(tmp_path):
  """Scores of another number of fakes have another protocol."""
  scores_by_step = {
    1: [some_score(1, 9.0)],
    2: [some_score(2, 4.0)],
    3: [some_score(3, 3.0, fakes=50)],
    4: [some_score(4, 5.0, fakes=50)],
    5: [],  # resumed without evaluations
    6: [],
  }
  assert save_and_score(tmp_path, scores_by_step) == [2, 3, 6]
  assert save_and_score(tmp_path, {7: [some_score(7, 3.5)], 8: []}) == [3, 7, 8]


def test_best_checkpoint_survives_resumes(tmp_path, scripted):
  """The run resumes without evaluations, then with another metric and worse
  scores.
  """
  config = evaluated_config(metrics=('fid',))
  config.checkpoints_to_keep = 1
  scripted += [9.0, 1.0, 5.0]  # at iterations 0, 12 and 24
  loop.train(config, tmp_path)
  assert checkpoint.steps(tmp_path) == [12, 24]
  config.evaluation.every_images = None
  config.total_images = 16 * 32
  loop.train(config, tmp_path)
  assert checkpoint.steps(tmp_path) == [12, 32]
  config.evaluation.every_images = 16 * 12
  config.evaluation.metrics = ('fid', 'ms_ssim')
  config.total_images = 16 * 36
  scripted += [4.0, 4.0]
  loop.train(config, tmp_path)
  assert checkpoint.steps(tmp_path) == [12, 36]
  assert gan_jax.load(tmp_path, best='fid').step == 12


def test_comparison_digest_depends_only_on_the_ranking_metric(monkeypatch):
  """Other metrics change nothing; the version of the ranking metric does."""
  source = digits(DataSpec('', 28, 1))
  digest_of = lambda *metrics: (
    Evaluator(
      evaluated_config(metrics=metrics).evaluation, source, {}
    ).comparison_digest
  )
  assert (
    digest_of('fid')
    == digest_of('fid', 'swd')
    == digest_of('ms_ssim', 'fid', 'kid')
  )
  assert digest_of('fid') != digest_of('swd')
  row, before = measures.METRICS['fid'], digest_of('fid')
  monkeypatch.setitem(measures.METRICS, 'fid', row._replace(version=2))
  assert digest_of('fid') != before


def test_score_prints_name_and_value():
  score = some_score(24, 10.5641)
  assert f'{ {"fid": score} }' == "{'fid': 10.564}"
  several = score._replace(std=0.2)
  assert (str(several), repr(several)) == ('fid 10.564 +- 0.2', '10.564 +- 0.2')
