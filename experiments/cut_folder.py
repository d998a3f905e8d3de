"""CUT: translates a folder of images to another, in one direction.

Park et al. 2020, "Contrastive learning for unpaired image-to-image
translation": one residual generator of 9 blocks and one 70x70 PatchGAN, least
squares, and a contrastive loss of 256 patches in five layers of the generator's
encoder, temperature 0.07, of the given image and of the target set (equally
strong), 200 epochs and 200 more with a falling learning rate. The rest is as
for CycleGAN, without a pool, and less computation: no cycle, no second
generator.

  python launch.py --config=experiments/cut_folder.py \
    --config.data.a=folder:/path/to/horses \
    --config.data.b=folder:/path/to/zebras

The other direction is --config.game.direction=b_to_a. FastCUT of the paper is
--config.game.nce=10 --config.game.identity=0, without its flips. Settings of
smaller images are those of cyclegan_folder.py. The authors' networks have
blurred resampling (anti-aliasing), and these have not.
"""

from ml_collections import ConfigDict

from experiments import cyclegan_folder


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = cyclegan_folder.get_config(arg)
  config.game = ConfigDict(
    {
      'name': 'cut',
      'loss': config.game.loss.to_dict(),
      'direction': 'a_to_b',
      'nce': 0.5,
      'identity': 0.5,
      'temperature': 0.07,
      'patches': 256,
    }
  )
  if arg == 'tiny':
    return config
  falling = ('linear', 1.0, 0.0)  # to the end of the run
  config.total_images = 4 * 133_400
  config.schedule = (
    {'images': 2 * 133_400},
    {
      'gen_learning_rate_factor': falling,
      'disc_learning_rate_factor': falling,
    },
  )
  return config
