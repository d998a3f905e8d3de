"""The projection discriminator on the ten classes of CIFAR-10.

Miyato & Koyama 2018, "cGANs with projection discriminator": as
sngan_cifar10.py, with gains and biases of each class in G's BatchNorm, and the
class projected on D's features.

  python launch.py --config=experiments/projection_cifar10.py

A published FID: 10.8 (mimicry). Here not yet measured.
"""

from ml_collections import ConfigDict

from experiments import sngan_cifar10


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop, on embedded digits."""
  config = sngan_cifar10.get_config(arg)
  config.data.classes = 10
  config.evaluation.labels = 'data'  # of samples; or 'uniform'
  return config
