"""Our step, as `launch.py` trains it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from turns import take_turns

from experiments import dcgan_celeba, vanilla_mnist
from gan_jax import devices
from gan_jax.modes import dispatch_timer

family, batch, precision = sys.argv[1:]
config = {'mlp': vanilla_mnist, 'dcgan64': dcgan_celeba}[family].get_config()
if family == 'mlp':
  config.model.disc.dropout = 0.3
config.batch_size, config.precision = int(batch), precision
devices.keep_compiled()
source = dispatch_timer.generate(config)
timed = dispatch_timer.prepare(config, source)
fed = dispatch_timer.feed_dispatches(config, source)
take_turns(lambda: timed.play(next(fed)), timed.wait, timed.images)
