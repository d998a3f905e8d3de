"""Points of known distributions: games that one can watch.

  python launch.py --config=experiments/toy.py:ring

The points are drawn on the device without a data set. Two small networks with
R1 + R2 (Mescheder et al. 2018, "Which training methods for GANs do actually
converge?"). A run takes one or two minutes on two CPU cores. `samples/` holds a
plot of the game at regular intervals, and `training.gif` animates them: the
points, D's output, the gradient of D at the fakes, and G's outputs along a grid
of latents. metrics.jsonl has the modes found and the share of samples within 3
standard deviations of a mode, Jensen-Shannon and KL divergences on a grid, and
the exact Wasserstein distance of 1,000 samples.

  toy.py:ring          8 Gaussians on a circle (also toy.py alone)
  toy.py:grid          25 Gaussians: does a GAN find all of them? G is deeper
                       and wider than D, because its mapping must change
                       sharply between the modes. Two to four minutes; the
                       scores of five seeds are in docs/results/toys.md
  toy.py:grid,wgan_gp  the same with WGAN-GP (Gulrajani et al. 2017), with one
                       critic update in an iteration
  toy.py:moons         two interlocking half circles
  toy.py:swiss_roll    a Swiss roll from the side: a spiral in the plane
  toy.py:line          a line in the plane: fewer dimensions than their space
  toy.py:drawing       the ink of a picture; any picture can be the data:
                       --config.data.source=drawing:/path/to/picture.png
  toy.py:gaussian      one Gaussian on the line: the GAN of most tutorials
  toy.py:mixture       two Gaussians on the line
  toy.py:uniform       U(-1, 1) on the line: a density with corners
  toy.py:slanted_land  2x2 pictures of the people of Slanted Land, who are
                       bright on the diagonal and dark elsewhere: the smallest
                       image GAN. Half a minute. The score is the exact
                       Wasserstein distance of 1,000 pictures, as points with
                       4 coordinates
  toy.py:collapse      mode collapse by design: the ring without regularization
                       of D, whose learning rate is a fifth of G's. G moves all
                       points to the mode with the highest D(x), D learns this,
                       and G moves on to another mode, for more than a thousand
                       iterations
  toy.py:collapse,r1   with a remedy: r1; pack (PacGAN: D discriminates 4
                       points together); stddev (D gets the standard deviation
                       of groups of 4 points); or wgan_gp (5 critic updates an
                       iteration, Adam (0, 0.9)). docs/results/toys.md lists
                       the modes that five seeds of each have found

`,tiny` after a name makes a run of seconds: toy.py:grid,tiny.
"""

from ml_collections import ConfigDict, config_dict

from experiments import vanilla_mnist
from experiments.base import tiny_sweeps

# The data of each toy.
SOURCES = {
  'ring': 'toy:ring',
  'grid': 'toy:grid',
  'moons': 'toy:moons',
  'swiss_roll': 'toy:swiss_roll',
  'line': 'toy:line',
  'drawing': 'drawing:experiments/drawing.png',
  'gaussian': 'toy:gaussian',
  'mixture': 'toy:two_gaussians',
  'uniform': 'toy:uniform',
  'slanted_land': 'slanted_land',
  'collapse': 'toy:ring',
}
ONE_DIMENSIONAL = 'gaussian', 'mixture', 'uniform'
VARIANTS = {
  'grid': ('wgan_gp',),
  'collapse': ('pack', 'r1', 'stddev', 'wgan_gp'),
}


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg: NAME or NAME,VARIANT (see above)."""
  toy, variant = _parse(arg)
  tiny = variant == 'tiny'
  if toy == 'slanted_land':
    return _slanted_land(tiny)
  config = _ring(tiny)
  config.data.source = SOURCES[toy]
  if toy in ONE_DIMENSIONAL:
    config.data.channels = config.game.latent_dim = 1
  if toy == 'grid':
    _set_grid(config, variant)
  if toy == 'collapse':
    _set_collapse(config, variant)
  return config


def _parse(arg: str) -> tuple[str, str]:
  """Returns the name of the toy, and its variant or ''."""
  toy, _, variant = arg.partition(',')
  if toy in ('', 'tiny'):  # no name: the ring
    toy, variant = 'ring', arg
  if toy not in SOURCES:
    raise ValueError(f'unknown toy {toy!r} (valid: {", ".join(SOURCES)})')
  valid = 'tiny', *VARIANTS.get(toy, ())
  if variant and variant not in valid:
    raise ValueError(
      f'unknown variant {variant!r} of {toy} (valid: {", ".join(valid)})'
    )
  return toy, variant


def _ring(tiny: bool) -> ConfigDict:
  """Returns the config of the ring, from which the other toys differ."""
  config = vanilla_mnist.get_config('tiny' if tiny else '')
  config.data.source = 'toy:ring'
  config.data.resolution = 1
  config.data.channels = 2  # coordinates
  config.game.latent_dim = 2
  config.game.loss = ConfigDict({'name': 'non_saturating'})
  config.game.clip = config_dict.placeholder(float)  # D's clipping; None: off
  config.game.pack = 1
  config.game.penalties = ConfigDict(
    {
      'gradient_penalty': {'weight': 0.0, 'target': 1.0, 'one_sided': False},
      'r1': {'weight': 0.1},
      'r2': {'weight': 0.1},
    }
  )
  config.model.gen.output = 'linear'
  config.model.disc.dropout = 0.0
  config.model.disc.stddev_group = 0
  adam = {'name': 'adam', 'learning_rate': 1e-3, 'b1': 0.0, 'b2': 0.9}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})
  config.evaluation.metrics = ()  # (): all metrics of the points
  config.evaluation.num_samples = 2_500
  config.evaluation.features = None
  if tiny:
    return config
  config.model.gen.hidden = config.model.disc.hidden = (128, 128, 128)
  config.batch_size = 256
  config.steps_per_dispatch = 50
  falling = ('linear', 1.0, 0.0)  # to the end of the run
  config.schedule = (
    {
      'gen_learning_rate_factor': falling,
      'disc_learning_rate_factor': falling,
    },
  )
  config.ema_halflife_images = 25_600
  config.log_every_steps = 100
  _set_length(config, 8_000)
  return config


def _set_length(config: ConfigDict, iterations: int) -> None:
  """Sets the length of a run, with 40 pictures and 20 evaluations."""
  config.total_images = 256 * iterations * config.disc_steps
  config.sample_every_images = config.total_images // 40
  config.evaluation.every_images = config.total_images // 20
  config.checkpoint_every_images = config.total_images // 4


def _set_grid(config: ConfigDict, variant: str) -> None:
  if variant == 'wgan_gp':
    config.game.loss.name = 'wasserstein'
    config.game.penalties.gradient_penalty.weight = 1.0
    config.game.penalties.r1.weight = config.game.penalties.r2.weight = 0.0
  if variant != 'tiny':
    config.model.gen.hidden = (256, 256, 256, 256)
    _set_length(config, 12_000)


def _set_collapse(config: ConfigDict, variant: str) -> None:
  config.game.penalties.r1.weight = 1.0 if variant == 'r1' else 0.0
  config.game.penalties.r2.weight = 0.0
  config.game.pack = 4 if variant == 'pack' else 1
  config.model.disc.stddev_group = 4 if variant == 'stddev' else 0
  adam = {'name': 'adam', 'learning_rate': 1e-3, 'b1': 0.5, 'b2': 0.999}
  if variant == 'wgan_gp':
    config.game.loss.name = 'wasserstein'
    config.game.penalties.gradient_penalty.weight = 0.1
    config.disc_steps = 5
    config.gen_batch_size = 256
    # The half-life is the same number of iterations.
    config.ema_halflife_images *= config.disc_steps
    adam |= {'b1': 0.0, 'b2': 0.9}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})
  config.optimizer.disc.learning_rate = 2e-4
  if variant != 'tiny':
    config.schedule = ({},)  # constant learning rates
    _set_length(config, 3_000)
    config.checkpoint_every_images = config.total_images


def _slanted_land(tiny: bool) -> ConfigDict:
  config = vanilla_mnist.get_config('tiny' if tiny else '')
  config.data.source = SOURCES['slanted_land']
  config.data.resolution = 2
  config.game.latent_dim = 2
  config.model.disc.dropout = 0.0
  adam = {'name': 'adam', 'learning_rate': 2e-3, 'b1': 0.5, 'b2': 0.999}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})
  config.evaluation.metrics = ('wasserstein',)
  config.evaluation.features = None
  if tiny:
    return config
  config.model.gen.hidden = config.model.disc.hidden = (32,)
  config.ema_halflife_images = 10_000
  config.steps_per_dispatch = 100
  config.total_images = 64 * 1_500
  config.log_every_steps = 500
  config.sample_every_images = config.total_images // 10
  config.evaluation.every_images = config.total_images // 5
  config.checkpoint_every_images = config.total_images
  return config


def sweep(arg: str = '') -> dict:
  """Returns a search of R1's and R2's weights on the ring; minutes."""
  toy, variant = _parse(arg)
  if toy != 'ring':
    return {}
  sweeps = {
    'penalties': {
      'score': 'wasserstein',
      'trials': 12,
      'space': {
        'game.penalties.r1.weight': {'low': 0.01, 'high': 10.0, 'log': True},
        'game.penalties.r2.weight': {'low': 0.01, 'high': 10.0, 'log': True},
        'optimizer.gen.b1': [0.0, 0.5],
      },
      'fixed': {'total_images': 256 * 2_000},
      'pruner': {'name': 'median', 'warmup_images': 256 * 800},
    }
  }
  if variant == 'tiny':
    return tiny_sweeps(sweeps, score='wasserstein', metrics=())
  return sweeps
