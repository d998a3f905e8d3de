"""Perceptual path length (PPL): how fast images change along paths of latents.

Karras et al. 2019 (StyleGAN), section 4.1: a path between two latents, in z or
in w, is cut at t and t + 1e-4, and the squared distance of both images in
features is divided by 1e-8. A path is cut anywhere ('full') or at its start
('end'); StyleGAN2 (2020) reports `ppl_w_end`.

As in stylegan2-ada-pytorch, images larger than 256 pixels are averaged down to
256, both cuts have the same noise and the same class, and the lowest and the
highest percent of the lengths are left out. The whole image counts (its
`ppl2_wend`), not a crop of the face.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gan_jax.errors import UserError
from gan_jax.games.game import Game, Keys, Phase, main_output, truncated
from gan_jax.metrics.features import Features
from gan_jax.pair import Variables

EPSILON = 1e-4
SIDE = 256  # larger images are averaged down to this size


class Kind(NamedTuple):
  """A kind of path.

  Attributes:
    space: 'z' or 'w'.
    full: Whether t is uniform on [0, 1]; if not, it is 0.
  """

  space: str
  full: bool


class Paths(NamedTuple):
  """Paths between inputs of G.

  Attributes:
    start, end: The inputs at both ends, of the same classes.
    t: Where a full path is cut.
  """

  start: PyTree
  end: PyTree
  t: Float[Array, ' n']


# The metrics, which have the names of what they need.
PATHS: dict[str, Kind] = {
  'ppl_w_end': Kind('w', False),
  'ppl_w_full': Kind('w', True),
  'ppl_z_end': Kind('z', False),
  'ppl_z_full': Kind('z', True),
}


def mean_length(lengths: Float[np.ndarray, ' n']) -> float:
  """Averages lengths without the lowest and the highest percent."""
  low = np.percentile(lengths, 1, method='lower')
  high = np.percentile(lengths, 99, method='higher')
  return float(lengths[(low <= lengths) & (lengths <= high)].mean())


def check_game(names: Sequence[str], game: Game) -> None:
  """Raises UserError if a game does not have the paths of the metrics."""
  for name in names:
    if PATHS[name].space == 'w' and game.style is None:
      raise UserError(
        f'the metric {name} needs a style-based generator: use '
        f'{name.replace("_w_", "_z_")}, or train experiments/stylegan2.py'
      )
    if game.interpolate is None:
      raise UserError(
        f'the metric {name} interpolates latents, which this game does not '
        'have: remove it from config.evaluation.metrics'
      )


def distance_features(
  features: Features, weights: PyTree, images: Float[Array, 'n h w c']
) -> Float[Array, 'n d']:
  """Returns unit vectors, whose squared distance is that of the images.

  It is `paired.feature_distance`, of images that are not rounded.

  Args:
    features, weights: The network, and its weights on the device.
    images: In [-1, 1].
  """
  factor = images.shape[1] // SIDE
  if factor > 1:
    n, height, width, channels = images.shape
    rows, columns = height // factor, width // factor
    whole = images[:, : rows * factor, : columns * factor]
    shape = n, rows, factor, columns, factor, channels
    images = whole.reshape(shape).mean((2, 4))
  pixels = (images + 1) * 127.5
  found = features.extract(weights, pixels)['features']
  norms = jnp.linalg.norm(found, axis=1, keepdims=True)
  return found / (norms + 1e-10)


def sample_paths(
  game: Game,
  keys: Keys,
  batch: PyTree,
  phase: Phase,
  truncation: float | None = None,
) -> Paths:
  """Samples a path for each key.

  Args:
    game, batch, phase: The game, and what its `sample_inputs` takes.
    keys: A key for each path.
    truncation: As in `Run.inputs`; the published metric has none.
  """
  keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
  a, b = (
    truncated(game, game.sample_inputs(keys[:, i], batch, phase), truncation)
    for i in range(2)
  )
  if 'labels' in a:
    b = {**b, 'labels': a['labels']}
  return Paths(a, b, jax.vmap(jax.random.uniform)(keys[:, 2]))


def path_lengths(
  names: Sequence[str],
  game: Game,
  gen_vars: Variables,
  sample: Callable[[], Paths],
  phase: Phase,
  extract: Callable[[Array], Float[Array, 'n d']],
) -> dict[str, Float[Array, ' n']]:
  """Measures paths: the squared speed of the images in features.

  Args:
    names: Keys of PATHS.
    game: The game; in float32, as the cuts differ by 1e-4.
    gen_vars, phase: What its outputs take.
    sample: Samples the paths, which are the same for all kinds.
    extract: `distance_features` of images.
  """
  a, b, uniform = sample()

  def generate(space: str, t: Float[Array, ' n']) -> Float[Array, 'n h w c']:
    if space == 'z':
      inputs = game.interpolate(a, b, t)
      return main_output(game).sample(gen_vars, inputs, phase)
    w_a, w_b = (game.style.map(gen_vars, inputs) for inputs in (a, b))
    ws = w_a + t[:, None, None] * (w_b - w_a)
    return game.style.synthesize(gen_vars, ws, a['keys'], 'random')

  lengths = {}
  for name in names:
    kind = PATHS[name]
    t = uniform if kind.full else jnp.zeros_like(uniform)
    first, second = (extract(generate(kind.space, x)) for x in (t, t + EPSILON))
    lengths[name] = jnp.sum((second - first) ** 2, axis=1) / EPSILON**2
  return lengths
