"""The generator of StyleGAN2 (Karras et al. 2020a, and with ADA 2020b).

G maps z to w by a multilayer perceptron. Each layer of the synthesis network is
modulated by its own w: `layers` of them, of which two neighbours may come from
different z (style mixing). D is in models/style_discriminator.py.

The names of the blocks and the defaults are those of the authors' PyTorch code;
models/style_weights.py converts their weights.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError
from gan_jax.keys import layer_keys
from gan_jax.models.layers import pixel_norm
from gan_jax.models.style_layers import (
  StyleConv,
  StyleDense,
  SynthesisLayer,
  ToRgb,
)
from gan_jax.ops import axis, fir

Images = Float[Array, 'n h w c']
Maps = Float[Array, 'n _ _ _']  # of any size: blocks change it
Styles = Float[Array, 'n layers e']  # a w for each layer

ARCHITECTURES = ('orig', 'resnet', 'skip')
NOISES = ('constant', 'none', 'random')


def resolutions(resolution: int) -> list[int]:
  """Returns the resolutions of the blocks: 4, 8, ..., `resolution`.

  Raises:
    UserError: The networks do not support the resolution.
  """
  count = resolution.bit_length()
  if resolution != 2 ** (count - 1) or not 8 <= resolution <= 1024:
    raise UserError(
      'the style networks support 8, 16, 32, ... 512 or 1024 pixels, not '
      f'{resolution}: set config.data.resolution'
    )
  return [2**k for k in range(2, count)]


def truncate(
  w_avg: Float[Array, ' e'], ws: Styles, psi: Any, cutoff: int | None = None
) -> Styles:
  """Moves w towards its average: w_avg + psi (w - w_avg).

  Karras et al. 2019, appendix B.

  Args:
    w_avg, ws: The average, and a w for each layer.
    psi: 0 gives the average image, 1 no truncation; one number, or one for each
      example.
    cutoff: The first layers, to which truncation is limited. None: all.
  """
  psi = jnp.asarray(psi, ws.dtype).reshape(-1, 1, 1)
  w_avg = w_avg.reshape(1, 1, -1)
  moved = w_avg + psi * (ws - w_avg)
  if cutoff is None:
    return moved
  first = jnp.arange(ws.shape[1])[None, :, None] < cutoff
  return jnp.where(first, moved, ws)


class Widths(nn.Module):
  """The attributes that both networks share.

  Attributes:
    resolution, channels: Those of the images.
    features, most_features: A resolution has min(features // resolution,
      most_features) feature maps.
    architecture: 'orig', 'resnet' or 'skip' (Karras et al. 2020, figure 7).
    clamp: Outputs of convolutions are clamped to +-clamp. None: they are not.
    lowprec: Number of resolutions, the highest, that `dtype` applies to. The
      others are float32.
    dtype: Computation dtype; the parameters are float32.
  """

  resolution: int
  channels: int
  features: int = 32768
  most_features: int = 512
  architecture: str = 'skip'
  clamp: float | None = None
  lowprec: int = 4
  dtype: Any = jnp.float32

  def width(self, resolution: int) -> int:
    return min(self.features // resolution, self.most_features)

  def dtype_of(self, resolution: int, exact: Any) -> Any:
    """Returns the dtype of a block; `exact` is that of the others."""
    first = max(self.resolution * 2 // 2**self.lowprec, 8)
    low = jnp.finfo(self.dtype).bits < 32
    return self.dtype if low and resolution >= first else exact

  def check(self) -> None:
    """Raises UserError if an attribute is invalid."""
    resolutions(self.resolution)
    if self.architecture not in ARCHITECTURES:
      raise UserError(
        f'unknown architecture {self.architecture!r} of a style network '
        f'(valid: {", ".join(ARCHITECTURES)})'
      )
    if self.features < self.resolution:
      raise UserError(
        f'features={self.features} of a style network gives no feature map at '
        f'{self.resolution} pixels: set it to {self.resolution} or more'
      )


SHARED = (
  'resolution', 'channels', 'features', 'most_features', 'architecture',
  'clamp', 'lowprec', 'dtype',
)  # fmt: skip


def layer_noises(
  module: nn.Module,
  sides: Sequence[int],
  dtype: Any,
  keys: Key[Array, ' n'],
  noise: str,
) -> list[Any]:
  """Returns the noise of each layer, as `SynthesisLayer` takes it.

  Args:
    module: The synthesis network, which the random noise depends on.
    sides: The resolution of each layer.
    dtype, keys: Of the random noise.
    noise: A name in NOISES.
  """
  if noise not in NOISES:
    raise UserError(f'unknown noise {noise!r} (valid: {", ".join(NOISES)})')
  if noise != 'random':
    return [noise if noise == 'constant' else None] * len(sides)
  # One call for all layers, because each takes long to compile.
  ends = list(itertools.accumulate(side**2 for side in sides))
  sample = lambda key: jax.random.normal(key, (ends[-1],), dtype)
  parts = jnp.split(jax.vmap(sample)(layer_keys(module, keys)), ends[:-1], 1)
  return [
    part.reshape(-1, side, side)
    for part, side in zip(parts, sides, strict=True)
  ]


class Mapping(nn.Module):
  """Maps z, a class, or both to w.

  Attributes:
    features: Dimension of w, and of the embedding of the class.
    layers: Number of dense layers.
    multiplier: Multiplies the learning rate.
  """

  features: int
  layers: int = 8
  multiplier: float = 0.01

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n d'] | None, labels: Float[Array, 'n k'] | None
  ) -> Float[Array, 'n e']:
    parts = [] if z is None else [pixel_norm(z)]
    if labels is not None:
      embedded = StyleDense(self.features, name='embed')(labels)
      parts.append(pixel_norm(embedded))
    x = jnp.concatenate(parts, axis=1)
    for index in range(self.layers):
      x = StyleDense(
        self.features,
        activate=True,
        multiplier=self.multiplier,
        name=f'fc{index}',
      )(x)
    return x


class _SynthesisBlock(nn.Module):
  """The layers of one resolution; `first` is the 4x4 block."""

  width: int
  resolution: int
  channels: int
  architecture: str
  first: bool
  last: bool
  clamp: float | None
  fused: bool
  dtype: Any

  @nn.compact
  def __call__(
    self,
    x: Maps | None,
    images: Maps | None,
    ws: Styles,
    noises: list[Any],
  ) -> tuple[Maps, Maps | None]:
    def layer(name: str, up: bool = False) -> SynthesisLayer:
      return SynthesisLayer(
        self.width, self.resolution, up, self.clamp, self.fused, name=name
      )

    if self.first:
      shape = self.resolution, self.resolution, self.width
      x = self.param('const', nn.initializers.normal(1.0), shape)
      x = jnp.broadcast_to(x.astype(self.dtype), (len(ws), *shape))
      x = layer('conv1')(x, ws[:, 0], noises[0])
    elif self.architecture == 'resnet':
      half = math.sqrt(0.5)
      x = x.astype(self.dtype)
      skip = StyleConv(self.width, 1, 'up', activate=False, name='skip')
      y = skip(x, gain=half)
      x = layer('conv0', up=True)(x, ws[:, 0], noises[0])
      x = y + layer('conv1')(x, ws[:, 1], noises[1], gain=half)
    else:
      x = x.astype(self.dtype)
      x = layer('conv0', up=True)(x, ws[:, 0], noises[0])
      x = layer('conv1')(x, ws[:, 1], noises[1])
    if images is not None:
      images = fir.upsample(images)
    if self.last or self.architecture == 'skip':
      to_rgb = ToRgb(self.channels, self.clamp, self.fused, name='torgb')
      y = to_rgb(x, ws[:, 1 if self.first else 2])
      y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
      images = y if images is None else images + y
    return x, images


class Synthesis(Widths):
  """Maps a w for each layer to images, without an output activation.

  Attributes:
    fused: Whether modulated convolutions are grouped; see `modulated_conv`.
  """

  fused: bool = False

  @nn.compact
  def __call__(
    self, ws: Styles, keys: Key[Array, ' n'], noise: str = 'random'
  ) -> Images:
    """Generates images with `noise` 'random' (from the keys), 'constant' or
    'none'.
    """
    sides = [s for s in resolutions(self.resolution) for _ in range(2)][1:]
    noises = layer_noises(self, sides, ws.dtype, keys, noise)
    x, images, index = None, None, 0
    for side in resolutions(self.resolution):
      block = _SynthesisBlock(
        self.width(side),
        side,
        self.channels,
        self.architecture,
        side == 4,
        side == self.resolution,
        self.clamp,
        self.fused,
        self.dtype_of(side, ws.dtype),
        name=f'b{side}',
      )
      x, images = block(x, images, ws[:, index:], noises[index:])
      index += 1 if side == 4 else 2
    return images


class StyleBased(nn.Module):
  """A generator that maps z to w, and w to images.

  A subclass calls `prepare` in its `setup` and adds `synthesis`.

  Attributes:
    resolution, channels: Those of the images.
    w_dim: Dimension of w.
    mapping_layers: Number of layers of the mapping network.
    w_decay: Decay of the moving average of w, per forward pass in training.
    mixing: Probability of style mixing in training: the last layers, from a
      random one on, get the w of a second z ~ N(0, I).
    axis_name: The device axis under pmap.
  """

  resolution: int
  channels: int
  w_dim: int = 512
  mapping_layers: int = 8
  w_decay: float = 0.995
  mixing: float = 0.9
  axis_name: str | None = None

  def prepare(self) -> None:
    """Adds the mapping network and the average of w."""
    self.mapping = Mapping(self.w_dim, self.mapping_layers)
    zeros = lambda: jnp.zeros(self.w_dim)
    self.w_avg = self.variable('averages', 'w_avg', zeros)

  @property
  def layers(self) -> int:
    """Number of layers that have a w."""
    return 2 * len(resolutions(self.resolution))

  def __call__(
    self,
    z: Float[Array, 'n d'],
    keys: Key[Array, ' n'],
    train: bool,
    labels: Float[Array, 'n k'] | None = None,
  ) -> Images:
    """Generates images with random noise."""
    return self.synthesis(self.map(z, keys, train, labels), keys)

  def map(
    self,
    z: Float[Array, 'n d'],
    keys: Key[Array, ' n'],
    train: bool,
    labels: Float[Array, 'n k'] | None = None,
  ) -> Styles:
    """Maps z to a w for each layer.

    In training, styles are mixed and the moving average of w is updated.
    """
    w = self.mapping(z, labels)
    ws = jnp.repeat(w[:, None], self.layers, axis=1)
    if not train:
      return ws
    batch = axis.mean(jnp.mean(w, axis=0), self.axis_name)
    step = (1 - self.w_decay) * (batch - self.w_avg.value)
    self.w_avg.value += jax.lax.stop_gradient(step)
    if not self.mixing:
      return ws

    def draw(key: Key[Array, '']) -> tuple[Array, Array]:
      z_key, mix_key, layer_key = jax.random.split(key, 3)
      mixed = jax.random.bernoulli(mix_key, self.mixing)
      first = jax.random.randint(layer_key, (), 1, self.layers)
      other = jax.random.normal(z_key, z.shape[1:], z.dtype)
      return other, jnp.where(mixed, first, self.layers)

    other, first = jax.vmap(draw)(layer_keys(self, keys))
    own = jnp.arange(self.layers)[None] < first[:, None]
    return jnp.where(own[..., None], ws, self.mapping(other, labels)[:, None])

  def synthesize(
    self, ws: Styles, keys: Key[Array, ' n'], noise: str = 'random'
  ) -> Images:
    """Generates images from a w for each layer; see `Synthesis`."""
    return self.synthesis(ws, keys, noise)


class Generator(StyleBased, Widths):
  """The generator of StyleGAN2.

  Attributes:
    fused: Whether modulated convolutions are grouped; see `modulated_conv`.
    Others: See `Widths` and `StyleBased`.
  """

  fused: bool = False

  def setup(self):
    self.check()
    self.prepare()
    shared = {name: getattr(self, name) for name in SHARED}
    self.synthesis = Synthesis(**shared, fused=self.fused)
