"""Times the train step of this project, as `launch.py` compiles it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from turns import take_turns

from experiments import (
  cyclegan_folder,
  dcgan_celeba,
  esrgan_folder,
  stylegan2,
  vanilla_mnist,
)
from gan_jax import compile_cache
from gan_jax.modes import dispatch_timer

family, batch, precision = sys.argv[1:]
if family == 'mlp':
  config = vanilla_mnist.get_config()
  config.model.disc.dropout = 0.3
elif family == 'dcgan64':
  config = dcgan_celeba.get_config()
elif family == 'cyclegan64':
  config = cyclegan_folder.get_config()
  config.data.load_resolution, config.data.resolution = 72, 64
  config.model.gen.num_blocks = 6
elif family == 'rrdb':
  config = esrgan_folder.get_config('psnr')
  config.data.load_resolution, config.data.resolution = 64, 32
else:
  config = stylegan2.get_config('auto64')
  config.model.gen.features = config.model.disc.features = 2048
  del config.game.ada
  config.steps_per_dispatch = 16
  if family == 'stylegan64':
    del config.game.penalties.r1, config.game.gen_penalties.path_length
    config.steps_per_dispatch = 4
config.batch_size, config.precision = int(batch), precision
compile_cache.enable()
source = dispatch_timer.generated_source(config)
timed = dispatch_timer.compile_dispatch(config, source)
batches = dispatch_timer.dispatch_batches(config, source)
take_turns(lambda: timed.start(next(batches)), timed.wait, timed.images)
