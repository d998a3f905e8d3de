"""Where images come from: a new source is a function here, and a row."""

from collections.abc import Callable
from typing import Any

from gan_jax.data.digits import embedded, official
from gan_jax.data.folder import folder
from gan_jax.data.source import Source
from gan_jax.data.standard import MODES
from gan_jax.data.toys import slanted_land
from gan_jax.errors import UserError, choose

# `config.data.source` is NAME or NAME:PATH; a row is a function
# (path, resolution, channels) -> Source.
SOURCES: dict[str, Callable[[str, int, int], Source]] = {
  'digits': embedded,
  'folder': folder,
  'mnist': official,
  'slanted_land': slanted_land,
}


def make(config: Any) -> Source:
  """The source that `config.data` describes."""
  data = config.data
  if data.channels not in MODES:
    raise UserError(
      f'config.data.channels is 1 (grey) or 3 (RGB), not {data.channels}'
    )
  name, _, path = data.source.partition(':')
  source = choose('config.data.source', name, SOURCES)
  return source(path, data.resolution, data.channels)
