"""LSGAN on the digits of MNIST: least squares instead of cross-entropy.

Mao et al. 2017, "Least squares generative adversarial networks", with the
labels 0, 1, 1 of equation 9. All other settings are those of dcgan_mnist.py.

  python launch.py --config=experiments/lsgan_mnist.py
"""

from ml_collections import ConfigDict

from experiments import dcgan_mnist


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = dcgan_mnist.get_config(arg)
  config.game.loss = ConfigDict(
    {
      'name': 'least_squares',
      'real_label': 1.0,
      'fake_label': 0.0,
      'target_label': 1.0,
    }
  )
  return config
