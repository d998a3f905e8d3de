"""StyleGAN2 with adaptive augmentation, on any folder of images.

Karras et al. 2020a, "Analyzing and improving the image quality of StyleGAN",
and 2020b, "Training generative adversarial networks with limited data" (ADA).
The settings are those of the authors' PyTorch code:

  python launch.py --config=experiments/stylegan2.py:auto128 \
    --config.data.source=folder:/path/to/images

| argument | for |
|---|---|
| auto16 ... auto1024 | the resolution, by the authors' rules for one GPU |
| paper256, paper512, paper1024 | ADA's experiments |
| stylegan2 | config F of StyleGAN2, 1024x1024, without augmentation |
| cifar | CIFAR-10, unconditional: orig D, no path length, no mixing |
| tiny | seconds on a laptop, with digits |

Without an argument: auto256. `auto` derives the weight of R1 and the half-life
of the average from the batch size, also if a flag changes it. Learning rates
are corrected for the lazy penalties (`lazy_interval`).

Differences from the authors' code: low precision is bfloat16, and only with
  --config.precision=bfloat16
(the 4 highest resolutions; losses and statistics stay float32). The average of
w moves once in an iteration, not in each pass of G. The path length penalty
uses the latents of the step. D is updated before G.

Time and score of the full runs: not measured yet.
"""

from ml_collections import ConfigDict

from experiments.base import base_config

# batch size, group of the minibatch standard deviation, features, learning
# rate, weight of R1, half-life of the average in kimg, its ramp-up, layers of
# the mapping network, resolution.
SETTINGS = {
  'stylegan2': (32, 4, 32768, 2e-3, 10.0, 10, None, 8, 1024),
  'paper256': (64, 8, 16384, 2.5e-3, 1.0, 20, None, 8, 256),
  'paper512': (64, 8, 32768, 2.5e-3, 0.5, 20, None, 8, 512),
  'paper1024': (32, 4, 32768, 2e-3, 2.0, 10, None, 8, 1024),
  'cifar': (64, 32, 32768, 2.5e-3, 0.01, 500, 0.05, 2, 32),
}
AUTO = {f'auto{2**k}': 2**k for k in range(4, 11)}


def automatic(resolution: int) -> tuple:
  """Returns the settings of a resolution, by the rules for one GPU."""
  batch_size = max(min(4096 // resolution, 32), 1)
  features = 32768 if resolution >= 512 else 16384
  rate = 2e-3 if resolution >= 1024 else 2.5e-3
  gamma = 2e-4 * resolution**2 / batch_size
  half_life = 10 / 32 * batch_size
  group = min(batch_size, 4)
  return (
    batch_size, group, features, rate, gamma, half_life, 0.05, 2, resolution
  )  # fmt: skip


def networks(features: int, group: int, mapping_layers: int) -> ConfigDict:
  """Returns the block of both networks."""
  network = {
    'name': 'style',
    'features': features,  # of a resolution: min(features // resolution, 512)
    'most_features': 512,
    'clamp': 256.0,
    'lowprec': 4,
  }
  gen = {
    'architecture': 'skip',
    'w_dim': 512,
    'mapping_layers': mapping_layers,
    'w_decay': 0.995,
    'mixing': 0.9,
    'fused': False,  # the form of modulated convolutions
  }
  disc = {'architecture': 'resnet', 'group': group, 'stddev_channels': 1}
  return ConfigDict({'gen': {**network, **gen}, 'disc': {**network, **disc}})


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; see the table above for `arg`."""
  arg = {'': 'auto256', 'auto': 'auto256'}.get(arg, arg)
  if arg not in (*SETTINGS, *AUTO, 'tiny'):
    valid = "'auto', 'auto128', " + ', '.join(map(repr, [*SETTINGS, 'tiny']))
    raise ValueError(f'unknown argument {arg!r} (valid: {valid})')
  settings = SETTINGS[arg] if arg in SETTINGS else automatic(AUTO.get(arg, 8))
  (
    batch_size, group, features, rate, gamma, kimg, rampup, layers, resolution
  ) = settings  # fmt: skip
  config = base_config()
  config.batch_size = batch_size
  config.gen_batch_size = config.get_ref('batch_size')  # own fakes
  config.steps_per_dispatch = 4
  config.total_images = 100_000_000 if arg == 'cifar' else 25_000_000
  config.ema_halflife_images = round(1000 * kimg)
  config.ema_rampup = rampup

  config.log_every_steps = 50
  config.sample_every_images = 200_000
  config.checkpoint_every_images = 200_000
  config.evaluation.every_images = 1_000_000
  config.evaluation.num_samples = 50_000
  config.evaluation.metrics = ('fid',)

  config.data.source = 'cifar10' if arg == 'cifar' else 'folder:'
  config.data.resolution = resolution

  config.game.name = 'style'
  config.game.latent_dim = 512
  config.game.penalties = ConfigDict({'r1': {'weight': gamma, 'every': 16}})
  path_length = {'weight': 2.0, 'every': 4, 'decay': 0.01, 'batch_shrink': 2}
  config.game.gen_penalties = ConfigDict({'path_length': path_length})
  config.game.ada = ConfigDict({'pipeline': 'bgc', 'target': 0.6})
  config.game.ada.adjust_images = 500_000

  config.model = networks(features, group, layers)
  adam = {'name': 'adam', 'learning_rate': rate, 'b1': 0.0, 'b2': 0.99}
  adam['eps'] = 1e-8
  config.optimizer = ConfigDict(
    {
      'gen': {**adam, 'lazy_interval': 4},
      'disc': {**adam, 'lazy_interval': 16},
    }
  )

  if arg in AUTO:  # as flags may change the batch size
    batch_size = config.get_ref('batch_size')
    weight = 2e-4 * resolution**2 / batch_size.to_float()
    config.game.penalties.r1.weight = weight
    config.ema_halflife_images = 10_000 * batch_size // 32
  if arg == 'stylegan2':
    del config.game.ada
  if arg == 'cifar':
    config.game.gen_penalties.path_length.weight = 0.0
    config.model.gen.mixing = 0.0
    config.model.disc.architecture = 'orig'
  if arg == 'tiny':
    make_tiny(config)
  return config


def make_tiny(config: ConfigDict) -> None:
  """Makes the config one of seconds on a laptop, with digits."""
  make_small(config)
  config.game.ada.pipeline = 'b'
  config.game.ada.adjust_images = 1000
  config.game.penalties.r1.every = config.optimizer.disc.lazy_interval = 4
  config.game.gen_penalties.path_length.every = 2
  config.optimizer.gen.lazy_interval = 2


def make_small(config: ConfigDict) -> None:
  """Makes networks and run small, for digits."""
  config.data.source = 'digits'
  config.evaluation.every_images = None
  config.data.resolution = 8
  config.game.latent_dim = config.model.gen.w_dim = 16
  config.model.gen.mapping_layers = 1
  config.model.gen.features = config.model.disc.features = 64
  config.model.gen.most_features = config.model.disc.most_features = 8
  config.batch_size = config.gen_batch_size = 8
  config.ema_halflife_images = 100
  config.steps_per_dispatch = 1
  config.total_images = 8 * 12
  config.log_every_steps = 2
  config.sample_every_images = 8 * 6
  config.checkpoint_every_images = 8 * 4
