"""Compact representations of images: encodings, and D's features."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree, Shaped

from gan_jax.errors import UserError, suggest

if TYPE_CHECKING:
  from gan_jax.runs.run import Labels, Run

# Images that are encoded together.
BATCH = 250

Images = Shaped[np.ndarray, 'n h w c']


def encode(run: 'Run', images: Images) -> dict[str, Float[np.ndarray, 'n d']]:
  """Infers the generator's inputs from images, for a game that can.

  Args:
    run: A run of `bigan`, which gives {'z': [n, d]}: the latents, by the moving
      average of the encoder; or of `infogan`, which gives the probabilities of
      the categorical code, 'class' [n, categories], and the means of the
      continuous codes, 'codes' [n, codes].
    images: uint8, or floats in [-1, 1].

  Raises:
    UserError: The game has no encoder, or the images have another shape.
  """
  if run._game.encode is None:
    raise UserError(
      f'the game {run.config.game.name!r} has no encoder: train one of '
      'config.game.name=bigan or infogan, or search latents by run.invert'
    )
  apply = jax.jit(
    lambda variables, batch: run._game.encode(variables, batch, run._phase)
  )
  return _apply(apply, run._averaged, run._to_disc_inputs(images), None)


def features(
  run: 'Run',
  images: Images,
  layer: str | int | None = None,
  labels: 'Labels | None' = None,
) -> Float[np.ndarray, 'n d']:
  """Returns the activations of a layer of D, flat, as a representation.

  Args:
    run: The run.
    images: uint8, or floats in [-1, 1].
    layer: The layer's name, or its number (-1: the last, which has the logits).
      None: the layer before the last.
    labels: Of a conditional run: the class of each image, or one for all.

  Raises:
    UserError: There is no such layer, or this game's D needs more than images.
  """
  if run._game.features is None:
    raise UserError('the discriminator of this game needs more than images')
  reals = run._to_disc_inputs(images)
  if labels is not None:
    labels = np.asarray(run._expand_labels(len(reals), labels))
  apply = lambda variables, batch: run._game.features(
    variables, batch, run._phase
  )
  names: list[str] = []  # in the order of the layers, which jit would sort
  batch = _batch(reals[:1], labels if labels is None else labels[:1])
  jax.eval_shape(
    lambda *inputs: names.extend(apply(*inputs)), run.disc_vars, batch
  )
  name = _layer(names, layer)
  chosen = jax.jit(lambda *inputs: {name: apply(*inputs)[name]})
  found = _apply(chosen, run.disc_vars, reals, labels)[name]
  return found.reshape(len(found), -1)


def _layer(names: list[str], layer: str | int | None) -> str:
  """Returns the name of a layer."""
  listed = ', '.join(names)
  if layer is None:
    return names[max(0, len(names) - 2)]
  if isinstance(layer, int):
    if not -len(names) <= layer < len(names):
      raise UserError(
        f'layer={layer} of {len(names)} layers does not exist ({listed})'
      )
    return names[layer]
  if layer not in names:
    raise UserError(
      f'there is no layer {layer!r}{suggest(str(layer), names)} '
      f'(valid: {listed})'
    )
  return layer


def _apply(
  apply: Callable[[PyTree, PyTree], dict],
  variables: PyTree,
  images: Images,
  labels: np.ndarray | None,
) -> dict[str, np.ndarray]:
  """Applies a function to batches of images; concatenates the results."""
  parts = []
  for i in range(0, len(images), BATCH):
    some = slice(i, i + BATCH)
    batch = _batch(images[some], labels if labels is None else labels[some])
    parts.append(jax.tree.map(np.asarray, apply(variables, batch)))
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _batch(images: Images, labels: np.ndarray | None) -> PyTree:
  batch = {'images': jnp.asarray(images)}
  return batch if labels is None else {**batch, 'labels': jnp.asarray(labels)}
