"""Plots a toy game: real and fake points, D's output, and G's mapping."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8
from ml_collections import ConfigDict

from gan_jax.data.toys import Toy
from gan_jax.games.game import Game, Phase, main_output
from gan_jax.games.latents import LATENTS
from gan_jax.keys import Purpose, example_keys
from gan_jax.pair import Pair, Variables
from gan_jax.plots.outputs import OutputImages
from gan_jax.registry import choose_or_import

# The number of real points and of fakes, and of fakes with a gradient arrow.
NUM_POINTS, NUM_ARROWS = 1000, 150
# Points in each direction of the grid on which D is evaluated, by dimension.
GRID_SIZE = {1: 400, 2: 80}
# Lines of the latent grid in each direction, and points on each line.
NUM_LINES, LINE_POINTS = 21, 101
# The length of an arrow for a gradient of norm 1, and the maximum length; as
# fractions of `Toy.limit`.
ARROW, MAX_ARROW = 0.1, 0.25
# The size of a panel in inches; an inch has 100 pixels.
PANEL = 4.6


class PlotData(NamedTuple):
  """The data of a plot.

  Attributes:
    real, fake: Points.
    disc_values: D's output on `disc_grid(toy)`: the probability D(x), or the
      value of a critic. None: D scores no single points.
    is_critic: Whether `disc_values` are the values of a critic.
    gradients: The gradient of D's logit at the first fakes; None as above.
    mapped_latents: G's outputs along the lines of the latent grid, [lines,
      points, d]. Latents of 1 coordinate have one line; None: latents have more
      than 2 coordinates, or no quantile function, or the game has none.
  """

  real: Float[Array, 'n d']
  fake: Float[Array, 'n d']
  disc_values: Float[Array, ' m'] | None
  is_critic: Bool[Array, '']
  gradients: Float[Array, 'k d'] | None
  mapped_latents: Float[Array, 'l p d'] | None


def disc_grid(
  toy: Toy, sizes: Mapping[int, int] = GRID_SIZE
) -> Float[np.ndarray, 'm d']:
  """Returns the grid on which D is evaluated, row by row.

  `sizes` has the number of points in each direction, by dimension.
  """
  side = np.linspace(-toy.limit, toy.limit, sizes[toy.dim])
  if toy.dim == 1:
    return side[:, None]
  return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)


def reference_points(toy: Toy, n: int) -> Float[Array, 'n d']:
  """Draws real points, the same in all plots."""
  keys = example_keys(jax.random.key(0), Purpose.REFERENCE, jnp.arange(n))
  return jax.vmap(toy.draw)(keys)


def make_plot_data(
  game: Game, config: ConfigDict, toy: Toy
) -> Callable[[Pair[Variables], Phase], PlotData]:
  """Makes the pure function (both players' variables, phase) -> plot data."""
  latents = latent_grid(config)
  grid = jnp.asarray(disc_grid(toy), jnp.float32)
  as_images = lambda points: points[:, None, None, :]

  def plot_data(variables: Pair[Variables], phase: Phase) -> PlotData:
    examples = jnp.arange(NUM_POINTS)
    seed_key = jax.random.key(config.seed)
    sample_keys = example_keys(seed_key, Purpose.SAMPLE, examples)
    inputs = game.sample_inputs(sample_keys, {}, phase)
    sample = main_output(game).sample
    generate = lambda inputs: sample(variables.gen, inputs, phase)[:, 0, 0]
    discriminate = lambda points: game.discriminate(
      variables.disc, {'images': as_images(points)}, phase
    )
    fake = generate(inputs)
    disc_values = gradients = mapped_latents = None
    is_critic = False
    if game.discriminate is not None:
      output = discriminate(grid)
      is_critic = output.probability is None
      disc_values = output.logits if is_critic else output.probability
      gradients = jax.grad(lambda x: discriminate(x).logits.sum())(
        fake[:NUM_ARROWS]
      )
    if latents is not None and 'z' in inputs:
      shape = latents.shape[:2]
      flat = latents.reshape(-1, latents.shape[-1])
      repeated = jax.tree.map(lambda x: x[jnp.zeros(len(flat), int)], inputs)
      mapped_latents = generate({**repeated, 'z': flat}).reshape(*shape, -1)
    real = reference_points(toy, NUM_POINTS)
    return PlotData(
      real, fake, disc_values, jnp.bool_(is_critic), gradients, mapped_latents
    )

  return plot_data


def latent_grid(
  config: ConfigDict,
  num_lines: int = NUM_LINES,
  line_points: int = LINE_POINTS,
  margin: float = 0.01,
) -> Float[Array, 'l p z'] | None:
  """Returns the lines of the latent grid, with equal probability between lines.

  Args:
    config: The config of the run.
    num_lines, line_points: Lines in each direction, and points on each line.
    margin: The probability beyond the first and the last line, each.

  Returns:
    None: see `PlotData.mapped_latents`.
  """
  name, dim = config.game.get('latent'), config.game.get('latent_dim')
  if name is None:
    return None
  quantile = choose_or_import('config.game.latent', name, LATENTS).quantile
  if quantile is None or dim > 2:
    return None
  along = jnp.linspace(margin, 1 - margin, line_points)
  if dim == 1:
    return quantile(along)[None, :, None]
  lines = jnp.linspace(margin, 1 - margin, num_lines)
  horizontal = jnp.stack(jnp.meshgrid(along, lines), -1)
  return quantile(jnp.concatenate([horizontal, horizontal[..., ::-1]]))


def plot(data: PlotData, toy: Toy) -> UInt8[np.ndarray, 'h w 3']:
  """Draws the plot: two panels, side by side (2-D) or stacked (1-D)."""
  shape = (PANEL, 1.2 * PANEL) if toy.dim == 1 else (2 * PANEL, PANEL)
  figure = _figure(shape)
  (_plot_1d if toy.dim == 1 else _plot_2d)(figure, data, toy)
  return _pixels(figure)


def plot_mapping(images: OutputImages) -> UInt8[np.ndarray, 'h w 3']:
  """Draws a translation of points: a line from each point to its image."""
  given, samples = (
    np.asarray(x)[:, 0, 0] for x in (images.given, images.samples)
  )
  if given.shape[1] == 1:  # 1-D: the points below, their images above
    given, samples = (
      np.concatenate([x, np.full_like(x, height)], 1)
      for x, height in ((given, 0.0), (samples, 1.0))
    )
  figure = _figure((PANEL, PANEL))
  axes = figure.subplots()
  axes.plot(*np.stack([given, samples], 1).T, color='0.7', lw=0.6)
  axes.plot(*given.T, '.', color='C0', ms=4, label='given')
  axes.plot(*samples.T, '.', color='C2', ms=4, label='G')
  axes.legend(loc='upper right', frameon=False)
  # The given points are the same in all plots: the scale does not change.
  edge = 1.3 * float(np.abs(given).max())
  axes.set(xlim=(-edge, edge), ylim=(-edge, edge), xticks=(), yticks=())
  return _pixels(figure)


def _figure(shape: tuple[float, float]):
  """Makes a figure without a window."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(shape, dpi=100, layout='constrained')
  FigureCanvasAgg(figure)
  return figure


def _pixels(figure) -> UInt8[np.ndarray, 'h w 3']:
  figure.canvas.draw()
  return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _plot_1d(figure, data: PlotData, toy: Toy) -> None:
  """Draws the densities and D's output; below, G's mapping of latents."""
  top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  bins = np.linspace(-toy.limit, toy.limit, 61)
  top.hist(data.real[:, 0], bins, density=True, color='0.8', label='data')
  top.hist(
    data.fake[:, 0], bins, density=True, color='C2', histtype='step', lw=2,
    label='G',
  )  # fmt: skip
  if data.disc_values is not None:
    disc_axes = top.twinx() if data.is_critic else top
    disc_axes.plot(disc_grid(toy)[:, 0], data.disc_values, 'C0', label='D')
  if data.disc_values is not None and not data.is_critic:
    top.axhline(0.5, color='C0', lw=0.5, ls=':')
  top.legend(loc='upper right', frameon=False)
  if data.mapped_latents is None:
    return
  ends = data.mapped_latents[0, ::4, 0]
  starts = np.linspace(-toy.limit, toy.limit, len(ends))
  below.plot([starts, ends], [0, 1], color='0.4', lw=0.6)
  below.set(yticks=(0, 1), yticklabels=('z', 'G(z)'))


def arrows(
  gradients: Float[np.ndarray, 'k 2'], limit: float
) -> Float[np.ndarray, 'k 2']:
  """Scales gradients to arrows, equally in all plots for comparison."""
  norms = np.linalg.norm(gradients, axis=1, keepdims=True)
  lengths = limit * np.minimum(ARROW * norms, MAX_ARROW)
  return gradients * (lengths / np.maximum(norms, 1e-12))


def _plot_2d(figure, data: PlotData, toy: Toy) -> None:
  """Draws D's output, all points and gradients; right, G's latent grid."""
  left, right = figure.subplots(1, 2)
  side = GRID_SIZE[2]
  edge = (-toy.limit, toy.limit)
  limits = {} if data.is_critic else {'vmin': 0, 'vmax': 1}
  if data.disc_values is not None:
    values = data.disc_values.reshape(side, side)
    image = left.imshow(
      values, origin='lower', extent=(*edge, *edge), cmap='RdBu', alpha=0.7,
      **limits,
    )  # fmt: skip
    figure.colorbar(image, ax=left, label='D(x)', shrink=0.8)
  right.set_title("G's outputs along a grid of latents", fontsize=9)
  for axes in (left, right):
    axes.plot(*data.real.T, '.', color='0.35', ms=2, label='data')
  left.plot(*data.fake.T, '.', color='C2', ms=2, label='G')
  if data.gradients is not None:
    fakes = data.fake[: len(data.gradients)]
    left.quiver(
      *fakes.T, *arrows(data.gradients, toy.limit).T, angles='xy',
      scale_units='xy', scale=1.0, width=0.003, color='0.1',
    )  # fmt: skip
  left.set_title('data, G, D, and the gradient of D at G', fontsize=9)
  if data.mapped_latents is not None:
    for line in data.mapped_latents:
      right.plot(*line.T, color='C2', lw=0.6)
  else:
    right.plot(*data.fake.T, '.', color='C2', ms=2)
  for axes in (left, right):
    axes.set(xlim=edge, ylim=edge, aspect='equal', xticks=(), yticks=())
