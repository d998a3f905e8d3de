"""The auxiliary classifier on the ten classes of CIFAR-10.

Odena et al. 2017, "Conditional image synthesis with auxiliary classifier GANs":
D says also which class an image is of, and learns it from reals and fakes.
Networks, loss and weights (1 for D, 0.1 for G) are those of the conditional
WGAN-GP (Gulrajani et al. 2017), whose D learns classes from the reals alone.

  python launch.py --config=experiments/acgan_cifar10.py

Here not yet measured.
"""

from ml_collections import ConfigDict

from experiments import wgangp_cifar10


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop, on embedded digits."""
  config = wgangp_cifar10.get_config(arg)
  config.data.classes = 10
  config.evaluation.labels = 'data'  # of samples; or 'uniform'
  config.game.auxiliary = ConfigDict({'gen': 0.1, 'disc': 1.0})
  return config
