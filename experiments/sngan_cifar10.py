"""SNGAN on CIFAR-10: spectral normalization, hinge loss, residual networks.

Miyato et al. 2018, "Spectral normalization for generative adversarial
networks": G 256 wide, D 128, 5 updates of D for one of G, batches of 64 (D) and
128 (G), Adam 2e-4 (0, 0.9) with a rate that falls to 0 over 50,000 updates of
G.

  python launch.py --config=experiments/sngan_cifar10.py

The command finds or downloads the images as in dcgan_cifar10.py. A published
FID: 16.8 (mimicry: 50,000 samples, after 100,000 updates of G). Speed: 60
updates of G a second on an H100 in bfloat16. Scores by other features are in
docs/results/cifar10.md; they use a moving average of G, which the paper does
not have (`ema_halflife_images`).
"""

from ml_collections import ConfigDict

from experiments import dcgan_celeba


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = dcgan_celeba.get_config(arg)
  config.batch_size = 8 if arg == 'tiny' else 64
  config.gen_batch_size = 16 if arg == 'tiny' else 128
  config.disc_steps = 2 if arg == 'tiny' else 5
  steps = 8 if arg == 'tiny' else 50_000
  config.total_images = steps * config.batch_size * config.disc_steps
  falling = ('linear', 1.0, 0.0)  # to the end of the run
  config.schedule = (
    {
      'gen_learning_rate_factor': falling,
      'disc_learning_rate_factor': falling,
    },
  )
  adam = {'name': 'adam', 'learning_rate': 2e-4, 'b1': 0.0, 'b2': 0.9}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})

  config.game.loss = ConfigDict({'name': 'hinge'})
  config.game.latent_dim = 128
  config.model.gen = ConfigDict(
    {'name': 'resnet', 'features': (256, 256, 256, 256)}
  )
  config.model.disc = ConfigDict(
    {
      'name': 'resnet',
      'features': (128, 128, 128, 128),
      'num_downsamples': 2,
      'pool': 'sum',
      'spectral': True,
    }
  )
  config.data.flip = False
  if arg == 'tiny':
    config.model.gen.features = (16, 16, 8)
    config.model.disc.features = (8, 16)
    config.checkpoint_every_images = 32
    config.sample_every_images = 64
    return config
  config.data.source = 'cifar10'
  config.data.split = 'train'
  config.data.crop = None
  config.data.resolution = 32
  return config
