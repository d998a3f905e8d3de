"""The cache on disk of metric inputs of the data."""

import io
import zipfile
from pathlib import Path

import numpy as np

from gan_jax.errors import warn
from gan_jax.files import write_whole
from gan_jax.metrics.metric_inputs import MetricInputs
from gan_jax.metrics.moments import Moments


def write(file: Path, inputs: MetricInputs) -> None:
  """Writes metric inputs to the cache."""
  arrays = {k: v for k, v in inputs._asdict().items() if v is not None}
  if (moments := arrays.pop('moments', None)) is not None:
    arrays.update({f'moments_{k}': v for k, v in moments._asdict().items()})
  written = io.BytesIO()
  np.savez(written, **arrays)
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, written.getvalue())
  except OSError as error:
    warn(
      f'cannot write the reference statistics to {file}: {error.strerror}; '
      'every evaluation will compute them again'
    )


def read(file: Path) -> MetricInputs | None:
  """Reads metric inputs from the cache; None: missing or damaged."""
  try:
    with file.open('rb') as opened:
      arrays = dict(np.load(opened))
  except (OSError, ValueError, EOFError, zipfile.BadZipFile):
    return None
  parts = {k: arrays.pop(f'moments_{k}', None) for k in Moments._fields}
  moments = None
  if parts['count'] is not None:
    moments = Moments(**{**parts, 'count': int(parts['count'])})
  count = int(arrays.pop('count'))
  return MetricInputs(count, moments, **arrays)
