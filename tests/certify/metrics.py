"""Computes golden values of our metrics with the reference packages.

  python tests/certify/metrics.py

writes metrics.json beside this file. It needs pip install -e '.[certify]'.
"""

import contextlib
import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from certify.inputs import feature_pairs, image_pairs, logits
from fidelity import import_torch_fidelity

GOLDEN = Path(__file__).with_suffix('.json')
PACKAGES = ('torch', 'torch-fidelity', 'prdc', 'pytorch-msssim', 'numpy')
KID = {'subsets': 10, 'subset_size': 100, 'seed': 2020}


def golden() -> dict[str, dict[str, float]]:
  """Returns {name of the input: values of the reference packages}."""
  import_torch_fidelity()
  import torch

  values = {
    name: _of_features(*map(torch.from_numpy, pair))
    for name, pair in feature_pairs().items()
  }
  from torch_fidelity.metric_isc import isc_features_to_metric

  scores = isc_features_to_metric(torch.from_numpy(logits()))
  values['logits'] = {
    'inception_mean': scores['inception_score_mean'],
    'inception_std': scores['inception_score_std'],
  }
  from pytorch_msssim import ms_ssim

  for name, images in image_pairs().items():
    x, y = torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)
    values[name] = {'ms_ssim': float(ms_ssim(x[None], y[None]))}
  return values


def _of_features(real, fake) -> dict[str, float]:
  from prdc import compute_prdc
  from torch_fidelity.metric_fid import (
    fid_features_to_statistics,
    fid_statistics_to_metric,
  )
  from torch_fidelity.metric_kid import kid_features_to_metric
  from torch_fidelity.metric_prc import prc_features_to_metric

  fid = fid_statistics_to_metric(
    *map(fid_features_to_statistics, (real, fake)), verbose=False
  )
  kid = kid_features_to_metric(
    real, fake, verbose=False, kid_subsets=KID['subsets'],
    kid_subset_size=KID['subset_size'], rng_seed=KID['seed'],
  )  # fmt: skip
  # Its first features are the fakes.
  prc = prc_features_to_metric(fake, real, verbose=False)
  with contextlib.redirect_stdout(None):
    prdc = compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
  return {
    'fid': fid['frechet_inception_distance'],
    'kid_mean': kid['kernel_inception_distance_mean'],
    'kid_std': kid['kernel_inception_distance_std'],
    'precision': prc['precision'],
    'recall': prc['recall'],
    'density': float(prdc['density']),
    'coverage': float(prdc['coverage']),
  }


if __name__ == '__main__':
  versions = {name: importlib.metadata.version(name) for name in PACKAGES}
  text = json.dumps({'versions': versions, 'values': golden()}, indent=2)
  GOLDEN.write_text(text + '\n')
