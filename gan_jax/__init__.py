"""Generative adversarial networks in JAX: the face for notebooks.

>>> import gan_jax
>>> run = gan_jax.load('runs/vanilla_mnist')
>>> images = run.sample(16, seed=0)  # uint8 [16, 28, 28, 1]
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from gan_jax.run import Run

__all__ = ['load']


def load(workdir: str | Path, step: int | None = None) -> 'Run':
  """Opens the run in `workdir`, whatever machine and devices wrote it.

  Args:
    workdir: The run's.
    step: The rounds after which it was saved; None: the newest.

  Returns:
    A `gan_jax.run.Run`: `sample`, `interpolate`, `show`, `metrics`, `config`,
    `generator`, `params`.

  Raises:
    UserError: `workdir` holds no run, or no such checkpoint.
  """
  from gan_jax import run  # heavy: imported only now

  return run.load(workdir, step)
