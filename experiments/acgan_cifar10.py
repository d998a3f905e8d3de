"""AC-GAN on the ten classes of CIFAR-10.

Odena et al. 2017, "Conditional image synthesis with auxiliary classifier GANs":
D also predicts the class of an image, and learns this from reals and fakes. The
networks, the loss and the weights (1 for D, 0.1 for G) are those of the
conditional WGAN-GP (Gulrajani et al. 2017), whose D learns classes from reals
only.

  python launch.py --config=experiments/acgan_cifar10.py

Score: not measured yet.
"""

from ml_collections import ConfigDict

from experiments import wgangp_cifar10


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = wgangp_cifar10.get_config(arg)
  config.data.classes = 10
  config.evaluation.labels = 'data'  # or 'uniform'
  config.game.auxiliary = ConfigDict({'gen': 0.1, 'disc': 1.0})
  return config
