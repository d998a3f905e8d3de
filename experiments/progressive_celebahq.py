"""Progressive growing to 1024x1024 on CelebA-HQ.

Karras et al. 2018, "Progressive growing of GANs for improved quality,
stability, and variation": both networks begin at 4x4, and a layer of twice the
resolution fades in after every 600,000 images. WGAN-GP with a small drift
penalty, minibatch standard deviation, He's constant at run time, pixel norm;
Adam without momentum, reset with each stage.

  python launch.py --config=experiments/progressive_celebahq.py

reads what TFDS has prepared of CelebA-HQ (its page tells how the 30,000 images
come about; `--mode=prepare`), or any folder of it:
  --config.data.source=folder:/path/to/images
The batches are those of the paper, on one device, and the minibatch standard
deviation is that of a whole batch; the lengths of the stages (the paper:
800,000) and the rate at 1024x1024 are of its later implementation, of which
`:many` has the batches and rates on eight devices, and groups of 4. G has fakes
of its own, as many as D. The half-life of G's moving average is in images: .999
an iteration, as in the paper, is what it is at batch 16 only. Each is a key,
and a flag: --config.growth.at_1024.batch_size, --config.growth.fade_images, and
so on. `--mode=benchmark` tells how long each stage takes.

Loss: `--config.game.loss.name=non_saturating`, with R1 in place of WGAN-GP:
  --config.game.penalties.gradient_penalty.weight=0
  --config.game.penalties.drift.weight=0 --config.game.penalties.r1.weight=10

Memory: at 1024x1024 a step takes 1.3 GB and 3.0 GB an image (bfloat16: 0.9 and
2.5), as XLA plans it for a CPU; in the three quarters of a device's memory that
JAX takes by default this would be a batch of
  16 GB   3 (bfloat16:  4)
  40 GB   9 (bfloat16: 11)
  80 GB  19 (bfloat16: 23)
On an accelerator not yet measured. With `remat` what D's passes keep for their
gradients is 1.1 GB an image instead of 2.7, what G's keep .2 instead of 1.1
(bfloat16: .6 of 1.5, .1 of .7); an iteration is 40% more work:
  --config.model.gen.remat=True --config.model.disc.remat=True

Time and score of the full run: not yet measured.
"""

from ml_collections import ConfigDict, config_dict

# By the argument; resolution: batch size, and the factor by which both
# optimizers' learning rates are multiplied.
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
  """What the schedule calls by its key.

  Args:
    resolution: Of the last stage.
    stage_images: How long a stage lasts, fading in or stable.
    last_images: How long the last one lasts.
    arg: Of SETTINGS.
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
  """The schedule: 4x4, and then each resolution, fading in and stable.

  Stage 2k is 4 * 2^k pixels, stable; stage 2k - 1 is the same, fading in.
  """

  def segment(stage: int, side: int, images: str) -> dict:
    return {
      'stage': stage,
      'images': f'growth.{images}',
      'batch_size': f'growth.at_{side}.batch_size',
      'gen_batch_size': f'growth.at_{side}.batch_size',  # G's own fakes
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
  """The config; arg 'many': for 8 devices; 'tiny': to 16x16, in a minute."""
  if arg not in SETTINGS:
    raise ValueError(f"unknown argument {arg!r} (valid: 'many', 'tiny')")
  config = ConfigDict()
  config.seed = 0
  config.growth = growth(
    1024, 600_000, 2_400_000, arg='' if arg == 'tiny' else arg
  )
  config.schedule = grow(1024)
  config.batch_size = 16  # (the schedule has its own)
  config.gen_batch_size = config_dict.placeholder(int)  # (likewise)
  config.disc_steps = 1
  config.steps_per_dispatch = 1 if arg == 'many' else 4  # in a compiled call
  config.total_images = config_dict.placeholder(int)  # None: all stages
  config.ema_halflife_images = 11_000  # .999 an iteration of 16
  config.ema_rampup = config_dict.placeholder(float)
  config.precision = 'float32'
  config.parallel = 'jit'
  config.on_divergence = 'stop'  # or 'rollback'

  config.log_every_steps = 100
  config.sample_every_images = 100_000
  config.checkpoint_every_images = 200_000
  config.checkpoints_to_keep = 2  # and the last one of each stage
  config.wandb = False

  config.evaluation = ConfigDict(
    {
      'every_images': config_dict.placeholder(int),  # None: never
      'num_samples': 8_192,
      'metrics': ('swd',),
      'features': config_dict.placeholder(str),  # None: inception
      'held_out': config_dict.placeholder(str),  # a split
      'seeds': 1,
    }
  )

  config.data = ConfigDict()
  config.data.source = 'tfds:celeb_a_hq/1024'
  config.data.split = 'all'
  config.data.files = config_dict.placeholder(str)  # None: downloaded
  config.data.dir = config_dict.placeholder(str)  # None: TFDS_DATA_DIR
  config.data.crop = config_dict.placeholder(int)  # None: the largest square
  config.data.resolution = 1024
  config.data.channels = 3
  config.data.flip = True
  config.data.max_device_bytes = 4 * 2**30  # a larger set is streamed
  config.data.workers = config_dict.placeholder(int)  # None: as it needs

  config.game = ConfigDict()
  config.game.name = 'progressive'
  config.game.latent = 'gaussian'
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
      'r1': {'weight': 0.0, 'every': 1},  # 0: not in play
    }
  )

  network = {
    'name': 'progressive',
    'features': 8192,  # min(features / 2^k, most_features) at 4 * 2^(k - 1)
    'most_features': 512,
    'remat': False,  # True: less memory, more work
  }
  # Of the minibatch standard deviation: up to 16, a batch is one group.
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
