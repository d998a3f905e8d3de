"""The projection discriminator on the ten classes of CIFAR-10.

Miyato & Koyama 2018, "cGANs with projection discriminator": sngan_cifar10.py
with conditional BatchNorm in G, and with the class projected on D's features.

  python launch.py --config=experiments/projection_cifar10.py

A published FID: 10.8 (mimicry). Score of this code: not measured yet.
"""

from ml_collections import ConfigDict

from experiments import sngan_cifar10


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = sngan_cifar10.get_config(arg)
  config.data.classes = 10
  config.evaluation.labels = 'data'  # or 'uniform'
  return config
