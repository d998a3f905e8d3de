"""BiGAN on CIFAR-10: a generator with an encoder.

Donahue et al. 2017, "Adversarial feature learning"; Dumoulin et al. 2017
("Adversarially learned inference"). G, D and the loss are those of
sngan_cifar10.py; D takes the latent by projection on its features, and the
encoder is DCGAN's D.

  python launch.py --config=experiments/bigan_cifar10.py

Scores: not measured yet.
"""

from ml_collections import ConfigDict

from experiments import sngan_cifar10


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = sngan_cifar10.get_config(arg)
  config.game.name = 'bigan'
  config.model.encoder = ConfigDict(
    {
      'name': 'dcgan',
      'features': 8 if arg == 'tiny' else 64,
      'normalized': True,
      'activation': 'leaky_relu',
      'negative_slope': 0.2,
    }
  )
  return config
