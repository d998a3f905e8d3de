"""BigGAN: hierarchical latents, a shared class embedding, self-attention.

Brock et al. 2019, "Large scale GAN training for high fidelity natural image
synthesis", with the settings of StudioGAN, which for ImageNet are those of the
paper. The argument is the data set:

| argument | classes | batch | D updates | learning rates | G updates |
|---|---|---|---|---|---|
| cifar10 (default) | 10 | 64 | 5 | 2e-4 | 100,000 |
| imagenet128 | 1000 | 2048 | 2 | 5e-5 (G), 2e-4 (D) | 200,000 |

  python launch.py --config=experiments/biggan.py
  python launch.py --config=experiments/biggan.py:imagenet128 \
    --config.data.source=folder:/path/to/imagenet/train

The sub-folders of ImageNet are the classes. The average of G, with a decay of
0.9999 for each update of G, begins after 1,000 (ImageNet: 20,000) updates. The
weight of the paper's orthogonal regularization is 1e-4; StudioGAN has none, and
neither has this config (`game.gen_penalties.orthogonal.weight`): without it,
truncation may spoil samples (section 3.1).

The paper trained on 128 to 512 cores of a TPU v3. BatchNorm statistics are
those of all devices, there and here. Published FIDs: 4.2 (CIFAR-10, StudioGAN),
8.7 (ImageNet, the paper). Scores of this code: not measured yet.
"""

from ml_collections import ConfigDict

from experiments.base import base_config

# Half-life of an average whose decay is 0.9999, in updates: ln .5 / ln .9999.
HALFLIFE_UPDATES = 6931.1


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg: the data set, or 'tiny': seconds, with digits."""
  arg = arg or 'cifar10'
  if arg not in ('cifar10', 'imagenet128', 'tiny'):
    raise ValueError(
      f'unknown argument {arg!r} (valid: cifar10, imagenet128, tiny)'
    )
  config = base_config()
  config.game.loss = ConfigDict({'name': 'hinge'})
  config.game.gen_penalties = ConfigDict({'orthogonal': {'weight': 0.0}})
  config.data.flip = True
  config.evaluation.labels = 'data'  # or 'uniform'
  config.model.gen = ConfigDict(
    {
      'name': 'biggan',
      'shared_dim': 128,
      'spectral': True,
      'initializer': 'orthogonal',
    }
  )
  config.model.disc = ConfigDict(
    {
      'name': 'resnet',
      'wide': True,
      'spectral': True,
      'pool': 'sum',
      'initializer': 'orthogonal',
    }
  )
  {'cifar10': _cifar10, 'imagenet128': _imagenet128, 'tiny': _tiny}[arg](config)
  return config


def _train(
  config: ConfigDict,
  batch_size: int,
  disc_steps: int,
  updates: int,
  ema_start: int,
) -> None:
  """Sets the batches and the length; `updates` are those of G."""
  config.batch_size = batch_size
  config.gen_batch_size = batch_size  # G's own latents
  config.disc_steps = disc_steps
  images = batch_size * disc_steps
  config.total_images = updates * images
  config.ema_halflife_images = round(HALFLIFE_UPDATES * images)
  config.ema_rampup = None
  copied = {'images': ema_start * images, 'values': {'ema_halflife_images': 0}}
  config.schedule = (copied, {})


def _optimize(config: ConfigDict, gen: float, disc: float, b1: float) -> None:
  """Sets Adam with the learning rates of both players."""
  adam = {'name': 'adam', 'b1': b1, 'b2': 0.999, 'eps': 1e-6}
  config.optimizer = ConfigDict(
    {
      'gen': {**adam, 'learning_rate': gen},
      'disc': {**adam, 'learning_rate': disc},
    }
  )


def _cifar10(config: ConfigDict) -> None:
  _train(config, 64, 5, 100_000, ema_start=1_000)
  _optimize(config, 2e-4, 2e-4, b1=0.5)
  config.sample_every_images = 1_000_000
  config.checkpoint_every_images = 1_000_000
  config.evaluation.every_images = 2_000_000
  config.evaluation.num_samples = 50_000
  config.data.source = 'cifar10'
  config.data.split = 'train'
  config.data.resolution = 32
  config.data.classes = 10
  config.game.latent_dim = 80
  config.model.gen.features = 4 * (384,)
  config.model.gen.attention = (16,)
  config.model.disc.features = 4 * (192,)
  config.model.disc.num_downsamples = 2
  config.model.disc.attention = (16,)


def _imagenet128(config: ConfigDict) -> None:
  _train(config, 2048, 2, 200_000, ema_start=20_000)
  _optimize(config, 5e-5, 2e-4, b1=0.0)
  config.precision = 'bfloat16'
  config.steps_per_dispatch = 1
  config.sample_every_images = 4_000_000
  config.checkpoint_every_images = 4_000_000
  config.evaluation.every_images = 20_000_000
  config.evaluation.num_samples = 50_000
  config.data.source = 'folder:'
  config.data.resolution = 128
  config.data.classes = 1000
  config.game.latent_dim = 120
  config.model.gen.features = (1536, 1536, 768, 384, 192, 96)
  config.model.gen.attention = (64,)
  config.model.disc.features = (96, 192, 384, 768, 1536, 1536)
  config.model.disc.num_downsamples = 5
  config.model.disc.attention = (64,)


def _tiny(config: ConfigDict) -> None:
  _train(config, 8, 2, 8, ema_start=2)
  _optimize(config, 2e-4, 2e-4, b1=0.5)
  config.steps_per_dispatch = 1
  config.log_every_steps = 2
  config.sample_every_images = 64
  config.checkpoint_every_images = 32
  config.data.source = 'digits'
  config.data.channels = 1
  config.data.resolution = 16
  config.data.classes = 10
  config.game.latent_dim = 12
  config.model.gen.shared_dim = 6
  config.model.gen.features = (8, 8, 8)
  config.model.gen.attention = (8,)
  config.model.disc.features = (8, 12)
  config.model.disc.num_downsamples = 1
  config.model.disc.attention = (8,)
