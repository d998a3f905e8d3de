"""SRGAN: super-resolution of a folder of photographs, 4 times per side.

Ledig et al. 2017, "Photo-realistic single image super-resolution using a
generative adversarial network", with the settings of BasicSR: SRResNet of 16
blocks, batches of 16 patches of 128x128, cropped at random from patches of 256,
mirrored and rotated. Small images are made by MATLAB's bicubic filter. It is
trained in two stages. The first minimizes the L1 error:

  python launch.py --config=experiments/srgan_folder.py:psnr \
    --config.data.source=patches:/path/to/photographs

The second adds a loss in the features of a frozen network and a GAN, and starts
from the generator of the first:

  python launch.py --config=experiments/srgan_folder.py \
    --config.data.source=patches:/path/to/photographs \
    --init=runs/srgan_folder-psnr-HASH

--config.game.scale=2 makes images twice as large. The features are those of a
small classifier of CIFAR-10; with --config.game.features=vgg19:FILE, where FILE
holds the weights of torchvision's VGG-19, they are those of the paper. Lengths
are BasicSR's: 1,000,000 and 400,000 iterations. `run.upscale(image)` enlarges
images of any size, and --mode=apply folders.
"""

from ml_collections import ConfigDict

from experiments.base import base_config


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config of the GAN stage.

  'psnr': the first stage. 'tiny': seconds on a laptop, with digits.
  """
  if arg not in ('', 'psnr', 'tiny'):
    raise ValueError(f"unknown argument {arg!r} (valid: 'psnr', 'tiny')")
  config = base_config()
  config.batch_size = 16
  config.total_images = 16 * 400_000
  halved = lambda factor: {
    'gen_learning_rate_factor': factor,
    'disc_learning_rate_factor': factor,
  }
  config.schedule = (
    {'images': 16 * 50_000},
    {'images': 16 * 50_000, **halved(0.5)},
    {'images': 16 * 100_000, **halved(0.25)},
    {'images': 16 * 100_000, **halved(0.125)},
    halved(0.0625),
  )
  config.ema_halflife_images = 16 * 693  # a decay of .999 per iteration
  config.log_every_steps = 100
  config.sample_every_images = 80_000
  config.checkpoint_every_images = 160_000
  config.evaluation.every_images = 320_000
  config.evaluation.num_samples = 200
  config.evaluation.metrics = ('psnr', 'ssim')

  config.data.source = 'patches:'
  config.data.load_resolution = 256
  config.data.resolution = 128
  config.data.flip = True
  config.data.rotate = True

  # BasicSR's weight of the pixels is 1e-2, for images in [0, 1].
  config.game = ConfigDict(
    {
      'name': 'super_resolution',
      'scale': 4,
      'loss': {'name': 'non_saturating', 'real_label': 1.0},
      'pixel_loss': 'l1',
      'pixel': 5e-3,
      'feature': 1.0,
      'features': 'cifar10',
      'adversarial': 5e-3,
    }
  )
  config.model.gen = ConfigDict(
    {'name': 'srresnet', 'features': 64, 'num_blocks': 16}
  )
  config.model.disc = ConfigDict({'name': 'vgg', 'features': 64})
  config.init.players = ('gen',)  # the first stage has no discriminator
  adam = {'name': 'adam', 'learning_rate': 1e-4, 'b1': 0.9, 'b2': 0.99}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})
  if arg == 'psnr':
    _psnr_stage(config)
  if arg == 'tiny':
    _tiny(config)
  return config


def _psnr_stage(config: ConfigDict) -> None:
  """Sets the first stage: the pixel loss alone."""
  config.game.pixel = 1.0
  config.game.feature = 0.0
  config.game.adversarial = 0.0
  config.optimizer.gen.learning_rate = 2e-4
  config.total_images = 16 * 1_000_000
  config.schedule = ({'gen_learning_rate_factor': ('cosine', 1.0, 5e-4)},)


def _tiny(config: ConfigDict) -> None:
  """Sets a run of seconds."""
  config.data.source = 'digits'
  config.data.channels = 1
  config.data.load_resolution = 20
  config.data.resolution = 16
  config.game.scale = 2
  config.model.gen.features = 4
  config.model.gen.num_blocks = 1
  config.model.disc.features = 4
  config.batch_size = 4
  config.steps_per_dispatch = 1
  config.total_images = 4 * 12
  config.schedule = (
    {'images': 4 * 6},
    {'gen_learning_rate_factor': 0.5, 'disc_learning_rate_factor': 0.5},
  )
  config.log_every_steps = 2
  config.sample_every_images = 4 * 6
  config.checkpoint_every_images = 4 * 4
  config.evaluation.every_images = None
