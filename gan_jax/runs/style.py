"""The methods of a run whose generator is style-based (StyleGAN2)."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped, UInt8
from PIL import Image

from gan_jax.bounds import check_counts
from gan_jax.errors import UserError
from gan_jax.games.game import Style
from gan_jax.games.style import check_psi
from gan_jax.keys import Purpose, example_keys
from gan_jax.models.style import NOISES
from gan_jax.plots.grid import show
from gan_jax.registry import choose

Styles = Float[np.ndarray, 'n layers d'] | Float[Array, 'n layers d']


class StyleMethods:
  """Methods of `Run` for style-based generators."""

  params: PyTree
  inputs: Callable[..., PyTree]
  _game: Any
  _in_batches: Callable[..., Shaped[np.ndarray, 'n ...']]

  def _style(self, method: str) -> Style:
    """Returns the parts of the generator.

    Raises:
      UserError: The generator is not style-based.
    """
    if self._game.style is None:
      raise UserError(
        f'run.{method} needs a style-based generator, which this run does not '
        'have: train experiments/stylegan2.py'
      )
    return self._game.style

  def w(
    self,
    z: Float[np.ndarray, 'n d'] | Float[Array, 'n d'],
    truncation: float | None = None,
    cutoff: int | None = None,
    labels: Any = None,
  ) -> Float[np.ndarray, 'n layers e']:
    """Maps latents to a w for each layer of the generator.

    Args:
      z: Latents, such as `run.inputs(8)['z']`.
      truncation: psi: 1 (or None) is no truncation, 0 gives the average w.
      cutoff: The number of layers, from the lowest resolution on, that are
        truncated. None: all.
      labels: As for `sample`; None in a conditional run: random classes.

    Raises:
      UserError: The generator is not style-based, or an argument is invalid.
    """
    style, z = self._style('w'), jnp.asarray(z, jnp.float32)
    inputs = self.inputs(max(1, z.shape[0]), labels=labels)
    if z.shape != inputs['z'].shape:
      raise UserError(
        f'z must have shape [n, {inputs["z"].shape[1]}], not {list(z.shape)}'
      )
    ws = style.map(self.params, {**inputs, 'z': z})
    if truncation is not None:
      check_psi(truncation)
      _check_layers('cutoff', cutoff, ws.shape[1])
      ws = style.truncate(self.params, ws, truncation, cutoff)
    elif cutoff is not None:
      raise UserError(f'cutoff={cutoff} needs truncation=PSI')
    return np.asarray(ws)

  def synthesize(
    self, w: Styles, noise: str = 'constant', seed: int = 0
  ) -> UInt8[np.ndarray, 'n h w c']:
    """Generates images from a w for each layer.

    Args:
      w: From `run.w`, changed or not; or one w for all layers [n, d].
      noise: 'constant' (the same for all images), 'random' or 'none'.
      seed: Of the random noise.

    Raises:
      UserError: The generator is not style-based, or an argument is invalid.
    """
    self._style('synthesize')
    choose('noise', noise, dict.fromkeys(NOISES))
    w = jnp.asarray(w, jnp.float32)
    shape = self._shape_of_w()
    if w.shape[1:] == shape[1:]:
      w = jnp.repeat(w[:, None], shape[0], axis=1)
    if w.shape[1:] != shape:
      raise UserError(
        f'w must have shape [n, {shape[0]}, {shape[1]}], not {list(w.shape)}'
      )
    keys = example_keys(
      jax.random.key(seed), Purpose.SAMPLE, jnp.arange(len(w))
    )
    inputs = {'ws': w, 'keys': keys}
    return self._in_batches(inputs, partial(self._synthesize, noise=noise))

  @functools.cached_property
  def _synthesize(self) -> Callable[..., Array]:
    """(params, {ws, keys}, noise) -> images; compiled once."""
    style = self._style('synthesize')

    def synthesize(params: PyTree, part: PyTree, noise: str) -> Array:
      return style.synthesize(params, part['ws'], part['keys'], noise)

    return jax.jit(synthesize, static_argnames='noise')

  def mix(
    self,
    rows: int = 3,
    columns: int = 5,
    layers: int | None = None,
    seed: int = 0,
    truncation: float | None = None,
    labels: Any = None,
  ) -> Image.Image:
    """Returns a grid of images that mix the styles of two samples.

    The left column and the top row show the samples themselves. An image
    between them has the first `layers` of the sample of its row (pose and
    shape), and the others of the sample of its column (texture and colour):
    Karras et al. 2019, figure 3.

    Args:
      rows, columns: The numbers of samples.
      layers: From the lowest resolution on. None: a half.
      seed, truncation, labels: As for `sample`; all samples are of one class,
        or of `rows + columns` classes.

    Raises:
      UserError: The generator is not style-based, or an argument is invalid.
    """
    style = self._style('mix')
    check_counts(rows=rows, columns=columns)
    inputs = self.inputs(rows + columns, seed, truncation, labels)
    ws = np.asarray(style.map(self.params, inputs))
    total = ws.shape[1]
    layers = total // 2 if layers is None else layers
    _check_layers('layers', layers, total)
    mixed = [
      np.concatenate([row[:layers], column[layers:]])
      for row in ws[:rows]
      for column in ws[rows:]
    ]
    images = self.synthesize(np.concatenate([ws, np.stack(mixed)]))
    ends, mixed = images[: rows + columns], images[rows + columns :]
    white = np.full_like(images[:1], 255)
    lines = [white, ends[rows:]]
    for i in range(rows):
      lines += [ends[i : i + 1], mixed[i * columns : (i + 1) * columns]]
    return show(np.concatenate(lines), columns=columns + 1)

  def _between_in_w(
    self, a: PyTree, b: PyTree, t: Float[Array, ' n']
  ) -> PyTree:
    """Returns inputs whose w is linearly between those of a and b."""
    style = self._style('interpolate(space="w")')
    w_a, w_b = (style.map(self.params, ends) for ends in (a, b))
    t = t[:, None, None]
    return {'ws': (1 - t) * w_a + t * w_b, 'keys': a['keys']}

  def _shape_of_w(self) -> tuple[int, int]:
    """Returns the number of layers, and the dimension of w."""
    style = self._style('w')
    ws = jax.eval_shape(partial(style.map, self.params), self.inputs(1))
    return ws.shape[1:]


def _check_layers(name: str, value: int | None, total: int) -> None:
  """Raises UserError unless the value is a number of layers."""
  if value is not None and not 0 <= value <= total:
    raise UserError(
      f'{name}={value} must be from 0 to {total}, the number of layers'
    )
