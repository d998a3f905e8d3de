"""The augmentations of StyleGAN2-ADA, each applied with a probability.

Karras et al. 2020, "Training generative adversarial networks with limited
data", appendix B. The geometric transformations of an image are composed into
one matrix, and so are those of its colours. `sample` draws the parameters of an
image, and `transform` applies given ones; the latter is differentiable with
respect to the image to any order.
"""

import math
from collections.abc import Mapping
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from gan_jax.ops.warp import warp

Image = Float[Array, 'h w c']
Scalar = float | Float[Array, '']

GROUPS = ('blit', 'geometric', 'color', 'filter', 'noise', 'cutout')


def _all(*groups: str) -> dict[str, float]:
  return dict.fromkeys(groups, 1.0)


# The groups of a pipeline, with the strength that multiplies the probability of
# each of their transformations. The names are those of the paper; the last c of
# bgcfnc is the cutout. R3GAN (Huang et al. 2024) has one of its own.
PIPELINES: dict[str, dict[str, float]] = {
  'b': _all('blit'),
  'g': _all('geometric'),
  'c': _all('color'),
  'f': _all('filter'),
  'n': _all('noise'),
  'cutout': _all('cutout'),
  'bg': _all(*GROUPS[:2]),
  'bgc': _all(*GROUPS[:3]),
  'bgcf': _all(*GROUPS[:4]),
  'bgcfn': _all(*GROUPS[:5]),
  'bgcfnc': _all(*GROUPS),
  'r3gan': {'blit': 1.0, 'geometric': 1.0, 'color': 0.5, 'cutout': 1.0},
}


class Transforms(NamedTuple):
  """The parameters of the transformations of one image.

  Attributes:
    mirror: 1 mirrors the image horizontally; 0: nothing.
    quarter_turns: Rotation by 90 degrees, 0 to 3 times.
    shift: Translation (x, y) in image sizes, rounded to whole pixels.
    scale: Factor of both sides.
    rotation: Angle in radians, before the stretch.
    stretch: Factor of the width, and one over that of the height.
    second_rotation: Angle in radians, after the stretch.
    offset: Translation (x, y) in image sizes.
    brightness: It is added to all channels.
    contrast: It multiplies all channels.
    luma_flip: 1 mirrors the brightness at 0; 0: nothing.
    hue: Angle of the rotation about the grey axis, in radians.
    saturation: It multiplies the distance from the grey axis.
    gains: Amplification of each frequency band, from low to high.
    noise: Standard deviation of the noise.
    cut: Size of the square that is set to 0, in image sizes.
    cut_centre: Centre (x, y) of the square, in image sizes.
  """

  mirror: Scalar = 0.0
  quarter_turns: Scalar = 0.0
  shift: Float[Array, '2'] = np.zeros(2, np.float32)
  scale: Scalar = 1.0
  rotation: Scalar = 0.0
  stretch: Scalar = 1.0
  second_rotation: Scalar = 0.0
  offset: Float[Array, '2'] = np.zeros(2, np.float32)
  brightness: Scalar = 0.0
  contrast: Scalar = 1.0
  luma_flip: Scalar = 0.0
  hue: Scalar = 0.0
  saturation: Scalar = 1.0
  gains: Float[Array, '4'] = np.ones(4, np.float32)
  noise: Scalar = 0.0
  cut: Scalar = 0.0
  cut_centre: Float[Array, '2'] = np.full(2, 0.5, np.float32)


# The transformations of each group.
_MEMBERS = {
  'blit': ('mirror', 'quarter_turns', 'shift'),
  'geometric': ('scale', 'rotation', 'stretch', 'second_rotation', 'offset'),
  'color': ('brightness', 'contrast', 'luma_flip', 'hue', 'saturation'),
  'filter': ('gains',),
  'noise': ('noise',),
  'cutout': ('cut',),
}


def sample(
  key: Key[Array, ''], p: Scalar, strengths: Mapping[str, float]
) -> Transforms:
  """Samples the transformations of one image.

  Args:
    key: The key of the image.
    p: The probability of each transformation; a value above 1 counts as 1.
    strengths: A pipeline: the factor of p for each group.
  """
  # One draw for all: each would be a large program of its own on a CPU.
  count = len(Transforms._fields)
  above = np.nextafter(np.float32(-1), np.float32(0))  # erfinv(-1) is infinite
  shape = (count + 4 + 12 + 10,)
  either_side = jax.random.uniform(key, shape, minval=above, maxval=1.0)
  gates = either_side[: count + 4] / 2 + 0.5
  normal = math.sqrt(2) * jax.scipy.special.erfinv(either_side[-22:-10])
  either_side = either_side[-10:]
  u = either_side / 2 + 0.5
  drawn = Transforms(
    mirror=jnp.floor(2 * u[0]),
    quarter_turns=jnp.floor(4 * u[1]),
    shift=either_side[2:4] / 8,
    scale=jnp.exp2(0.2 * normal[0]),
    rotation=math.pi * either_side[4],
    stretch=jnp.exp2(0.2 * normal[1]),
    second_rotation=math.pi * either_side[5],
    offset=normal[2:4] / 8,
    brightness=0.2 * normal[4],
    contrast=jnp.exp2(0.5 * normal[5]),
    luma_flip=jnp.floor(2 * u[6]),
    hue=math.pi * either_side[7],
    saturation=jnp.exp2(normal[6]),
    gains=jnp.exp2(normal[7:11]),
    noise=0.1 * jnp.abs(normal[11]),
    cut=jnp.float32(0.5),
    cut_centre=u[8:10],
  )
  none = Transforms()
  kept = {'cut_centre': drawn.cut_centre}
  for group, strength in strengths.items():
    for name in _MEMBERS[group]:
      probability = strength * p
      if name.endswith('rotation'):  # p is the probability of either
        probability = 1 - jnp.sqrt(1 - jnp.clip(probability, 0.0, 1.0))
      gate = gates[Transforms._fields.index(name)]
      if name == 'gains':
        gate = gates[-4:]  # one for each band
      chosen, identity = getattr(drawn, name), getattr(none, name)
      kept[name] = jnp.where(gate < probability, chosen, identity)
  return none._replace(**kept)


def transform(
  image: Image,
  transforms: Transforms,
  groups: Mapping[str, float],
  key: Key[Array, ''],
) -> Image:
  """Applies the transformations of some groups to an image.

  Args:
    image: An image with 1 or 3 channels.
    transforms: The parameters of all transformations.
    groups: The groups to apply: the keys of a pipeline.
    key: The key of the image, for the noise.
  """
  height, width, channels = image.shape
  if 'blit' in groups or 'geometric' in groups:
    image = warp(image, inverse_of(transforms, height, width))
  if 'color' in groups:
    image = _recolor(image, color_matrix(transforms, channels))
  if 'filter' in groups:
    image = _filter(image, transforms.gains)
  if 'noise' in groups:
    noise = jax.random.normal(jax.random.fold_in(key, 0), image.shape)
    image += transforms.noise * noise
  if 'cutout' in groups:
    image = _cut(image, transforms.cut, transforms.cut_centre)
  return image


def augment(
  images: Float[Array, 'n h w c'],
  keys: Key[Array, ' n'],
  p: Scalar,
  strengths: Mapping[str, float],
) -> Float[Array, 'n h w c']:
  """Augments each image independently.

  Args:
    images: Images with 1 or 3 channels.
    keys: One per image.
    p: The probability of each transformation.
    strengths: A row of PIPELINES.
  """

  transforms = jax.vmap(partial(sample, p=p, strengths=strengths))(keys)
  # XLA would compute the random numbers again for each pixel that uses them.
  transforms = jax.lax.optimization_barrier(transforms)
  return jax.vmap(partial(transform, groups=strengths))(
    images, transforms, key=keys
  )


# The matrices below are float32 on every platform.
_multiply = partial(jnp.matmul, precision='highest')


def _matrix(rows: list[list[Scalar]]) -> Array:
  return jnp.stack([jnp.stack(jnp.broadcast_arrays(*row)) for row in rows])


def _scaling(x: Scalar, y: Scalar) -> Float[Array, '3 3']:
  return _matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def _rotation(angle: Scalar) -> Float[Array, '3 3']:
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return _matrix([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _translation(x: Scalar, y: Scalar) -> Float[Array, '3 3']:
  return _matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def inverse_of(
  transforms: Transforms, height: int, width: int
) -> Float[Array, '3 3']:
  """Composes the geometric transformations; see `ops.warp` for the matrix."""
  t = transforms
  size = jnp.array([width, height], jnp.float32)
  shift, offset = jnp.round(t.shift * size), t.offset * size
  return reduce(
    _multiply,
    [
      _scaling(1 - 2 * t.mirror, 1.0),
      _rotation(math.pi / 2 * t.quarter_turns),
      _translation(-shift[0], -shift[1]),
      _scaling(1 / t.scale, 1 / t.scale),
      _rotation(t.rotation),
      _scaling(1 / t.stretch, t.stretch),
      _rotation(t.second_rotation),
      _translation(-offset[0], -offset[1]),
    ],
  )


def color_matrix(transforms: Transforms, channels: int) -> Float[Array, '4 4']:
  """Composes the colour transformations of (red, green, blue, 1).

  A grey image has no hue and no saturation.
  """
  t = transforms
  grey = np.outer([1, 1, 1, 0], [1, 1, 1, 0]).astype(np.float32) / 3
  identity = np.eye(4, dtype=np.float32)
  steps = [
    jnp.eye(4).at[:3, 3].set(t.brightness),
    jnp.diag(jnp.append(jnp.full(3, t.contrast), 1.0)),
    identity - 2 * grey * t.luma_flip,
  ]
  if channels == 3:
    steps += [
      _hue_rotation(t.hue),
      grey + (identity - grey) * t.saturation,
    ]
  return reduce(lambda product, step: _multiply(step, product), steps)


def _hue_rotation(angle: Scalar) -> Float[Array, '4 4']:
  """Rotates colours about the grey axis (Rodrigues' formula)."""
  grey = np.full((3, 3), 1 / 3, np.float32)
  cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  turn = cos * np.eye(3, dtype=np.float32) + sin * cross / np.sqrt(
    3, dtype=np.float32
  )
  turn += (1 - cos) * grey
  return jnp.eye(4).at[:3, :3].set(turn)


def _recolor(image: Image, matrix: Float[Array, '4 4']) -> Image:
  """Applies an affine map to the colours of the pixels."""
  if image.shape[-1] == 3:
    # Matrix units would round the colours.
    turn = partial(jnp.einsum, 'hwj,ij->hwi', precision='highest')
    return turn(image, matrix[:3, :3]) + matrix[None, None, :3, 3]
  row = matrix[:3].mean(0)
  return image * row[:3].sum() + row[3]


def _filter_bank() -> Float[np.ndarray, '4 taps']:
  """Makes the filters of four frequency bands, whose sum is the identity.

  The bands are [0, 1/8], [1/8, 1/4], [1/4, 1/2] and [1/2, 1] of the highest
  frequency, separated by the wavelet sym2.
  """
  root = math.sqrt(3)
  low = np.array([1 - root, 3 - root, 3 + root, 1 + root]) / (4 * math.sqrt(2))
  high = low * [1, -1, 1, -1]
  low, high = (np.convolve(x, x[::-1]) / 2 for x in (low, high))
  bank = [np.ones(1)]
  for _ in range(3):
    spread = [np.insert(x, range(1, len(x)), 0) for x in bank]
    bank = [np.convolve(x, low) for x in spread]
    pad = (len(bank[0]) - len(high)) // 2
    bank.append(np.pad(high, pad))
  return np.stack(bank)


def _band_matrices(size: int) -> Float[np.ndarray, '4 size size']:
  """Makes the matrices that filter an axis; the border is mirrored."""
  bank = _filter_bank()
  half = bank.shape[1] // 2
  source = np.pad(np.arange(size), half, mode='reflect')
  matrices = np.zeros((len(bank), size, size))
  for row in range(size):
    for tap, values in enumerate(bank.T):
      matrices[:, row, source[row + tap]] += values
  return matrices.astype(np.float32)


def _filter(image: Image, gains: Float[Array, '4']) -> Image:
  """Amplifies frequency bands.

  Each amplification is followed by one of the whole image that keeps the
  expected power, that of a spectrum 1/f.
  """
  power = np.array([10, 1, 1, 1], np.float32) / 13
  kept = jnp.sqrt(1 + power * (jnp.square(gains) - 1))
  gains = gains / jnp.prod(kept)
  height, width, _ = image.shape
  mix = partial(jnp.einsum, precision='highest')
  rows = mix('b,bij->ij', gains, _band_matrices(height))
  columns = mix('b,bij->ij', gains, _band_matrices(width))
  return mix('ij,jkc,lk->ilc', rows, image, columns)


def _cut(image: Image, size: Scalar, centre: Float[Array, '2']) -> Image:
  """Sets a square to 0."""
  inside = []
  for length, middle in zip(
    image.shape[:2], (centre[1], centre[0]), strict=True
  ):
    at = (jnp.arange(length) + 0.5) / length
    inside.append(jnp.abs(at - middle) < size / 2)
  cut = inside[0][:, None] & inside[1][None, :]
  return jnp.where(cut[..., None], 0.0, image)
