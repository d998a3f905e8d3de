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
  """Opens a run: see `gan_jax.run.load`. Imports what it needs only now."""
  from gan_jax import run

  return run.load(workdir, step)
