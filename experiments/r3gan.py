"""R3GAN: the relativistic pairing loss, R1 and R2, and grouped convolutions.

Huang et al. 2024, "The GAN is dead; long live the GAN! A modern baseline GAN",
with the settings of the authors' code (github.com/brownvc/R3GAN). The argument
is the data set:

| argument | classes | batch | widths from 4x4 up | gamma | half-life | p |
|---|---|---|---|---|---|---|
| cifar10 (default) | 10 | 512 | 768 x 4 | .05 to .005 | 5 M | .55 |
| ffhq64 | no | 256 | 768 x 4, 384 | 2 to .2 | .5 M | .3 |
| ffhq256 | no | 256 | 768 x 4, 384, 192, 96 | 150 to 15 | .5 M | .3 |
| imagenet32 | 1000 | 4096 | 1536 x 4 | .5 to .05 | 50 M | .5 |
| imagenet64 | 1000 | 4096 | 1536 x 5 | 1 to .1 | 50 M | .4 |

  python launch.py --config=experiments/r3gan.py:cifar10
  python launch.py --config=experiments/r3gan.py:ffhq64 \
    --config.data.source=folder:/path/to/ffhq

Gamma, the weight of R1 and R2, falls; the half-life of the average of G, in
images, and the probability p of augmentations rise from 0. They follow cosines
over 20 million images (ImageNet: 200 million), and so do the learning rate
(2e-4 to 5e-5) and beta2 of Adam (.9 to .99; beta1 is 0). After that the values
are constant. The authors train until the score is the best: continue a run with
a larger --config.total_images.

G and D are updated once each, on reals and fakes of their own. The penalties'
gradients are those with respect to images before augmentation. Images are
mirrored at random.

The authors used 8 (CIFAR-10, FFHQ), 32 (ImageNet 32x32) and 64 GPUs (64x64).
Published FIDs: 1.96 (CIFAR-10), 2.75 (FFHQ 256x256). Scores of this code: not
measured yet.
"""

from ml_collections import ConfigDict

from experiments.base import base_config

# (source, split, classes), the batch, the channels and the groups of the 3x3
# convolutions of both networks at 4x4, 8x8, ..., gamma at first (it falls to a
# tenth), the last half-life, the last p, and the images of the curves.
KEYS = (
  'data', 'batch_size', 'features', 'groups', 'gamma', 'halflife', 'p', 'images'
)  # fmt: skip
M = 1_000_000
CIFAR10 = ('cifar10', 'train', 10)
FOLDER = ('folder:', 'all', 0)
IMAGENET = ('train', 1000)
SETTINGS = {
  'cifar10': (
    CIFAR10, 512, (768,) * 4, (96,) * 4, 0.05, 5 * M, 0.55, 20 * M,
  ),
  'ffhq64': (
    FOLDER, 256, (768,) * 4 + (384,), (96,) * 4 + (48,), 2.0, M // 2, 0.3,
    20 * M,
  ),
  'ffhq256': (
    FOLDER, 256, (768,) * 4 + (384, 192, 96), (96,) * 4 + (48, 24, 12), 150.0,
    M // 2, 0.3, 20 * M,
  ),
  'imagenet32': (
    ('tfds:imagenet_resized/32x32', *IMAGENET), 4096, (1536,) * 4, (96,) * 4,
    0.5, 50 * M, 0.5, 200 * M,
  ),
  'imagenet64': (
    ('tfds:imagenet_resized/64x64', *IMAGENET), 4096, (1536,) * 5, (96,) * 5,
    1.0, 50 * M, 0.4, 200 * M,
  ),
  'tiny': (('digits', 'all', 10), 16, (8, 8), (2, 2), 0.05, 100, 0.5, 192),
}  # fmt: skip


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg: the data set, or 'tiny': seconds, with digits."""
  arg = arg or 'cifar10'
  if arg not in SETTINGS:
    raise ValueError(f'unknown argument {arg!r} (valid: {", ".join(SETTINGS)})')
  setting = ConfigDict(dict(zip(KEYS, SETTINGS[arg], strict=True)))
  source, split, classes = setting.data
  config = base_config()
  config.batch_size = setting.batch_size
  config.gen_batch_size = setting.batch_size  # G's own reals and fakes
  config.total_images = setting.images
  config.ema_halflife_images = setting.halflife
  config.ema_rampup = None  # the half-life has its own curve
  config.precision = 'bfloat16'  # in the top resolutions
  gamma = ('cosine', setting.gamma, setting.gamma / 10)
  rate, b2 = ('cosine', 1.0, 0.25), ('cosine', 0.9, 0.99)
  config.schedule = (
    {
      'images': setting.images,
      'gen_learning_rate_factor': rate,
      'disc_learning_rate_factor': rate,
      'values': {
        'optimizer.gen.b2': b2,
        'optimizer.disc.b2': b2,
        'game.penalties.r1.weight': gamma,
        'game.penalties.r2.weight': gamma,
        'game.ada.p': ('cosine', 0.0, setting.p),
        'ema_halflife_images': ('cosine', 0, setting.halflife),
      },
    },
  )

  config.log_every_steps = 50
  config.sample_every_images = 200_000
  config.checkpoint_every_images = 1_000_000
  config.evaluation.every_images = 1_000_000
  config.evaluation.num_samples = 50_000

  config.data.source = source
  config.data.split = split
  config.data.resolution = 4 * 2 ** (len(setting.features) - 1)
  config.data.flip = True
  config.data.classes = classes
  config.evaluation.labels = 'data'  # or 'uniform'

  config.game.latent_dim = 64
  config.game.loss = ConfigDict({'name': 'relativistic'})
  config.game.ada = ConfigDict(
    {'pipeline': 'r3gan', 'p': setting.p, 'target': None}
  )
  penalty = {'weight': setting.gamma, 'every': 1}
  config.game.penalties = ConfigDict({'r1': dict(penalty), 'r2': dict(penalty)})

  network = {
    'name': 'r3gan',
    'features': setting.features,
    'groups': setting.groups,
    'num_blocks': 2,  # at each resolution
    'expansion': 2,  # width of the 3x3 convolutions / features
  }
  config.model = ConfigDict({'gen': dict(network), 'disc': dict(network)})
  adam = {'name': 'adam', 'learning_rate': 2e-4, 'b1': 0.0, 'b2': 0.9}
  adam['eps'] = 1e-8
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})

  if arg == 'tiny':
    config.precision = 'float32'
    config.game.ada.pipeline = 'c'  # compiles fast
    config.model.gen.num_blocks = config.model.disc.num_blocks = 1
    config.steps_per_dispatch = 1
    config.log_every_steps = 2
    config.sample_every_images = 96
    config.checkpoint_every_images = 64
    config.evaluation.every_images = None
  return config
