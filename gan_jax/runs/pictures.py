"""Pictures of a trained run: grids, interpolations, and its growth."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from gan_jax.bounds import check_counts
from gan_jax.errors import UserError
from gan_jax.ops.pixels import to_uint8
from gan_jax.plots.grid import (
  grid_columns,
  labels_by_class,
  shrink_to,
  to_pil,
)
from gan_jax.plots.grid import show as show_grid
from gan_jax.plots.outputs import images_of, output_grid
from gan_jax.plots.toy_plot import make_plot_data, plot, plot_mapping
from gan_jax.registry import choose
from gan_jax.training import checkpoint
from gan_jax.training.schedule import make_schedule

if TYPE_CHECKING:
  from gan_jax.runs.run import Labels, Run


def interpolate(
  run: 'Run',
  n: int = 4,
  steps: int = 9,
  seed: int = 0,
  labels: 'Labels | None' = None,
  space: str = 'z',
) -> UInt8[np.ndarray, 'n steps h w c'] | Float[np.ndarray, 'n steps d']:
  """Generates images along `n` paths in latent space, from sample to sample.

  Path i leads from sample 2i to sample 2i + 1 of
  `run.sample(2 * n, seed, labels=labels)`. In a conditional run, `labels`
  holds the classes of the 2n ends, or one class for all. With a style-based
  generator, the paths are also straight lines in `space` 'w'.
  """
  choose('space', space, dict.fromkeys(('w', 'z')))
  if run._game.interpolate is None:
    raise UserError('run.interpolate needs latents, and this game has none')
  check_counts(n=n, steps=steps)
  ends = run.inputs(2 * n, seed, labels=labels)
  repeat = lambda x: jnp.repeat(x, steps, axis=0)
  a = jax.tree.map(lambda x: repeat(x[0::2]), ends)
  b = jax.tree.map(lambda x: repeat(x[1::2]), ends)
  t = jnp.tile(jnp.linspace(0.0, 1.0, steps), n)
  between = run._between_in_w if space == 'w' else run._game.interpolate
  images = run.generate(between(a, b, t))
  return images.reshape(n, steps, *images.shape[1:])


def show(
  run: 'Run',
  n: int = 64,
  seed: int = 0,
  labels: 'Labels | None' = None,
  output: str | None = None,
) -> Image.Image:
  """Returns a grid of `n` samples, which a notebook displays.

  Images that are generated from real ones are shown beside them. `output` is
  as in `generator`.

  In a conditional run, `labels` holds a class for each sample, or one for
  all; without labels, each class has a row. A toy shows its plot, with the
  trained players instead of the moving average.
  """
  run._output(output)
  if labels is not None:
    return show_grid(run.sample(n, seed, labels=labels, output=output))
  if run.reads:
    return _show_beside(run, n, seed, output)
  if run.has_points:
    from gan_jax import data

    toy = data.toy_of(run.config)
    plot_data = make_plot_data(run._game, run.config, toy)
    points = plot_data(run._variables, run._phase)
    return to_pil(plot(jax.tree.map(np.asarray, points), toy))
  if run._classes:
    labels = np.asarray(labels_by_class(run._classes, n))
    samples = run.sample(len(labels), seed, labels=labels)
    return show_grid(samples, columns=grid_columns(run._classes, n))
  return show_grid(run.sample(n, seed, output=output))


def _show_beside(
  run: 'Run', n: int, seed: int, output: str | None
) -> Image.Image:
  """Shows samples beside the real images that they are generated from."""
  real = run._real_examples(n)
  inputs = run.inputs(n, seed, **real)
  images = images_of(run._output(output), run.params, inputs, real, run._phase)
  if run.has_points:
    return to_pil(plot_mapping(images))
  return to_pil(output_grid(jax.tree.map(to_uint8, images)))


def growth(
  run: 'Run', n: int = 8, seed: int = 0, pixels: int = 128
) -> Image.Image:
  """Shows the same latents at every stage of progressive growing.

  Each row is the last checkpoint of a stage, the earliest stage first.

  Args:
    n, seed: As for `sample`.
    pixels: Larger images are resized to this width.
  """
  schedule = make_schedule(run.config)
  last: dict[int, int] = {}
  for step in checkpoint.steps(run.workdir):
    if 0 < step <= run.step:
      last[schedule.segment_at(step - 1).first_step] = step
  at = lambda step: type(run)(run.workdir, run.config, step)
  rows = [shrink_to(at(step).sample(n, seed), pixels) for step in last.values()]
  return show_grid(np.concatenate(rows), columns=n)
