"""Floating-point operations of a program: of its products and convolutions.

XLA's own count takes a scan's body once, and leaves out what a library does.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters import partial_eval


def flops(function: Callable[..., Any], *args: Any) -> int:
  """Counts those of one call; nothing is computed.

  A multiplication and an addition are two. What no output needs is left out,
  as XLA does. Of branches the largest counts: a move that comes every so often
  counts in full. A convolution counts as its sum, whatever the platform makes
  of it (ops/winograd.py takes fewer), and its borders as the rest.

  Args:
    function, *args: As it is called; arrays, or their shapes.

  Raises:
    ValueError: There are products in a while loop.
  """
  jaxpr = jax.make_jaxpr(function)(*args).jaxpr
  needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return _count(needed)


def _count(jaxpr: Jaxpr) -> int:
  return sum(_of(equation) for equation in jaxpr.eqns)


def _of(equation: Any) -> int:
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    return _of_dot(equation)
  if name == 'conv_general_dilated':
    return _of_conv(equation)
  if name.startswith('gan_jax_'):
    return _of_family(equation)
  if name == 'cond':
    return max(_count(branch.jaxpr) for branch in params['branches'])
  inner = sum(map(_count, _inside(params)))
  if name == 'while' and inner:
    raise ValueError('a while loop: how often it turns is not known')
  return inner * params['length'] if name == 'scan' else inner


def _inside(params: dict[str, Any]) -> list[Jaxpr]:
  found = []
  for value in params.values():
    if isinstance(value, ClosedJaxpr):
      found.append(value.jaxpr)
    elif isinstance(value, Jaxpr):
      found.append(value)
  return found


def _of_dot(equation: Any) -> int:
  (contracting, _), _ = equation.params['dimension_numbers']
  left = equation.invars[0].aval.shape
  summed = math.prod(left[axis] for axis in contracting)
  return 2 * summed * equation.outvars[0].aval.size


def _of_family(equation: Any) -> int:
  """A term for each tap of each y, whichever of the three (ops/conv.py)."""
  first, second = (variable.aval for variable in equation.invars)
  result = equation.outvars[0].aval
  y, w = {
    'gan_jax_conv': (result, second),
    'gan_jax_conv_transpose': (first, second),
    'gan_jax_filter_grad': (second, result),
  }[equation.primitive.name]
  return 2 * y.size * math.prod(w.shape[:3])


def _of_conv(equation: Any) -> int:
  """2 (outputs) (taps that meet no zero put in between) (channels)."""
  params = equation.params
  right = equation.invars[1].aval
  features = right.shape[params['dimension_numbers'].rhs_spec[0]]
  zeros = math.prod(params['lhs_dilation'])
  return 2 * equation.outvars[0].aval.size * (right.size // features) // zeros
