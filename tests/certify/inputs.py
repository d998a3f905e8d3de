"""Inputs of our metrics and of the reference packages, the same everywhere."""

import numpy as np
from sklearn.datasets import load_digits


def feature_pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns {name: (real, fake) features in float64}."""
  rng = np.random.RandomState(0)
  mixing = rng.randn(64, 64) / 8
  gaussian = (
    rng.randn(1500, 64) @ mixing,
    rng.randn(1200, 64) @ mixing * 1.1 + 0.1,
  )
  # Like a network's last layer: many features, not negative, few examples.
  weights = rng.randn(16, 256)
  sparse = tuple(
    np.maximum(rng.randn(n, 16) * scale @ weights, 0)
    for n, scale in ((200, 1.0), (180, 1.2))
  )
  pixels = load_digits().data
  return {
    'gaussian': gaussian,
    'sparse': sparse,
    'digits': (pixels[:900], pixels[900:]),
  }


def logits() -> np.ndarray:
  """Returns logits of 1,003 examples, which splits do not divide."""
  return 3 * np.random.RandomState(1).randn(1003, 12)


def image_pairs() -> dict[str, np.ndarray]:
  """Returns {name: uint8 [2, h, w, 1]}, two similar or unrelated images."""
  rng = np.random.RandomState(2)
  noise = rng.randint(0, 256, (2, 176, 176, 1))
  noise[1] = (noise[0] + noise[1]) / 2
  rows, columns = np.mgrid[:192, :208]
  waves = 127 + 60 * np.sin(rows / 9) + 60 * np.cos(columns / 7)
  waves = np.stack([waves, np.roll(waves, 3, 1) * 0.8 + 10])[..., None]
  faint = waves[:1] + rng.randint(-9, 10, (2, 192, 208, 1))
  pairs = {'noise': noise, 'waves': waves, 'faint': faint}
  return {k: np.clip(v, 0, 255).astype(np.uint8) for k, v in pairs.items()}
