"""Evaluates the checkpoints of a run."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import data, devices
from gan_jax.errors import UserError, warn
from gan_jax.metrics import scores
from gan_jax.metrics.scores import Score
from gan_jax.runs.steps import choose_step
from gan_jax.training import checkpoint
from gan_jax.training.check import check_config
from gan_jax.training.evaluations import make_evaluators, make_measure


def evaluate(
  config: ConfigDict,
  workdir: str | Path,
  step: str | None = None,
  truncation: float | None = None,
) -> None:
  """Evaluates a run, prints its scores and appends them to `scores.jsonl`.

  Args:
    config: The run's; its `evaluation` block may differ from the training's.
    workdir: The run's.
    step: The checkpoint's iteration, `best` or `all`; None: the newest.
    truncation: As in `Run.inputs`.
  """
  check_config(config)
  cfg.read(workdir)
  cfg.check_workdir(config, workdir)
  evaluators = make_evaluators(config, data.make(config))
  measure = make_measure(evaluators, config, truncation)
  writable = True
  for steps in _steps(workdir, step, evaluators[0].main):
    ema = checkpoint.read(workdir, ('ema',), steps)['ema']
    listed = measure(devices.replicate(jax.tree.map(np.asarray, ema)), steps)
    if devices.is_main():
      print(f'Iteration {steps:,}: ' + ', '.join(map(str, listed)), flush=True)
      writable = writable and _try_to_record(workdir, listed)


def _try_to_record(workdir: str | Path, listed: list[Score]) -> bool:
  """Appends scores to `scores.jsonl`; warns if the file cannot be written."""
  try:
    scores.record(workdir, listed)
  except OSError as error:
    warn(
      f'the scores are not saved: cannot write to {workdir}: '
      f'{error.strerror or error}'
    )
    return False
  return True


def _steps(
  workdir: str | Path, step: str | None, main: str | None
) -> list[int]:
  """Returns the checkpoints to evaluate."""
  if step == 'all':
    return checkpoint.steps(workdir)
  if step == 'best' and main is None:
    raise UserError(
      '--step=best needs a metric that ranks checkpoints: add one to '
      'config.evaluation.metrics'
    )
  if step is None or step == 'best':
    return [choose_step(workdir, None, main if step else None)]
  if not step.isdigit():
    raise UserError(
      f'--step={step} must be a number of iterations, best or all'
    )
  return [choose_step(workdir, int(step), None)]
