"""StyleGAN of 2019 on any folder of images, without progressive growing.

Karras et al. 2019, "A style-based generator architecture for generative
adversarial networks": a mapping network, AdaIN, noise in each layer, style
mixing. For new work use stylegan2.py, whose samples have no droplets; this is
the baseline, and the generator of the figure.

  python launch.py --config=experiments/stylegan.py:128 \
    --config.data.source=folder:/path/to/images

The argument is the resolution: 8, 16, ... 1024 (without one: 256), or 'tiny':
seconds on a laptop, with digits.

The settings are those of the authors' code for FFHQ: the non-saturating loss
with R1 of weight 10 in every step, Adam with a learning rate that depends on
the resolution, batches of 32. Differences from it: all layers train from the
start (its 'fixed' structure), without a smaller learning rate or larger batches
of low resolutions; D has filtered downsampling; the average of w moves once in
an iteration.

Time and score of the full runs: not measured yet.
"""

from ml_collections import ConfigDict

from experiments import stylegan2
from experiments.base import base_config

RATES = {128: 1.5e-3, 256: 2e-3, 512: 3e-3, 1024: 3e-3}  # below: 1e-3
RESOLUTIONS = {str(2**k): 2**k for k in range(3, 11)}


def networks() -> ConfigDict:
  """Returns the block of both networks."""
  width = {
    'features': 16384,  # of a resolution: min(features // resolution, 512)
    'most_features': 512,
  }
  gen = {
    'name': 'style_2019',
    'w_dim': 512,
    'mapping_layers': 8,
    'w_decay': 0.995,
    'mixing': 0.9,
  }
  disc = {
    'name': 'style',
    'architecture': 'orig',
    'group': 4,
    'stddev_channels': 1,
    'lowprec': 4,
  }
  return ConfigDict({'gen': {**width, **gen}, 'disc': {**width, **disc}})


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg: the resolution, or 'tiny'."""
  arg = arg or '256'
  if arg not in (*RESOLUTIONS, 'tiny'):
    valid = ', '.join(map(repr, [*RESOLUTIONS, 'tiny']))
    raise ValueError(f'unknown argument {arg!r} (valid: {valid})')
  resolution = RESOLUTIONS.get(arg, 8)
  config = base_config()
  config.batch_size = 32
  config.gen_batch_size = config.get_ref('batch_size')  # own fakes
  config.steps_per_dispatch = 4
  config.total_images = 25_000_000
  config.ema_halflife_images = 10_000
  config.ema_rampup = None

  config.log_every_steps = 50
  config.sample_every_images = 200_000
  config.checkpoint_every_images = 200_000
  config.evaluation.every_images = 1_000_000
  config.evaluation.num_samples = 50_000
  config.evaluation.metrics = ('fid',)

  config.data.source = 'folder:'
  config.data.resolution = resolution
  config.data.flip = True

  config.game.name = 'style'
  config.game.latent_dim = 512
  config.game.penalties = ConfigDict({'r1': {'weight': 10.0}})

  config.model = networks()
  adam = {'name': 'adam', 'learning_rate': RATES.get(resolution, 1e-3)}
  adam |= {'b1': 0.0, 'b2': 0.99, 'eps': 1e-8}
  config.optimizer = ConfigDict({'gen': {**adam}, 'disc': {**adam}})
  if arg == 'tiny':
    stylegan2.make_small(config)
    config.data.flip = False
  return config
