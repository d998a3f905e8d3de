"""WGAN-GP on CIFAR-10: gradient penalty, residual networks.

Gulrajani et al. 2017, "Improved training of Wasserstein GANs": both networks
128 wide, no normalization in the critic, penalty weight 10, 5 updates of the
critic for one of G, batches of 64 (critic) and 128 (G), Adam 2e-4 (0, 0.9) with
a rate that falls to 0 over 100,000 updates of G.

  python launch.py --config=experiments/wgangp_cifar10.py

The command finds or downloads the images as in dcgan_cifar10.py. (The reference
code adds U(0, 1/128) to the reals; this code does not.) A published FID: 22.3
(mimicry). Speed: 60 updates of G a second on an H100 in bfloat16. Scores are in
docs/results/cifar10.md; they use a moving average of G, which the paper does
not have (`ema_halflife_images`).
"""

from ml_collections import ConfigDict

from experiments import sngan_cifar10


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = sngan_cifar10.get_config(arg)
  config.game.loss.name = 'wasserstein'
  config.game.penalties = ConfigDict(
    {
      'gradient_penalty': {
        'weight': 10.0,
        'target': 1.0,
        'one_sided': False,
        'every': 1,
      }
    }
  )
  config.model.disc.spectral = False
  config.model.disc.pool = 'mean'
  if arg != 'tiny':
    config.model.gen.features = (128, 128, 128, 128)
    config.total_images = 100_000 * config.batch_size * config.disc_steps
  return config
