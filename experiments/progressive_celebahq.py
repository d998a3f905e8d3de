"""Progressive growing on CelebA-HQ to 1024x1024.

Karras et al. 2018, "Progressive growing of GANs for improved quality,
stability, and variation": both networks begin at 4x4, and a layer of twice the
resolution fades in after every 600,000 images. WGAN-GP with a small drift
penalty, minibatch standard deviation, weights scaled by He's constant at run
time, pixel norm; Adam without momentum, reset at each stage.

  python launch.py --config=experiments/progressive_celebahq.py

The command reads CelebA-HQ as prepared by TFDS (the TFDS page of celeb_a_hq
describes how to make the 30,000 images; then run `--mode=prepare`), or any
folder of images:
  --config.data.source=folder:/path/to/images
The batch sizes are those of the paper, on one device, and the minibatch
standard deviation is taken over the whole batch. The lengths of the stages (the
paper has 800,000 images) and the learning rate at 1024x1024 are those of the
authors' later implementation; `:many` has its batch sizes and learning rates
for eight devices, and groups of 4. G's update uses its own fakes, as many as
D's. The half-life of G's moving average is given in images; it equals the
paper's .999 per iteration at batch size 16. Each of these is a key and a flag:
--config.growth.at_1024.batch_size, --config.growth.fade_images, and so on.
`--mode=benchmark` estimates the time of each stage.

Loss: `--config.game.loss.name=non_saturating`, with R1 instead of WGAN-GP:
  --config.game.penalties.gradient_penalty.weight=0
  --config.game.penalties.drift.weight=0 --config.game.penalties.r1.weight=10

Memory: at 1024x1024 a step takes 1.3 GB plus 3.0 GB per image (bfloat16: 0.9
and 2.5), as XLA plans it for a CPU. JAX reserves three quarters of a device's
memory by default, which allows these batch sizes:
  16 GB   3 (bfloat16:  4)
  40 GB   9 (bfloat16: 11)
  80 GB  19 (bfloat16: 23)
These are not measured on an accelerator yet. With `remat`, D's passes keep
1.1 GB per image for their gradients instead of 2.7, and G's passes .2 instead
of 1.1 (bfloat16: .6 instead of 1.5, and .1 instead of .7); an iteration needs
40% more computation:
  --config.model.gen.remat=True --config.model.disc.remat=True

Time and score of the full run: not measured yet.
"""

from ml_collections import ConfigDict

from experiments.base import base_config

# For each argument and resolution: the batch size, and a factor for both
# learning rates.
SETTINGS = {
  '': {
    4: (16, 1.0),
    8: (16, 1.0),
    16: (16, 1.0),
    32: (16, 1.0),
    64: (16, 1.0),
    128: (16, 1.0),
    256: (14, 1.0),
    512: (6, 1.0),
    1024: (3, 1.5),
  },
  'many': {
    4: (512, 1.0),
    8: (256, 1.0),
    16: (128, 1.0),
    32: (64, 1.0),
    64: (32, 1.0),
    128: (32, 1.5),
    256: (32, 2.0),
    512: (32, 3.0),
    1024: (32, 3.0),
  },
  'tiny': {4: (32, 1.0), 8: (16, 1.0), 16: (8, 1.0)},
}


def growth(
  resolution: int, stage_images: int, last_images: int, arg: str = ''
) -> ConfigDict:
  """Returns the keys to which the schedule refers.

  Args:
    resolution: The resolution of the last stage.
    stage_images: The images of a stage, fading in or stable.
    last_images: The images of the last stage.
    arg: A key of SETTINGS.
  """
  block = ConfigDict()
  block.stable_images = stage_images
  block.fade_images = stage_images
  block.last_images = last_images
  for side, (batch_size, factor) in SETTINGS[arg].items():
    if side <= resolution:
      block[f'at_{side}'] = ConfigDict(
        {'batch_size': batch_size, 'learning_rate_factor': factor}
      )
  return block


def grow(resolution: int) -> tuple[dict, ...]:
  """Returns the schedule: 4x4, then each resolution, fading in and stable.

  Stage 2k has 4 * 2^k pixels and is stable; in stage 2k - 1, the same
  resolution fades in.
  """

  def segment(stage: int, side: int, images: str) -> dict:
    return {
      'stage': stage,
      'images': f'growth.{images}',
      'batch_size': f'growth.at_{side}.batch_size',
      'gen_batch_size': f'growth.at_{side}.batch_size',  # own fakes
      'gen_learning_rate_factor': f'growth.at_{side}.learning_rate_factor',
      'disc_learning_rate_factor': f'growth.at_{side}.learning_rate_factor',
    }

  segments, stage, side = [segment(0, 4, 'stable_images')], 0, 4
  while side < resolution:
    stage, side = stage + 2, 2 * side
    fading = segment(stage - 1, side, 'fade_images')
    segments.append({**fading, 'values': {'alpha': ('linear', 0.0, 1.0)}})
    segments.append(segment(stage, side, 'stable_images'))
  segments[-1]['images'] = 'growth.last_images'
  return tuple(segments)


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'many': for 8 devices; 'tiny': to 16x16."""
  if arg not in SETTINGS:
    raise ValueError(f"unknown argument {arg!r} (valid: 'many', 'tiny')")
  config = base_config()
  config.growth = growth(
    1024, 600_000, 2_400_000, arg='' if arg == 'tiny' else arg
  )
  config.schedule = grow(1024)
  config.batch_size = 16  # (unused: see config.schedule)
  config.steps_per_dispatch = 1 if arg == 'many' else 4
  config.ema_halflife_images = 11_000  # .999 an iteration of 16
  config.ema_rampup = None

  config.log_every_steps = 100
  config.sample_every_images = 100_000
  config.checkpoint_every_images = 200_000
  config.checkpoints_to_keep = 2  # and the last of each stage
  config.evaluation.num_samples = 8_192
  config.evaluation.metrics = ('swd',)

  config.data.source = 'tfds:celeb_a_hq/1024'
  config.data.resolution = 1024
  config.data.flip = True

  config.game.name = 'progressive'
  config.game.latent_dim = 512
  config.game.loss = ConfigDict({'name': 'wasserstein'})
  config.game.penalties = ConfigDict(
    {
      'gradient_penalty': {
        'weight': 10.0,
        'target': 1.0,
        'one_sided': False,
        'every': 1,
      },
      'drift': {'weight': 1e-3, 'every': 1},
      'r1': {'weight': 0.0, 'every': 1},  # 0: off
    }
  )

  network = {
    'name': 'progressive',
    'features': 8192,  # min(features / 2^k, most_features) at 4 * 2^(k - 1)
    'most_features': 512,
    'remat': False,  # True: less memory, more computation
  }
  # Groups of the minibatch standard deviation; 16 is a whole batch.
  group = 4 if arg == 'many' else 16
  config.model = ConfigDict(
    {'gen': dict(network), 'disc': {**network, 'group': group}}
  )

  adam = {'name': 'adam', 'learning_rate': 1e-3, 'b1': 0.0, 'b2': 0.99}
  adam['eps'] = 1e-8
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})

  if arg == 'tiny':
    config.data.source = 'digits'
    config.data.resolution = 16
    config.growth = growth(16, 64, 64, arg)
    config.schedule = grow(16)
    config.model.gen.features = config.model.disc.features = 64
    config.model.gen.most_features = config.model.disc.most_features = 16
    config.game.latent_dim = 16
    config.steps_per_dispatch = 1
    config.log_every_steps = 2
    config.sample_every_images = 96
    config.checkpoint_every_images = 96
  return config
