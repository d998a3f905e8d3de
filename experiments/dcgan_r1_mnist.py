"""DCGAN with the R1 penalty on MNIST, at 32x32: the recipe to start from.

The networks and the optimizers are those of dcgan_mnist.py. R1 (Mescheder et
al. 2018, "Which training methods for GANs do actually converge?") keeps D from
winning, which ends the training of the published recipe.

  python launch.py --config=experiments/dcgan_r1_mnist.py

The command finds or downloads the digits as in dcgan_mnist.py. At a quarter of
its width and batches of 64, after 400,000 images, the FID in the features of
`digits` is 8.1; that of dcgan_mnist.py is 46.1 at best
(docs/results/digits.md). The full width is not measured yet.
"""

from ml_collections import ConfigDict

from experiments import dcgan_mnist


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = dcgan_mnist.get_config(arg)
  config.game.penalties = ConfigDict({'r1': {'weight': 1.0, 'every': 1}})
  return config
