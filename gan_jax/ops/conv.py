"""A strided convolution, its transpose and its filter gradient: one family.

They are the three contractions of one trilinear form,

  <conv(x, w), y> = <x, conv_transpose(y, w)> = <w, filter_grad(x, y)>,

and so the derivatives of each are the other two: differentiated to any order,
forward or backward (gradient penalties are differentiated twice), nothing else
is ever computed, and each has what is fastest on its platform. Left to itself,
XLA computes the filter gradient of a transposed convolution as a dilated
convolution, on a CPU at a hundredth of the speed.

(Under vmap a filter for each example leaves the family; under `shard_map` ask
for `check_vma=False`.)

Arrays are x [n, H, W, c], y [n, h, w, d]; filters are w [kh, kw, c, d], also
those of the transpose, which maps d channels to c.
"""

import numbers
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
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

  Raises:
    ValueError: The arrays do not fit each other.
  """
  window = _window(x.shape[1:3], w.shape[:2], stride, padding)
  _sizes_after(window)
  return _bind(_conv, x, w, window)


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

  Raises:
    ValueError: There is no such convolution of images of that size.
  """
  before, after = _two(padding)
  least = tuple(
    stride * (n - 1) + k - before - after
    for n, k in zip(y.shape[1:3], w.shape[:2], strict=True)
  )
  window = _window(size or least, w.shape[:2], stride, padding)
  _check_fits(window, y)
  return _bind(_conv_transpose, y, w, window)


def filter_grad(
  x: Large,
  y: Small,
  kernel: tuple[int, int],
  stride: int = 1,
  padding: int | Sequence[int] = 0,
) -> Filter:
  """The linear transpose of `conv` in w; `kernel`: kh, kw.

  Raises:
    ValueError: No convolution of x by such a kernel has the size of y.
  """
  window = _window(x.shape[1:3], kernel, stride, padding)
  _check_fits(window, y)
  return _bind(_filter_grad, x, y, window)


def _two(padding: int | Sequence[int]) -> tuple[int, int]:
  both = isinstance(padding, numbers.Integral)
  before, after = (padding, padding) if both else padding
  return int(before), int(after)


def _window(
  size: Sequence[int],
  kernel: Sequence[int],
  stride: int,
  padding: int | Sequence[int],
) -> Window:
  return Window(tuple(kernel), stride, (_two(padding),) * 2, tuple(size))


def _bind(member: Primitive, a: Array, b: Array, window: Window) -> Array:
  if a.dtype != b.dtype:
    raise ValueError(f'a convolution is of one dtype, not {a.dtype}, {b.dtype}')
  return member.bind(a, b, window=window)


def _check_fits(window: Window, y: Array) -> None:
  if _sizes_after(window) != y.shape[1:3]:
    raise ValueError(
      f'{window.size} pixels become {_sizes_after(window)} by a kernel of '
      f'{window.kernel}, stride {window.stride}, padding {window.padding[0]}, '
      f'not {y.shape[1:3]}'
    )


def _member(
  name: str, shape: Callable[[Window, Any, Any], tuple[int, ...]]
) -> Primitive:
  """One of the three, with what it is on each platform."""
  on_cpu, elsewhere = getattr(conv_cpu, name), getattr(conv_xla, name)
  member = Primitive(f'gan_jax_{name}')
  bind = lambda a, b, *, window: member.bind(a, b, window=window)
  member.def_impl(jax.jit(bind, static_argnames='window'))
  member.def_abstract_eval(
    lambda a, b, *, window: a.update(shape=shape(window, a, b))
  )
  for function, platform in ((on_cpu, 'cpu'), (elsewhere, None)):
    call = lambda a, b, *, window, function=function: function(window, a, b)
    lowered = mlir.lower_fun(call, multiple_results=False)
    mlir.register_lowering(member, lowered, platform=platform)

  def batched(args, axes, *, window):
    a, b = args
    if axes[1] is not None or name == 'filter_grad':
      return jax.vmap(partial(elsewhere, window), axes)(a, b), 0
    # One filter for all: the images are only more of them.
    a = jnp.moveaxis(a, axes[0], 0)
    result = member.bind(a.reshape(-1, *a.shape[2:]), b, window=window)
    return result.reshape(*a.shape[:2], *result.shape[1:]), 0

  batching.primitive_batchers[member] = batched
  return member


_conv = _member(
  'conv',
  lambda window, x, w: (
    x.shape[0],
    *_sizes_after(window),
    w.shape[3],
  ),
)
_conv_transpose = _member(
  'conv_transpose',
  lambda window, y, w: (y.shape[0], *window.size, w.shape[2]),
)
_filter_grad = _member(
  'filter_grad',
  lambda window, x, y: (*window.kernel, x.shape[3], y.shape[3]),
)


def _sizes_after(window: Window) -> tuple[int, ...]:
  room = tuple(
    size + sum(padding) - kernel
    for size, padding, kernel in zip(
      window.size, window.padding, window.kernel, strict=True
    )
  )
  if min(room) < 0:
    raise ValueError(
      f'a kernel of {window.kernel} is larger than the image, {window.size} '
      f'with {window.padding[0]} around it'
    )
  return tuple(n // window.stride + 1 for n in room)


# The derivative of each in its first argument, and in its second, given the
# cotangent and the other one.
ad.defbilinear(
  _conv,
  lambda y, _, w, **window: _conv_transpose.bind(y, w, **window),
  lambda y, x, _, **window: _filter_grad.bind(x, y, **window),
)
ad.defbilinear(
  _conv_transpose,
  lambda x, _, w, **window: _conv.bind(x, w, **window),
  lambda x, y, _, **window: _filter_grad.bind(x, y, **window),
)
ad.defbilinear(
  _filter_grad,
  lambda w, _, y, **window: _conv_transpose.bind(y, w, **window),
  lambda w, x, _, **window: _conv.bind(x, w, **window),
)
