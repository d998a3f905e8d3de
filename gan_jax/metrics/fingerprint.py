"""The fingerprint of the data that a score was measured on."""

import hashlib
from typing import Any

import numpy as np

from gan_jax.data.source import Fingerprint, Source

# Sets up to this size are identified by a hash of all pixels, larger ones by
# their files.
MAX_HASHED_BYTES = 2**26
# The number of draws that identify a distribution.
NUM_HASHED_DRAWS = 256
# The number of images that are fetched at once.
CHUNK = 4096


def describe(source: Source, digests: Fingerprint) -> dict[str, Any]:
  """Describes a source in the protocol."""
  return {'images': source.size, 'content': digests.content}


def fingerprint(source: Source) -> Fingerprint:
  """Computes the fingerprint of a source."""
  small = source.size * source.example_bytes <= MAX_HASHED_BYTES
  if source.draw is not None:  # rounded: machines differ in the last bit
    count = min(NUM_HASHED_DRAWS, source.size)
    images = source.fetch(np.arange(count))['images']
    content = hashlib.sha256(images.round(3).tobytes()).hexdigest()[:16]
    return Fingerprint(content, content)
  if source.fingerprint is not None and not small:
    digests = source.fingerprint()
    return Fingerprint(*(digest[:16] for digest in digests))
  pixels = hashlib.sha256()
  for first in range(0, source.size, CHUNK):
    rows = np.arange(first, min(first + CHUNK, source.size))
    pixels.update(source.fetch(rows)['images'].tobytes())
  return Fingerprint(*2 * [pixels.hexdigest()[:16]])


def label_digest(source: Source) -> str | None:
  """Computes a digest of the labels; None: only `Source.fetch` returns them."""
  if source.labels is None:
    return None
  return hashlib.sha256(source.labels().tobytes()).hexdigest()[:16]
