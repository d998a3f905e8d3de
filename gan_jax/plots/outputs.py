"""The images of a game's outputs, beside the images they are generated from."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, PyTree, UInt8

from gan_jax.games.game import Batch, Game, Output, Phase
from gan_jax.pair import Variables
from gan_jax.plots.grid import grid


class OutputImages(NamedTuple):
  """The images of one output: given -> samples, and the targets.

  Attributes:
    samples: Generated images.
    given: The image that each is generated from; None: latents.
    target: What each should equal; None: there is no such image.
  """

  samples: Array
  given: Array | None = None
  target: Array | None = None


def images_of(
  output: Output,
  gen_vars: Variables,
  inputs: PyTree,
  batch: Batch,
  phase: Phase,
) -> OutputImages:
  """Generates the images of one output."""
  return OutputImages(
    output.sample(gen_vars, inputs, phase),
    output.given and output.given(batch),
    output.target and output.target(batch),
  )


def generate_outputs(
  game: Game, gen_vars: Variables, inputs: PyTree, batch: Batch, phase: Phase
) -> dict[str, OutputImages]:
  """Generates the images of every output of a game."""
  return {
    name: images_of(output, gen_vars, inputs, batch, phase)
    for name, output in game.outputs.items()
  }


def output_grid(
  images: OutputImages, columns: int | None = None
) -> UInt8[np.ndarray, 'h w c']:
  """Arranges uint8 images in a grid: given, sample and target side by side.

  Smaller given images are enlarged by whole factors.
  """
  beside = [images.given, images.samples, images.target]
  beside = [x for x in beside if x is not None]
  if len(beside) == 1:
    return grid(images.samples, columns)
  size = images.samples.shape[1]
  beside = [_enlarge(x, size, images.samples.shape[-1]) for x in beside]
  if columns is None:
    columns = math.ceil(math.sqrt(len(images.samples) / len(beside)))
  return grid(np.concatenate(beside, axis=2), columns)


def _enlarge(
  images: UInt8[np.ndarray, 'n h w c'], size: int, channels: int
) -> UInt8[np.ndarray, 'n H W c']:
  """Repeats pixels up to `size`, and grey channels up to `channels`."""
  factor = max(1, size // images.shape[1])
  images = images.repeat(factor, axis=1).repeat(factor, axis=2)
  if images.shape[-1] < channels:
    images = images.repeat(channels // images.shape[-1], axis=-1)
  return images
