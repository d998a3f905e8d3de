"""ESRGAN: super-resolution with dense blocks and a relativistic critic.

Wang et al. 2018, "ESRGAN: Enhanced super-resolution generative adversarial
networks", with the settings of BasicSR: 23 residual-in-residual dense blocks,
and relativistic average losses. The stages and the data are those of
srgan_folder.py:

  python launch.py --config=experiments/esrgan_folder.py:psnr \
    --config.data.source=patches:/path/to/photographs
  python launch.py --config=experiments/esrgan_folder.py \
    --config.data.source=patches:/path/to/photographs \
    --init=runs/esrgan_folder-psnr-HASH
"""

from ml_collections import ConfigDict

from experiments import srgan_folder


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config of the GAN stage.

  'psnr': the first stage. 'tiny': seconds on a laptop, with digits.
  """
  config = srgan_folder.get_config(arg)
  config.game.loss = ConfigDict({'name': 'relativistic_average'})
  config.model.gen = ConfigDict(
    {'name': 'rrdb', 'features': 64, 'num_blocks': 23, 'growth': 32}
  )
  if arg == 'tiny':
    config.model.gen.features = 4
    config.model.gen.num_blocks = 1
    config.model.gen.growth = 2
  return config
