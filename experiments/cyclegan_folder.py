"""CycleGAN: translates between two folders of images without pairs.

Zhu et al. 2017, "Unpaired image-to-image translation using cycle-consistent
adversarial networks": two residual generators of 9 blocks, two 70x70 PatchGAN
critics, least squares, cycle weights 10, identity losses half as strong, pools
of 50 earlier fakes, Adam 2e-4 (0.5, 0.999), batches of one image, images
loaded at 286 pixels, cropped at random to 256 and mirrored, and a learning rate
that falls to 0 in the second half of the run.

  python launch.py --config=experiments/cyclegan_folder.py \
    --config.data.a=folder:/path/to/horses \
    --config.data.b=folder:/path/to/zebras

For 128x128 images, set --config.data.resolution=128
--config.data.load_resolution=143 --config.model.gen.num_blocks=6. The length is
200 epochs of the paper's 1,334 zebras. Samples and scores use a moving average
of the generators, which the paper does not have (`ema_halflife_images`).
`run.translate(images, to='b')` translates images, and --mode=apply folders.
"""

from ml_collections import ConfigDict, config_dict

from experiments.base import base_config


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  if arg not in ('', 'tiny'):
    raise ValueError(f"unknown argument {arg!r} (valid: 'tiny')")
  config = base_config()
  config.batch_size = 1
  config.total_images = 2 * 133_400
  config.ema_halflife_images = 1_000
  falling = ('linear', 1.0, 0.0)  # to the end of the run
  config.schedule = (
    {'images': 133_400},
    {
      'gen_learning_rate_factor': falling,
      'disc_learning_rate_factor': falling,
    },
  )
  config.log_every_steps = 100
  config.sample_every_images = 5_000
  config.checkpoint_every_images = 10_000
  config.evaluation.every_images = 26_680
  config.evaluation.num_samples = 1_000

  config.data.source = config_dict.placeholder(str)
  config.data.a = 'folder:'
  config.data.b = 'folder:'
  config.data.load_resolution = 286
  config.data.resolution = 256
  config.data.flip = True

  config.game = ConfigDict(
    {
      'name': 'cyclegan',
      'loss': {
        'name': 'least_squares_half',
        'real_label': 1.0,
        'fake_label': 0.0,
        'target_label': 1.0,
      },
      'cycle_a': 10.0,
      'cycle_b': 10.0,
      'identity': 0.5,
      'pool_size': 50,
    }
  )
  config.model.gen = ConfigDict(
    {'name': 'translation_resnet', 'features': 64, 'num_blocks': 9}
  )
  config.model.disc = ConfigDict(
    {
      'name': 'patchgan',
      'features': 64,
      'num_downsamples': 3,
      'norm': 'instance',
    }
  )
  adam = {'name': 'adam', 'learning_rate': 2e-4, 'b1': 0.5, 'b2': 0.999}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})

  if arg == 'tiny':
    config.data.a = config.data.b = 'digits'
    config.data.channels = 1
    config.data.load_resolution = 18
    config.data.resolution = 16
    config.game.pool_size = 6
    config.model.gen.features = 4
    config.model.gen.num_blocks = 1
    config.model.disc.features = 4
    config.model.disc.num_downsamples = 1
    config.batch_size = 4
    config.steps_per_dispatch = 1
    config.total_images = 4 * 12
    config.schedule = (
      {'images': 4 * 6},
      {
        'gen_learning_rate_factor': falling,
        'disc_learning_rate_factor': falling,
      },
    )
    config.log_every_steps = 2
    config.sample_every_images = 4 * 6
    config.checkpoint_every_images = 4 * 4
    config.evaluation.every_images = None
  return config
