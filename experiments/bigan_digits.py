"""BiGAN on 5,000 MNIST digits: a generator with an encoder.

Donahue et al. 2017, "Adversarial feature learning"; Dumoulin et al. 2017
("Adversarially learned inference"): D tells pairs of an image and its encoding
from pairs of a sample and its latent. All other settings are those of
vanilla_mnist.py.

  python launch.py --config=experiments/bigan_digits.py

The latents of an image: run.encode(images)['z']. Scores of a small and
short run: docs/results/representations.md.
"""

from ml_collections import ConfigDict

from experiments import vanilla_mnist


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = vanilla_mnist.get_config(arg)
  config.game.name = 'bigan'
  config.model.encoder = ConfigDict(
    {
      'name': 'mlp',
      'hidden': (1024, 512),
      'dropout': 0.0,
      'activation': 'leaky_relu',
      'negative_slope': 0.2,
    }
  )
  if arg == 'tiny':
    config.model.encoder.hidden = (32,)
  return config
