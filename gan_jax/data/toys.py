"""Data sets that are made, not gathered: small enough to be understood."""

import numpy as np

from gan_jax.data.source import Source, Wanted, check_undivided, in_memory
from gan_jax.errors import UserError


def slanted_land(wanted: Wanted) -> Source:
  """2x2 pictures of the people of Slanted Land.

  Everybody there is tilted: faces are bright on the main diagonal (3/4 to all
  of full brightness) and dark off it (none to 1/4).
  """
  check_undivided('slanted_land', wanted)
  if wanted.path or (wanted.resolution, wanted.channels) != (2, 1):
    raise UserError(
      'slanted_land has no path, and grey pictures of 2x2 pixels: '
      'set config.data.resolution to 2 and config.data.channels to 1'
    )
  rng = np.random.default_rng(0)
  bright = rng.uniform(0.75, 1.0, (4096, 2))
  dark = rng.uniform(0.0, 0.25, (4096, 2))
  faces = np.stack([bright[:, 0], dark[:, 0], dark[:, 1], bright[:, 1]], 1)
  images = np.round(255 * faces).astype(np.uint8).reshape(-1, 2, 2, 1)
  return in_memory({'images': images})
