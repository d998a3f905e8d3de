"""The Wasserstein GAN on the digits of MNIST, at 32x32.

Arjovsky et al. 2017, "Wasserstein GAN": a critic with weights clipped to
+- 0.01, 5 updates of the critic for one of G (100 for each of the first 25
updates of G; the reference code also takes 100 at every 500th), RMSprop 5e-5,
batches of 64. The networks are those of dcgan_mnist.py, without BatchNorm in
the critic.

  python launch.py --config=experiments/wgan_mnist.py

The command finds or downloads the digits as in dcgan_mnist.py.
"""

from ml_collections import ConfigDict

from experiments import dcgan_mnist


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
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
