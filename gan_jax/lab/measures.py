"""The scores and the text of one view."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gan_jax.data.toys import Toy
from gan_jax.metrics import points

# Points in optimal transport: few, so that it takes milliseconds.
NUM_TRANSPORTED = 300


def measure(
  real: np.ndarray, fake: np.ndarray, toy: Toy
) -> dict[str, float | None]:
  """Measures fakes against reals; a value that is not finite is None.

  `js` and `kl` are those of histograms, `wasserstein` is the exact distance of
  300 points, `spread` the standard deviation of the fakes divided by that of
  the reals, and `outside` the share of fakes beyond the limits of the picture.
  `modes` and `quality` are given for toys with several modes.
  """
  divergence = points.divergence(real, fake, toy.limit)
  found = {'js': divergence.jensen_shannon, 'kl': divergence.kl}
  found['wasserstein'] = points.wasserstein(
    real[:NUM_TRANSPORTED], fake[:NUM_TRANSPORTED]
  )
  found['spread'] = np.mean(fake.std(0)) / np.mean(real.std(0))
  found['outside'] = np.mean(np.abs(fake).max(1) > toy.limit)
  if len(toy.modes) > 1:
    modes = points.modes(fake, np.asarray(toy.modes), toy.std)
    found |= {'modes': modes.found, 'quality': modes.high_quality}
  return {name: finite(value) for name, value in found.items()}


def finite(value: Any) -> float | None:
  """Returns a number; None if it is not finite, as JSON has no NaN."""
  value = float(value)
  return round(value, 6) if math.isfinite(value) else None


def describe(values: Mapping[str, Any], toy: Toy) -> str:
  """Describes a state in one sentence, for a reader who sees no canvas."""
  parts = []
  if values.get('real_accuracy') is not None:
    parts.append(
      f'D recognizes {values["real_accuracy"]:.0%} of the reals and '
      f'{values["fake_accuracy"]:.0%} of the fakes'
    )
  if values.get('modes') is not None:
    parts.append(f'G produces {values["modes"]:.0f} of {len(toy.modes)} modes')
  if values.get('wasserstein') is not None:
    parts.append(f'the Wasserstein distance is {values["wasserstein"]:.2f}')
  if values.get('outside'):
    parts.append(f'{values["outside"]:.0%} of the fakes are off the picture')
  return '; '.join(parts)
