"""The conditional GAN on 5,000 MNIST digits; no download is needed.

Mirza & Osindero 2014, "Conditional generative adversarial nets": the class is a
further input of both networks, beside the latents and beside the pixels. All
other settings are those of vanilla_mnist.py.

  python launch.py --config=experiments/cgan_digits.py

A sample of each class: run.sample(10, labels=range(10)).
"""

from ml_collections import ConfigDict

from experiments import vanilla_mnist


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = vanilla_mnist.get_config(arg)
  config.data.classes = 10
  config.evaluation.labels = 'data'  # or 'uniform'
  return config
