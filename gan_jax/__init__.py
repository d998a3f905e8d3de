"""Generative adversarial networks in JAX: the functions for notebooks.

>>> import gan_jax
>>> run = gan_jax.load('runs/vanilla_mnist')
>>> images = run.sample(16, seed=0)  # uint8 [16, 28, 28, 1]
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# (Heavy modules are imported only when a function needs them.)
if TYPE_CHECKING:
  import pandas
  from ml_collections import ConfigDict

  from gan_jax.metrics.scores import Score
  from gan_jax.runs.export import Export
  from gan_jax.runs.run import Run
  from gan_jax.sweep.results import Sweep

__all__ = [
  'compare', 'evaluate', 'experiment', 'load', 'load_pkl', 'load_sweep',
  'open_export', 'train',
]  # fmt: skip


def experiment(filename: str | Path, **overrides: Any) -> 'ConfigDict':
  """Returns the config of an experiment file, with overrides.

  >>> gan_jax.experiment('experiments/vanilla_mnist.py', seed=5)
  >>> gan_jax.experiment(
  ...   'experiments/vanilla_mnist.py:tiny', **{'model.disc.dropout': 0.1}
  ... )

  Args:
    filename: FILE.py or FILE.py:ARGUMENT. The file is run.
    **overrides: Values of keys of the config, as by the flags `--config.KEY`.

  Raises:
    UserError: The file does not exist or fails; a key is unknown; a value has
      another type than the default, or has no effect.
  """
  from gan_jax.training import experiment

  return experiment.experiment(str(filename), overrides)


def train(config: 'ConfigDict', workdir: str | Path) -> 'Run':
  """Trains the run in `workdir`; resumes it if it exists.

  >>> config = gan_jax.experiment('experiments/vanilla_mnist.py')
  >>> run = gan_jax.train(config, 'runs/vanilla_mnist')

  Args:
    config: The config of an experiment. A code that it names is run.
    workdir: The folder of the run.

  Returns:
    The trained run, opened.

  Raises:
    UserError: The config, the data or the workdir is invalid, or training
      diverged.
    KeyboardInterrupt: Ctrl-C was pressed; the state is saved.
  """
  from gan_jax.errors import UserError
  from gan_jax.runs import run
  from gan_jax.training import loop

  is_path = isinstance(workdir, str | os.PathLike)
  if not hasattr(config, 'to_dict') or not is_path:
    raise UserError(
      'gan_jax.train takes the config of gan_jax.experiment(FILE), and a folder'
    )
  loop.train(config, workdir)
  return run.load(workdir, trust=True)


def load(
  workdir: str | Path,
  step: int | None = None,
  best: str | None = None,
  trust: bool = False,
) -> 'Run':
  """Opens a checkpoint of the run in `workdir`.

  The run may have been trained on any machine and any number of devices.

  Args:
    workdir: The run's.
    step: The iteration of the checkpoint; None: the newest.
    best: The name of a score (fid, ...): opens the best checkpoint by it.
    trust: Whether to import code that the run's config names (FILE.py:NAME or
      MODULE:NAME). Importing a module runs its code.

  Returns:
    A `gan_jax.runs.run.Run`: `sample`, `interpolate`, `show`, `nearest`,
    `metrics`, `config`, `generator`, `params`.

  Raises:
    UserError: `workdir` holds no run, or the checkpoint does not exist; or
      the config names code, and `trust` is False.
  """
  from gan_jax.runs import run

  return run.load(workdir, step, best, trust)


def open_export(path: str | Path, trust: bool = False) -> 'Export':
  """Opens a generator that `run.export` wrote.

  >>> generate = gan_jax.open_export('g.stablehlo')
  >>> images = generate(z=z)  # floats [n, h, w, c] in [-1, 1]

  Args:
    path: FILE.stablehlo, FILE.safetensors or FILE.onnx.
    trust: Whether to import code that the config in a FILE.safetensors names.

  Raises:
    UserError: The file cannot be read, or a package is missing.
  """
  from gan_jax.runs import export

  return export.open_export(path, trust)


def load_pkl(path: str | Path) -> 'Run':
  """Opens a published generator: a `.pkl` of StyleGAN2-ADA or R3GAN.

  >>> run = gan_jax.load_pkl('ffhq.pkl')
  >>> run.sample(8, truncation=0.7)

  Such files hold Python source. It is ignored, and nothing in the file is run.

  Args:
    path: The file, as published by NVlabs' stylegan2-ada-pytorch or
      brownvc/R3GAN, or trained with their code.

  Returns:
    A `Run` without metrics and training data: `sample`, `interpolate`, `show`,
    `discriminator`; of a StyleGAN2, `w`, `mix`, `synthesize`.

  Raises:
    UserError: The file is damaged, holds another network, or requests code.
  """
  from gan_jax.runs import pretrained

  return pretrained.load_pkl(path)


def evaluate(
  run_or_images: Any, reference: Any = None, **settings: Any
) -> 'dict[str, Score]':
  """Measures a run, or any images; returns the scores by name.

  >>> gan_jax.evaluate(run)  # against its own data
  >>> gan_jax.evaluate('folder/of/images', run, metrics=('fid', 'kid'))

  Args:
    run_or_images: A run, uint8 images [n, h, w, c], or a folder of images.
    reference: The reference: a run (its data are used), images, or a folder;
      None: the data of the run that is measured.
    **settings: metrics, features, num_samples, seeds, held_out, labels, as in
      `config.evaluation` (features may also be a function of uint8 images
      [n, h, w, c]); truncation, as in `run.sample`. The default of each is the
      run's setting. Images are all used, once.

  Returns:
    A `Score` for each name, with the protocol by which it was measured.

  Raises:
    UserError: A metric is unknown, or its weights or data are missing.
  """
  from gan_jax.runs import evaluate

  return evaluate.evaluate_here(run_or_images, reference, **settings)


def compare(*runs: Any, name: str = 'fid') -> 'pandas.DataFrame':
  """Compares runs by a score, the best first.

  Args:
    *runs: Workdirs, or results of `gan_jax.evaluate`.
    name: The name of the score. Of each run, the newest score with a protocol
      that all runs share is used.

  Raises:
    UserError: The runs share no protocol; the message lists the differences.
  """
  from gan_jax.metrics import scores

  return scores.compare(*runs, name=name)


def load_sweep(workdir: str | Path) -> 'Sweep':
  """Opens a finished or running sweep.

  Args:
    workdir: The sweep's.

  Returns:
    A `gan_jax.sweep.results.Sweep`: `trials`, a DataFrame; `best()`, the run of
    the best trial; `ranked()` and `over_seeds()`, tables with the best first.

  Raises:
    UserError: `workdir` holds no sweep.
  """
  from gan_jax.sweep import results

  return results.Sweep(workdir)
