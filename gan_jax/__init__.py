"""Generative adversarial networks in JAX: the face for notebooks.

>>> import gan_jax
>>> run = gan_jax.load('runs/vanilla_mnist')
>>> images = run.sample(16, seed=0)  # uint8 [16, 28, 28, 1]
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

# (Heavy modules are imported only when they are asked for.)
if TYPE_CHECKING:
  import pandas

  from gan_jax.metrics.scores import Score
  from gan_jax.runs.run import Run
  from gan_jax.sweep.results import Sweep

__all__ = ['compare', 'evaluate', 'load', 'load_sweep']


def load(
  workdir: str | Path,
  step: int | None = None,
  best: str | None = None,
  trust: bool = False,
) -> 'Run':
  """Opens the run in `workdir`, whatever machine and devices wrote it.

  Args:
    workdir: The run's.
    step: The iterations after which it was saved; None: the newest.
    best: The score (fid, ...) by which it is the best that was kept.
    trust: Whether a module that the run's config names may be imported
      (evaluation.features=MODULE:FUNCTION), which runs it.

  Returns:
    A `gan_jax.runs.run.Run`: `sample`, `interpolate`, `show`, `nearest`,
    `metrics`, `config`, `generator`, `params`.

  Raises:
    UserError: `workdir` holds no run, or no such checkpoint.
  """
  from gan_jax.runs import run

  return run.load(workdir, step, best, trust)


def evaluate(
  run_or_images: Any, reference: Any = None, **how: Any
) -> 'dict[str, Score]':
  """Scores of a run, or of images from anywhere, each with its protocol.

  >>> gan_jax.evaluate(run)  # against its own data
  >>> gan_jax.evaluate('folder/of/images', run, metrics=('fid', 'kid'))

  Args:
    run_or_images: A run; uint8 [n, h, w, c]; or a folder of images.
    reference: What it is compared with, likewise (of a run: its data); None:
      the run's own data.
    **how: metrics, features, num_samples, seeds, held_out, labels, as in
      `config.evaluation` (features may also be a function of uint8 images
      [n, h, w, c]); truncation, as in `run.sample`. What is not given is
      as the run has it; of images all are taken, once.

  Raises:
    UserError: A metric, or what it needs, is not there.
  """
  from gan_jax.runs import evaluate

  return evaluate.evaluate_here(run_or_images, reference, **how)


def compare(*runs: Any, name: str = 'fid') -> 'pandas.DataFrame':
  """Runs side by side by a score, the best first.

  Args:
    *runs: Workdirs, or what `gan_jax.evaluate` gave.
    name: Of the score: the newest that all were given in one way.

  Raises:
    UserError: They were not measured in the same way, and in what they differ.
  """
  from gan_jax.metrics import scores

  return scores.compare(*runs, name=name)


def load_sweep(workdir: str | Path) -> 'Sweep':
  """Opens a sweep, finished or going on.

  Args:
    workdir: The sweep's.

  Returns:
    A `gan_jax.sweep.results.Sweep`: `trials`, a DataFrame; `best()`, the run of
    the best trial; `ranked()`; `over_seeds()`.

  Raises:
    UserError: `workdir` holds no sweep.
  """
  from gan_jax.sweep import results

  return results.Sweep(workdir)
