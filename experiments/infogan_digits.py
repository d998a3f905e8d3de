"""InfoGAN on 5,000 MNIST digits: classes learned without labels.

Chen et al. 2016, "InfoGAN", appendix C.1: a categorical code of 10 values and
two continuous codes are parts of G's input, beside 62 latents, and Q, a head of
D, reads them off the fakes. Networks, weights of the codes, learning rates
(1e-3 for G, 2e-4 for D) and momentum are the paper's.

  python launch.py --config=experiments/infogan_digits.py

The code of an image: run.encode(images)['class']. At half the width and batches
of 64, after 202,000 images, the NMI of codes and classes is 0.65
(docs/results/representations.md). The full width is not measured yet.
"""

from ml_collections import ConfigDict

from experiments import vanilla_mnist


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = vanilla_mnist.get_config(arg)
  config.game.name = 'infogan'
  config.game.latent = 'uniform'
  config.game.latent_dim = 62
  config.game.categories = 10
  config.game.codes = 2
  config.game.class_weight = 1.0
  config.game.code_weight = 0.1

  tiny = arg == 'tiny'
  network = {
    'name': 'infogan',
    'features': 4 if tiny else 64,
    'hidden': (16,) if tiny else (1024,),
    'negative_slope': 0.1,
  }
  config.model.gen = ConfigDict({**network, 'activation': 'relu'})
  config.model.disc = ConfigDict(
    {**network, 'activation': 'leaky_relu', 'normalized': True}
  )
  config.optimizer.gen.learning_rate = 1e-3
  for player in ('gen', 'disc'):
    config.optimizer[player].b1 = 0.5
  if not tiny:
    config.batch_size = 128
  return config
