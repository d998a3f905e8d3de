"""The stories of the lectures: settings to begin with, and three sentences."""

from typing import NamedTuple

from gan_jax.lab.settings import Settings


class Preset(NamedTuple):
  """A story.

  Attributes:
    title: Its name.
    story: Three sentences.
    settings: What differs from the defaults.
    compare: What the second game changes; None: there is one game.
  """

  title: str
  story: str
  settings: Settings
  compare: Settings | None = None


R1_R2 = {'game.penalties.r1.weight': 0.1, 'game.penalties.r2.weight': 0.1}
# D learns ten times more slowly than G, and nothing regularizes it.
COLLAPSE = {
  'optimizer.gen.b1': 0.5,
  'optimizer.disc.b1': 0.5,
  'optimizer.gen.b2': 0.999,
  'optimizer.disc.b2': 0.999,
  'optimizer.disc.learning_rate': 1e-4,
}
# The data and G hardly overlap at first, and D learns fast.
FAR = {
  'data.source': 'toy:ring',
  'optimizer.disc.learning_rate': 4e-3,
  'optimizer.gen.learning_rate': 2e-4,
}
CRITIC = {
  'game.loss.name': 'wasserstein',
  'game.penalties.gradient_penalty.weight': 0.1,
  'disc_steps': 5,
}
IN_1D = {'game.latent_dim': 1, **R1_R2}

PRESETS: dict[str, Preset] = {
  'two_players': Preset(
    'The two-player game',
    'G turns noise into points, and D tells them from the data. Each follows '
    'its own gradient while the other is frozen, so that neither loss needs '
    'to fall. When G matches the data, D answers 1/2 at all points and its '
    'loss is log 4.',
    {'data.source': 'toy:ring', **R1_R2},
  ),
  'vanishing': Preset(
    'Vanishing gradients',
    'D learns fast here and soon recognizes nearly all fakes. In the minimax '
    'loss, log(1 - D(G(z))) is flat, as a function of the logit, where D is '
    'sure, so that the arrows at most fakes shrink to nothing. The second game '
    'differs only in its loss, -log D(G(z)), which is steep exactly there: its '
    'arrows stay long, and G finds more modes.',
    {**FAR, 'game.loss.name': 'minimax'},
    {'game.loss.name': 'non_saturating'},
  ),
  'collapse': Preset(
    'Mode collapse',
    "G moves all its points to where D's answer is highest. D, which learns "
    'ten times more slowly here, finds out that this mode is fake, and G '
    'moves on to the next one. G never needs to cover all eight modes, '
    'because D sees each point alone.',
    COLLAPSE,
  ),
  'cure_r1': Preset(
    'Cure: flatten D',
    'Both games begin with the same collapse. In the second one, R1 penalizes '
    "the gradient of D at the data. D's hills become gentle, so that G spreads "
    'over them instead of jumping to the highest one.',
    COLLAPSE,
    {'game.penalties.r1.weight': 1.0},
  ),
  'cure_pack': Preset(
    'Cure: show D several points',
    'Both games begin with the same collapse. In the second one, D sees four '
    'points at once, as in PacGAN. Four equal points are easy to recognize as '
    'fakes, so that G must vary them.',
    COLLAPSE,
    {'game.pack': 4},
  ),
  'cure_stddev': Preset(
    'Cure: show D the spread',
    'Both games begin with the same collapse. In the second one, D is given '
    'the standard deviation of four points, as in progressive growing. A '
    'batch without variety gives itself away.',
    COLLAPSE,
    {'model.disc.stddev_group': 4},
  ),
  'wasserstein': Preset(
    'Wasserstein against Jensen-Shannon',
    'The modes are narrow, and most fakes lie away from them. Where the two '
    'do not overlap, the Jensen-Shannon divergence is log 2 however far they '
    'are, and a sure D gives G no slope. The critic of the second game '
    'measures how far the points must move, and slopes towards the data '
    'everywhere on the way.',
    {**FAR, 'game.loss.name': 'minimax'},
    CRITIC,
  ),
  'gaussian': Preset(
    'One Gaussian on the line',
    'In 1-D everything fits into one picture: both densities, and the curve '
    'of D. The dashed curve is the best possible D, p / (p + q). As G learns, '
    'it flattens to 1/2.',
    {'data.source': 'toy:gaussian', **IN_1D},
  ),
  'two_gaussians': Preset(
    'Two Gaussians on the line',
    'G must tear its one bump of noise into two. Below, the lines lead from '
    'noise to points: they stretch across the gap. A few points always remain '
    'between the modes, because G is continuous.',
    {'data.source': 'toy:two_gaussians', **IN_1D},
  ),
  'frozen': Preset(
    'What is frozen',
    'Choose "D only" and play 300 iterations: G stands still, and D approaches '
    'the dashed curve, the best answer to this G. Then choose "G only": G runs '
    'up the slope of a D that no longer learns, and its points leave the data '
    'behind. Training alternates so that neither goes too far.',
    {'data.source': 'toy:gaussian', 'game.latent_dim': 1},
  ),
  'grid': Preset(
    '25 Gaussians',
    'Twenty-five small modes are harder than eight. The latent grid shows how '
    'G folds the plane of noise to reach them all. A wider G and more '
    'iterations find more of them.',
    {
      'data.source': 'toy:grid',
      'model.gen.hidden': (128, 128, 128, 128),
      **R1_R2,
    },
  ),
}
