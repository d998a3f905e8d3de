"""pix2pix on facades: from label maps to photographs, and back.

Isola et al. 2017, "Image-to-image translation with conditional adversarial
networks": a U-Net whose noise is dropout, a 70x70 PatchGAN that sees both
images of a pair, cross-entropy with D's loss halved, an L1 loss of weight 100,
Adam 2e-4 (0.5, 0.999), batches of one pair, pairs loaded at 286 pixels, cropped
at random to 256 and mirrored, 200 epochs of the 400 training pairs.

  python launch.py --config=experiments/pix2pix_facades.py \
    --config.data.source='pairs:/path/to/facades/{split}'

The folders train and test hold files with the photograph (a) on the left and
the label map (b) on the right. Two folders of images with equal names are pairs
too: pairs:A,B. The other direction is --config.game.direction=a_to_b.

For 64x64 images, set --config.data.resolution=64
--config.data.load_resolution=72 --config.model.gen.num_downsamples=6
--config.model.disc.num_downsamples=2. Instance norm is, for one pair, the batch
norm of the paper without gain and bias, and the same in training and
evaluation.
"""

from ml_collections import ConfigDict

from experiments import cyclegan_folder


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = cyclegan_folder.get_config(arg)
  config.data.a = config.data.b = None
  config.data.source = 'pairs:facades/{split}'
  config.data.split = 'train'
  config.evaluation.held_out = 'test'
  config.game = ConfigDict(
    {
      'name': 'pix2pix',
      'loss': {'name': 'non_saturating_half', 'real_label': 1.0},
      'pixel': 100.0,
      'direction': 'b_to_a',
    }
  )
  config.model.gen = ConfigDict(
    {
      'name': 'unet',
      'features': 64,
      'num_downsamples': 8,
      'norm': 'instance',
      'dropout': 0.5,
    }
  )
  if arg == 'tiny':
    config.data.source = 'digit_pairs'
    config.data.split = 'all'
    config.evaluation.held_out = None
    config.game.direction = 'a_to_b'
    config.model.gen.features = 4
    config.model.gen.num_downsamples = 3
    return config
  falling = ('linear', 1.0, 0.0)  # to the end of the run
  config.total_images = 200 * 400
  config.schedule = (
    {'images': 100 * 400},
    {
      'gen_learning_rate_factor': falling,
      'disc_learning_rate_factor': falling,
    },
  )
  config.sample_every_images = 2_000
  config.checkpoint_every_images = 8_000
  config.evaluation.every_images = 8_000
  return config
