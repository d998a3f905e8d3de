"""A strided convolution, its transpose and its filter gradient.

They are the three contractions of one trilinear form,

  <conv(x, w), y> = <x, conv_transpose(y, w)> = <w, filter_grad(x, y)>,

so the derivatives of each operation are the other two. Derivatives of any
order, forward or reverse, need only these three (a gradient penalty is
differentiated twice), and each has a fast implementation per platform. By
default, XLA computes the filter gradient of a transposed convolution as a
dilated convolution, which is 100 times slower on a CPU.

Limits: under vmap, filters with a batch axis use XLA's convolutions;
`shard_map` needs `check_vma=False`.

Arrays are x [n, H, W, c] and y [n, h, w, d]. Filters are w [kh, kw, c, d], also
for the transpose, which maps d channels to c. With groups of consecutive
channels, group g of y depends on group g of x only, and filters are
w [kh, kw, c / groups, d].
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
Filter = Float[Array, 'kh kw i d']


def conv(
  x: Large,
  w: Filter,
  stride: int = 1,
  padding: int | Sequence[int] = 0,
  groups: int = 1,
) -> Small:
  """Convolves: y[i] = sum_k x[stride i + k - before] w[k] (cross-correlation).

  Args:
    x, w: Images and filter, of one dtype.
    stride: Stride along both axes.
    padding: Zeros on each side, or (before, after), for both axes.
    groups: Number of groups of channels.

  Raises:
    ValueError: The dtypes differ, the kernel is larger than the image, or the
      groups do not divide the channels.
  """
  if x.shape[-1] != groups * w.shape[2] or w.shape[3] % groups:
    raise ValueError(
      f'a filter {w.shape} with {groups} groups does not fit '
      f'{x.shape[-1]} channels'
    )
  window = _window(x.shape[1:3], w.shape[:2], stride, padding, groups)
  _sizes_after(window)
  return _bind(_conv, x, w, window)


def conv_transpose(
  y: Small,
  w: Filter,
  stride: int = 1,
  padding: int | Sequence[int] = 0,
  size: tuple[int, int] | None = None,
  groups: int = 1,
) -> Large:
  """Applies the linear transpose of `conv` with respect to x.

  Args:
    y, w, stride, padding, groups: The output and the arguments of the
      convolution.
    size: H and W of x, which are ambiguous if the stride is above 1. None: the
      smallest possible size.

  Raises:
    ValueError: The convolution of images of this size does not have y's shape.
  """
  before, after = _before_after(padding)
  smallest = tuple(
    stride * (n - 1) + k - before - after
    for n, k in zip(y.shape[1:3], w.shape[:2], strict=True)
  )
  window = _window(size or smallest, w.shape[:2], stride, padding, groups)
  _check_fits(window, y)
  return _bind(_conv_transpose, y, w, window)


def filter_grad(
  x: Large,
  y: Small,
  kernel: tuple[int, int],
  stride: int = 1,
  padding: int | Sequence[int] = 0,
  groups: int = 1,
) -> Filter:
  """Applies the linear transpose of `conv` with respect to w.

  Args:
    x, y, stride, padding, groups: The input, the output and the arguments of
      the convolution.
    kernel: kh, kw.

  Raises:
    ValueError: The convolution of x with such a kernel does not have y's shape.
  """
  window = _window(x.shape[1:3], kernel, stride, padding, groups)
  _check_fits(window, y)
  return _bind(_filter_grad, x, y, window)


def _before_after(padding: int | Sequence[int]) -> tuple[int, int]:
  both = isinstance(padding, numbers.Integral)
  before, after = (padding, padding) if both else padding
  return int(before), int(after)


def _window(
  size: Sequence[int],
  kernel: Sequence[int],
  stride: int,
  padding: int | Sequence[int],
  groups: int,
) -> Window:
  both_axes = (_before_after(padding),) * 2
  return Window(tuple(kernel), stride, both_axes, tuple(size), groups)


def _bind(primitive: Primitive, a: Array, b: Array, window: Window) -> Array:
  if a.dtype != b.dtype:
    raise ValueError(
      f'a convolution needs arrays of one dtype, not {a.dtype} and {b.dtype}'
    )
  return primitive.bind(a, b, window=window)


def _check_fits(window: Window, y: Array) -> None:
  if _sizes_after(window) != y.shape[1:3]:
    raise ValueError(
      f'a convolution of {window.size} pixels with kernel {window.kernel}, '
      f'stride {window.stride} and padding {window.padding[0]} has '
      f'{_sizes_after(window)} pixels, not {y.shape[1:3]}'
    )


def _make_primitive(
  name: str, shape: Callable[[Window, Any, Any], tuple[int, ...]]
) -> Primitive:
  """Makes one of the three primitives, with its lowering per platform.

  Args:
    name: The name of its functions in `conv_cpu` and `conv_xla`.
    shape: (window, a, b) -> the shape of the result.
  """
  on_cpu, elsewhere = getattr(conv_cpu, name), getattr(conv_xla, name)
  primitive = Primitive(f'gan_jax_{name}')
  bind = lambda a, b, *, window: primitive.bind(a, b, window=window)
  primitive.def_impl(jax.jit(bind, static_argnames='window'))
  primitive.def_abstract_eval(
    lambda a, b, *, window: a.update(shape=shape(window, a, b))
  )
  for function, platform in ((on_cpu, 'cpu'), (elsewhere, None)):
    call = lambda a, b, *, window, function=function: function(window, a, b)
    lowered = mlir.lower_fun(call, multiple_results=False)
    mlir.register_lowering(primitive, lowered, platform=platform)

  def batched(args, axes, *, window):
    a, b = args
    if axes[1] is not None or name == 'filter_grad':
      return jax.vmap(partial(elsewhere, window), axes)(a, b), 0
    # With one filter for all, the new axis joins the batch axis.
    a = jnp.moveaxis(a, axes[0], 0)
    result = primitive.bind(a.reshape(-1, *a.shape[2:]), b, window=window)
    return result.reshape(*a.shape[:2], *result.shape[1:]), 0

  batching.primitive_batchers[primitive] = batched
  return primitive


_conv = _make_primitive(
  'conv',
  lambda window, x, w: (
    x.shape[0],
    *_sizes_after(window),
    w.shape[3],
  ),
)
_conv_transpose = _make_primitive(
  'conv_transpose',
  lambda window, y, w: (
    y.shape[0],
    *window.size,
    window.groups * w.shape[2],
  ),
)
_filter_grad = _make_primitive(
  'filter_grad',
  lambda window, x, y: (
    *window.kernel,
    x.shape[3] // window.groups,
    y.shape[3],
  ),
)


def _sizes_after(window: Window) -> tuple[int, ...]:
  slack = tuple(
    size + sum(padding) - kernel
    for size, padding, kernel in zip(
      window.size, window.padding, window.kernel, strict=True
    )
  )
  if min(slack) < 0:
    raise ValueError(
      f'a kernel of {window.kernel} is larger than the image, {window.size} '
      f'with padding {window.padding[0]}'
    )
  return tuple(n // window.stride + 1 for n in slack)


# The transposes with respect to the first and the second argument, given the
# cotangent and the other argument.
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
