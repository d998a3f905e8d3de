"""Conversion of images in [-1, 1] to uint8."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


def to_uint8(
  images: Float[Array, '*s'] | Float[np.ndarray, '*s'],
) -> UInt8[np.ndarray, '*s']:
  """Converts [-1, 1] to 0..255, rounded; clips other values; NaN becomes 0."""
  scaled = np.round((np.asarray(images, np.float32) + 1) * 127.5)
  scaled = np.nan_to_num(scaled, nan=0.0)
  return np.clip(scaled, 0, 255).astype(np.uint8)


def quantize(images: Float[Array, '*s']) -> UInt8[Array, '*s']:
  """Computes `to_uint8` on the device."""
  scaled = jnp.nan_to_num(jnp.round((images + 1) * 127.5), nan=0.0)
  return jnp.clip(scaled, 0, 255).astype(jnp.uint8)
