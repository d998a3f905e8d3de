"""A strided convolution, its transpose and its filter gradient: one family.

They are the three contractions of one trilinear form,

  <conv(x, w), y> = <x, conv_transpose(y, w)> = <w, filter_grad(x, y)>,

and so the derivatives of each are the other two: differentiated to any order
(gradient penalties are differentiated twice) nothing else is ever computed,
and each has what is fastest on its platform. Left to itself, XLA computes the
filter gradient of a transposed convolution as a dilated convolution, on a CPU
at a hundredth of the speed.

Arrays are x [n, H, W, c], y [n, h, w, d]; filters are w [kh, kw, c, d], also
those of the transpose, which maps d channels to c.
"""

from collections.abc import Sequence
from functools import partial

import jax
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops import conv_cpu, conv_xla
from gan_jax.ops.window import Window

Large = Float[Array, 'n H W c']
Small = Float[Array, 'n h w d']
Filter = Float[Array, 'kh kw c d']


def conv(
  x: Large, w: Filter, stride: int = 1, padding: int | Sequence[int] = 0
) -> Small:
  """y[i] = sum_k x[stride i + k - before] w[k]: a cross-correlation.

  Args:
    x, w: Of one dtype.
    stride: In both directions.
    padding: Zeros on each side, or (before, after); of both axes.
  """
  return _conv(_window(x.shape[1:3], w, stride, padding), x, w)


def conv_transpose(
  y: Small,
  w: Filter,
  stride: int = 1,
  padding: int | Sequence[int] = 0,
  size: tuple[int, int] | None = None,
) -> Large:
  """The linear transpose of `conv` in x, not its inverse.

  Args:
    y, w, stride, padding: As of that convolution.
    size: H and W, which stride and y do not tell; None: the least.
  """
  before, after = _two(padding)
  least = tuple(
    stride * (n - 1) + k - before - after
    for n, k in zip(y.shape[1:3], w.shape[:2], strict=True)
  )
  return _conv_transpose(_window(size or least, w, stride, padding), y, w)


def filter_grad(
  x: Large,
  y: Small,
  kernel: tuple[int, int],
  stride: int = 1,
  padding: int | Sequence[int] = 0,
) -> Filter:
  """The linear transpose of `conv` in w; `kernel`: kh, kw."""
  window = Window(kernel, stride, (_two(padding),) * 2, x.shape[1:3])
  return _filter_grad(window, x, y)


def _two(padding: int | Sequence[int]) -> tuple[int, int]:
  before, after = (padding, padding) if isinstance(padding, int) else padding
  return before, after


def _window(
  size: tuple[int, int], w: Array, stride: int, padding: int | Sequence[int]
) -> Window:
  return Window(w.shape[:2], stride, (_two(padding),) * 2, tuple(size))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(window: Window, x: Array, w: Array) -> Array:
  return _by_platform('conv', window, x, w)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_transpose(window: Window, y: Array, w: Array) -> Array:
  return _by_platform('conv_transpose', window, y, w)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _filter_grad(window: Window, x: Array, y: Array) -> Array:
  return _by_platform('filter_grad', window, x, y)


def _by_platform(name: str, window: Window, a: Array, b: Array) -> Array:
  cpu, other = (
    partial(getattr(module, name), window) for module in (conv_cpu, conv_xla)
  )
  return lax.platform_dependent(a, b, cpu=cpu, default=other)


# What each is of the two it was given, and what its cotangent is of the form.
_conv.defvjp(
  lambda window, x, w: (_conv(window, x, w), (x, w)),
  lambda window, given, y: (
    _conv_transpose(window, y, given[1]),
    _filter_grad(window, given[0], y),
  ),
)
_conv_transpose.defvjp(
  lambda window, y, w: (_conv_transpose(window, y, w), (y, w)),
  lambda window, given, x: (
    _conv(window, x, given[1]),
    _filter_grad(window, x, given[0]),
  ),
)
_filter_grad.defvjp(
  lambda window, x, y: (_filter_grad(window, x, y), (x, y)),
  lambda window, given, w: (
    _conv_transpose(window, given[1], w),
    _conv(window, given[0], w),
  ),
)
