"""What the lab takes from games, data sources and runs, in one place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from gan_jax import data
from gan_jax.data.on_device import make_reader
from gan_jax.data.source import Source
from gan_jax.data.toys import Toy
from gan_jax.errors import UserError
from gan_jax.games.game import Batch
from gan_jax.runs.run import Run


def open_toy(config: ConfigDict) -> tuple[Source, Toy]:
  """Opens the source of a config, and its distribution.

  Raises:
    UserError: The source has images instead of points.
  """
  check_toy(config)
  source = data.make(config)
  return source, source.toy


def check_toy(config: ConfigDict) -> None:
  """Raises UserError if the source of a config has no points."""
  if data.toy_of(config) is None:
    raise UserError(
      f'the lab trains toys, and config.data.source={config.data.source} has '
      'images: remove --config, or open a run of images by '
      '--mode=lab --workdir=RUN'
    )


def reader(config: ConfigDict, source: Source) -> Callable[..., Batch]:
  """Makes (examples, key, step) -> batch, for a source that is drawn."""
  read = make_reader(config, source)
  return lambda examples, key, step: read({}, {'example': examples}, key, step)


def batch_shapes(config: ConfigDict) -> dict[str, Any]:
  """Returns the shapes of a batch with which the networks are initialized."""
  side, channels = config.data.resolution, config.data.channels
  return {
    'images': jax.ShapeDtypeStruct((64, side, side, channels), jnp.float32),
    'example': jax.ShapeDtypeStruct((64,), jnp.int32),
  }


def between(run: Run, a: PyTree, b: PyTree, t: Float[Array, ' n']) -> PyTree:
  """Interpolates between inputs of a run.

  Raises:
    UserError: The game has no latents.
  """
  interpolate = run._game.interpolate
  if interpolate is None:
    raise UserError('this game has no latents to walk through')
  return interpolate(a, b, t)
