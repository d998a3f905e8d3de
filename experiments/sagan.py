"""SAGAN: self-attention, and spectral normalization in both networks.

Zhang et al. 2019, "Self-attention generative adversarial networks", with the
settings of StudioGAN. The argument is the data set:

| argument | classes | batch | D updates | learning rates | G updates |
|---|---|---|---|---|---|
| cifar10 (default) | 10 | 64 | 5 | 2e-4 | 100,000 |
| imagenet128 | 1000 | 256 | 1 | 1e-4 (G), 4e-4 (D) | 1,000,000 |

  python launch.py --config=experiments/sagan.py
  python launch.py --config=experiments/sagan.py:imagenet128 \
    --config.data.source=folder:/path/to/imagenet/train

The gains and biases of G's conditional BatchNorm have no spectral
normalization, as in the authors' code; in StudioGAN they have.

A published FID: 18.3 (ImageNet, the paper). Scores of this code: not measured
yet. They use a moving average of G, which the paper does not have
(`ema_halflife_images`).
"""

from ml_collections import ConfigDict

from experiments import biggan


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg: the data set, or 'tiny': seconds, with digits."""
  arg = arg or 'cifar10'
  config = biggan.get_config(arg)
  del config.game.gen_penalties
  del config.schedule
  config.model.gen.name = 'resnet'
  del config.model.gen.shared_dim
  config.ema_halflife_images = 10_000
  config.ema_rampup = 0.05
  config.optimizer.gen.eps = config.optimizer.disc.eps = 1e-8
  if arg == 'cifar10':
    config.game.latent_dim = 128
    config.model.gen.features = 4 * (256,)
    config.model.disc.features = 4 * (128,)
  if arg == 'imagenet128':
    config.batch_size = config.gen_batch_size = 256
    config.disc_steps = 1
    config.total_images = 1_000_000 * 256
    config.precision = 'float32'
    config.steps_per_dispatch = 4
    config.optimizer.gen.learning_rate = 1e-4
    config.optimizer.disc.learning_rate = 4e-4
    config.game.latent_dim = 128
    config.model.gen.features = (1024, 1024, 512, 256, 128, 64)
    config.model.disc.features = (64, 128, 256, 512, 1024, 1024)
  return config
