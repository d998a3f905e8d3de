"""A game of points at a moment, and the picture of it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8
from ml_collections import ConfigDict

from gan_jax.data.toys import Toy, toy_of
from gan_jax.games.game import Game, Phase
from gan_jax.games.latents import LATENTS
from gan_jax.keys import Purpose, example_keys
from gan_jax.pair import Pair, Variables

# Points of each kind that are drawn; fakes at which a gradient is.
POINTS, ARROWS = 1000, 150
# Places, each way, at which D is asked: on the line, and in the plane.
PLACES = {1: 400, 2: 80}
# Lines of the latent grid, each way; of them in the plane so many bends.
LINES, BENDS = 21, 101
# How long an arrow is, of a gradient of norm 1, and at most; in `Toy.limit`s.
ARROW, LONGEST_ARROW = 0.1, 0.25
# Inches, at 100 pixels each.
PANEL = 4.6


class PlotData(NamedTuple):
  """What can be seen of a game of points.

  Attributes:
    real, fake: Points.
    said: What D says at `places(toy)`: D(x), or a critic's value.
    is_critic: Which of them.
    slopes: The gradient of D's logit at the first fakes.
    warped: Where G takes the lines of the latent grid, [lines, bends, d]: of
      latents of 2 coordinates, or of 1 (one line); None: there is none.
  """

  real: Float[Array, 'n d']
  fake: Float[Array, 'n d']
  said: Float[Array, ' m']
  is_critic: Bool[Array, '']
  slopes: Float[Array, 'k d']
  warped: Float[Array, 'l b d'] | None


def places(toy: Toy) -> Float[np.ndarray, 'm d']:
  """Where D is asked: a grid, row by row."""
  side = np.linspace(-toy.limit, toy.limit, PLACES[toy.dim])
  if toy.dim == 1:
    return side[:, None]
  return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)


def make_plot_data(
  game: Game, config: ConfigDict
) -> Callable[[Pair[Variables], Phase], PlotData]:
  """(both players' variables, phase) -> the scene; pure."""
  toy = toy_of(config.data.source)
  latents = _latent_grid(config)
  asked = jnp.asarray(places(toy), jnp.float32)
  as_images = lambda points: points[:, None, None, :]

  def scene(variables: Pair[Variables], phase: Phase) -> PlotData:
    numbers = jnp.arange(POINTS)
    keys = example_keys(jax.random.key(0), Purpose.REFERENCE, numbers)
    own = example_keys(jax.random.key(config.seed), Purpose.SAMPLE, numbers)
    inputs = game.sample_inputs(own, {}, phase)
    play = lambda inputs: game.sample(variables.gen, inputs, phase)[:, 0, 0]
    ask = lambda points: game.discriminate(
      variables.disc, {'images': as_images(points)}, phase
    )
    fake = play(inputs)
    judged = ask(asked)
    slopes = jax.grad(lambda x: ask(x).logits.sum())(fake[:ARROWS])
    warped = None
    if latents is not None:
      shape = latents.shape[:2]
      flat = latents.reshape(-1, latents.shape[-1])
      taken = jax.tree.map(lambda x: x[jnp.zeros(len(flat), int)], inputs)
      warped = play({**taken, 'z': flat}).reshape(*shape, -1)
    is_critic = judged.probability is None
    said = judged.logits if is_critic else judged.probability
    real = jax.vmap(toy.draw)(keys)
    return PlotData(real, fake, said, jnp.bool_(is_critic), slopes, warped)

  return scene


def _latent_grid(config: ConfigDict) -> Float[Array, 'l b z'] | None:
  """Lines through the latents, as far apart as those are likely."""
  quantile = LATENTS[config.game.latent].quantile
  dim = config.game.latent_dim
  if quantile is None or dim > 2:
    return None
  bends = jnp.linspace(0.01, 0.99, BENDS)
  if dim == 1:
    return quantile(bends)[None, :, None]
  lines = jnp.linspace(0.01, 0.99, LINES)
  across = jnp.stack(jnp.meshgrid(bends, lines), -1)
  return quantile(jnp.concatenate([across, across[..., ::-1]]))


def plot(scene: PlotData, config: ConfigDict) -> UInt8[np.ndarray, 'h w 3']:
  """The picture: in the plane two panels, on the line one above the other."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  toy = toy_of(config.data.source)
  shape = (PANEL, 1.2 * PANEL) if toy.dim == 1 else (2 * PANEL, PANEL)
  figure = Figure(shape, dpi=100, layout='constrained')
  FigureCanvasAgg(figure)
  (_on_the_line if toy.dim == 1 else _in_the_plane)(figure, scene, toy)
  figure.canvas.draw()
  return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _on_the_line(figure, scene: PlotData, toy: Toy) -> None:
  """Densities with D's curve; below, where G takes latents."""
  top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  bins = np.linspace(-toy.limit, toy.limit, 61)
  top.hist(scene.real[:, 0], bins, density=True, color='0.8', label='data')
  top.hist(
    scene.fake[:, 0], bins, density=True, color='C2', histtype='step', lw=2,
    label='G',
  )  # fmt: skip
  ask = top.twinx() if scene.is_critic else top
  ask.plot(places(toy)[:, 0], scene.said, 'C0', label='D')
  if not scene.is_critic:
    top.axhline(0.5, color='C0', lw=0.5, ls=':')
  top.legend(loc='upper right', frameon=False)
  if scene.warped is None:
    return
  ends = scene.warped[0, ::4, 0]
  starts = np.linspace(-toy.limit, toy.limit, len(ends))
  below.plot([starts, ends], [0, 1], color='0.4', lw=0.6)
  below.set(yticks=(0, 1), yticklabels=('z', 'G(z)'))


def arrows(
  slopes: Float[np.ndarray, 'k 2'], limit: float
) -> Float[np.ndarray, 'k 2']:
  """Gradients as arrows of one scale, so that pictures can be compared."""
  norms = np.linalg.norm(slopes, axis=1, keepdims=True)
  lengths = limit * np.minimum(ARROW * norms, LONGEST_ARROW)
  return slopes * (lengths / np.maximum(norms, 1e-12))


def _in_the_plane(figure, scene: PlotData, toy: Toy) -> None:
  """D's map with all points and D's slopes; the latent grid, as G bends it."""
  left, right = figure.subplots(1, 2)
  side = PLACES[2]
  edge = (-toy.limit, toy.limit)
  ends = {} if scene.is_critic else {'vmin': 0, 'vmax': 1}
  drawn = left.imshow(
    scene.said.reshape(side, side), origin='lower', extent=(*edge, *edge),
    cmap='RdBu', alpha=0.7, **ends,
  )  # fmt: skip
  figure.colorbar(drawn, ax=left, label='D(x)', shrink=0.8)
  right.set_title('G, and the grid of its latents', fontsize=9)
  for axes in (left, right):
    axes.plot(*scene.real.T, '.', color='0.35', ms=2, label='data')
  count = len(scene.slopes)
  fakes = scene.fake[:count]
  left.plot(*scene.fake.T, '.', color='C2', ms=2, label='G')
  left.quiver(
    *fakes.T, *arrows(scene.slopes, toy.limit).T, angles='xy',
    scale_units='xy', scale=1.0, width=0.003, color='0.1',
  )  # fmt: skip
  left.set_title('data, G, and where D would have G go', fontsize=9)
  if scene.warped is not None:
    for line in scene.warped:
      right.plot(*line.T, color='C2', lw=0.6)
  else:
    right.plot(*scene.fake.T, '.', color='C2', ms=2)
  for axes in (left, right):
    axes.set(xlim=edge, ylim=edge, aspect='equal', xticks=(), yticks=())
