"""The conditional GAN on 5,000 MNIST digits that need no download.

Mirza & Osindero 2014, "Conditional generative adversarial nets": both networks
are told the class, beside the latents and beside the pixels. As
vanilla_mnist.py otherwise.

  python launch.py --config=experiments/cgan_digits.py

A sample of each class: run.sample(10, labels=range(10)).
"""

from ml_collections import ConfigDict

from experiments import vanilla_mnist


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop."""
  config = vanilla_mnist.get_config(arg)
  config.data.classes = 10
  config.evaluation.labels = 'data'  # of samples; or 'uniform'
  return config
