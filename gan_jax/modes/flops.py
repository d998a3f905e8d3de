"""Counts the FLOPs of a program's matrix products and convolutions.

XLA's own count takes the body of a scan once, and leaves out library calls.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters import partial_eval


def flops(function: Callable[..., Any], *args: Any) -> int:
  """Counts the FLOPs of one call without computing anything.

  A multiplication and an addition count as two. Operations that no output
  needs are left out, as XLA does. The largest branch of a `cond` counts, so
  that an update with an interval counts in full. A convolution counts by its
  definition, borders included, even if the platform needs fewer operations
  (ops/winograd.py).

  Args:
    function, *args: The call; the arguments are arrays or their shapes.

  Raises:
    ValueError: The program has products in a while loop.
  """
  jaxpr = jax.make_jaxpr(function)(*args).jaxpr
  needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return _count(needed)


def _count(jaxpr: Jaxpr) -> int:
  return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: Any) -> int:
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    return _dot_flops(equation)
  if name == 'conv_general_dilated':
    return _conv_flops(equation)
  if name.startswith('gan_jax_'):
    return _custom_conv_flops(equation)
  if name == 'cond':
    return max(_count(branch.jaxpr) for branch in params['branches'])
  inner = sum(map(_count, _inner_jaxprs(params)))
  if name == 'while' and inner:
    raise ValueError(
      'products in a while loop: its number of iterations is not known'
    )
  return inner * params['length'] if name == 'scan' else inner


def _inner_jaxprs(params: dict[str, Any]) -> list[Jaxpr]:
  found = []
  for value in params.values():
    if isinstance(value, ClosedJaxpr):
      found.append(value.jaxpr)
    elif isinstance(value, Jaxpr):
      found.append(value)
  return found


def _dot_flops(equation: Any) -> int:
  (contracting, _), _ = equation.params['dimension_numbers']
  left = equation.invars[0].aval.shape
  summed = math.prod(left[axis] for axis in contracting)
  return 2 * summed * equation.outvars[0].aval.size


def _custom_conv_flops(equation: Any) -> int:
  """2 (elements of y) (taps) (channels), for each primitive of ops/conv.py."""
  first, second = (variable.aval for variable in equation.invars)
  result = equation.outvars[0].aval
  y, w = {
    'gan_jax_conv': (result, second),
    'gan_jax_conv_transpose': (first, second),
    'gan_jax_filter_grad': (second, result),
  }[equation.primitive.name]
  return 2 * y.size * math.prod(w.shape[:3])


def _conv_flops(equation: Any) -> int:
  """2 (outputs) (taps that do not meet an inserted zero) (channels)."""
  params = equation.params
  right = equation.invars[1].aval
  features = right.shape[params['dimension_numbers'].rhs_spec[0]]
  zeros = math.prod(params['lhs_dilation'])
  return 2 * equation.outvars[0].aval.size * (right.size // features) // zeros
