"""The Wasserstein GAN on the digits of MNIST, at 32x32.

Arjovsky et al. 2017, "Wasserstein GAN": a critic whose weights are clipped to
+- 0.01, 5 steps of it for one of G (100 for each of the first 25; the reference
code has 100 again at every 500th), RMSprop 5e-5, batches of 64. The networks
are those of dcgan_mnist.py, the critic without BatchNorm.

  python launch.py --config=experiments/wgan_mnist.py

downloads the digits, or takes them from where they are, as dcgan_mnist.py says.
"""

from ml_collections import ConfigDict

from experiments import dcgan_mnist


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop, on embedded digits."""
  config = dcgan_mnist.get_config(arg)
  config.game.loss = ConfigDict({'name': 'wasserstein'})
  config.game.clip = 0.01
  config.model.disc.normalized = False
  rmsprop = {'name': 'rmsprop', 'learning_rate': 5e-5, 'decay': 0.99}
  config.optimizer = ConfigDict({'gen': dict(rmsprop), 'disc': dict(rmsprop)})
  config.disc_steps = 5
  config.batch_size = 16 if arg == 'tiny' else 64
  config.steps_per_dispatch = 1 if arg == 'tiny' else 5
  first, steps = (3, 2) if arg == 'tiny' else (100, 25)
  config.schedule = (
    {'images': steps * first * config.batch_size, 'disc_steps': first},
    {},
  )
  config.total_images = 16 * 5 * 12 if arg == 'tiny' else 64 * 5 * 50_000
  return config
