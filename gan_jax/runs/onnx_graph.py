"""Converts a traced JAX function to an ONNX graph.

It has the primitives of which generators consist. A new primitive is a function
(graph, equation, inputs) -> name of the output, and a row in PRIMITIVES.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from gan_jax.errors import UserError

OPSET, IR_VERSION = 18, 9
# A value of the traced function: a known array, or a name in the graph.
Value = np.ndarray | str


class Graph:
  """An ONNX graph under construction.

  Args:
    batch_of: The name of an input whose first dimension is the batch.
  """

  def __init__(self, batch_of: str):
    self.nodes: list[Any] = []
    self.constants: list[Any] = []
    self._batch_of, self._count = batch_of, 0

  def add(self, op: str, *inputs: Value, **attributes: Any) -> str:
    """Adds a node; returns the name of its output."""
    from onnx import helper

    names = [self.name_of(x) for x in inputs]
    output = self._new_name()
    self.nodes.append(helper.make_node(op, names, [output], **attributes))
    return output

  def name_of(self, value: Value) -> str:
    """Returns the name of a value; adds it to the graph if it is known."""
    from onnx import numpy_helper

    if isinstance(value, str):
      return value
    name = self._new_name()
    if value.dtype == jnp.bfloat16:
      value = value.astype(np.float32)
    self.constants.append(numpy_helper.from_array(value, name))
    return name

  def shape(self, dims: Sequence[Any]) -> Value:
    """Returns a shape whose first dimension may be the batch size."""
    known = [_integer(dim) for dim in dims]
    if None not in known:
      return np.array(known, np.int64)
    if None in known[1:]:
      raise UserError(
        f'an ONNX graph has the batch first, and there is a shape {tuple(dims)}'
      )
    batch = self.add('Shape', self._batch_of, start=0, end=1)
    return self.add('Concat', batch, np.array(known[1:], np.int64), axis=0)

  def _new_name(self) -> str:
    self._count += 1
    return f'v{self._count}'


def to_onnx(
  function: Callable[[Mapping[str, Any]], Any],
  shapes: Mapping[str, tuple[int, ...]],
) -> bytes:
  """Converts a function of named float32 arrays [n, ...] to an ONNX file.

  Args:
    function: (inputs) -> images.
    shapes: The shape of one row of each input.

  Raises:
    UserError: A primitive is not in PRIMITIVES.
  """
  from jax import export
  from onnx import TensorProto, checker, helper

  (n,) = export.symbolic_shape('n')
  inputs = {
    name: jax.ShapeDtypeStruct((n, *shape), jnp.float32)
    for name, shape in shapes.items()
  }
  closed, output = jax.make_jaxpr(function, return_shape=True)(inputs)
  names = sorted(shapes)  # the order of a dict's leaves
  graph = Graph(names[0])
  consts = [np.asarray(x) for x in closed.consts]
  (result,) = _convert(graph, closed.jaxpr, consts, names)
  graph.nodes.append(
    helper.make_node('Identity', [graph.name_of(result)], ['images'])
  )
  describe = lambda name, shape: helper.make_tensor_value_info(
    name, TensorProto.FLOAT, ['n', *shape]
  )
  model = helper.make_model(
    helper.make_graph(
      graph.nodes,
      'generator',
      [describe(name, shapes[name]) for name in names],
      [describe('images', output.shape[1:])],
      graph.constants,
    ),
    opset_imports=[helper.make_opsetid('', OPSET)],
    ir_version=IR_VERSION,
    producer_name='gan_jax',
  )
  checker.check_model(model)
  return model.SerializeToString()


def _convert(
  graph: Graph, jaxpr: Any, consts: Sequence[Value], inputs: Sequence[Value]
) -> list[Value]:
  """Converts the equations that the outputs depend on."""
  env: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
  env.update(zip(jaxpr.invars, inputs, strict=True))
  read = lambda x: np.asarray(x.val) if isinstance(x, core.Literal) else env[x]
  for eqn in _needed(jaxpr):
    values = [read(x) for x in eqn.invars]
    outputs = _convert_equation(graph, eqn, values)
    env.update(zip(eqn.outvars, outputs, strict=True))
  return [read(x) for x in jaxpr.outvars]


def _needed(jaxpr: Any) -> list[Any]:
  needed = {x for x in jaxpr.outvars if not isinstance(x, core.Literal)}
  kept = []
  for eqn in reversed(jaxpr.eqns):
    if needed.intersection(eqn.outvars):
      kept.append(eqn)
      needed |= {x for x in eqn.invars if not isinstance(x, core.Literal)}
  return kept[::-1]


def _convert_equation(
  graph: Graph, eqn: Any, values: list[Value]
) -> list[Value]:
  for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):  # a call: inlined
    if key in eqn.params:
      inner = eqn.params[key]
      consts = [np.asarray(x) for x in getattr(inner, 'consts', ())]
      return _convert(graph, getattr(inner, 'jaxpr', inner), consts, values)
  known = not any(isinstance(x, str) for x in values)
  static = all(
    _integer(d) is not None for x in eqn.outvars for d in x.aval.shape
  )
  name = eqn.primitive.name
  if known and static:
    arrays = map(jnp.asarray, values)
    outputs = eqn.primitive.bind(*arrays, **eqn.params)
    outputs = outputs if eqn.primitive.multiple_results else [outputs]
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return [x if is_key(x) else np.asarray(x) for x in outputs]
  if name not in PRIMITIVES:
    raise UserError(
      f'this generator uses {name}, which the export to ONNX does not support: '
      'export it to .stablehlo'
    )
  return [PRIMITIVES[name](graph, eqn, values)]


def _integer(dim: Any) -> int | None:
  """Returns a dimension as an integer; None for one of the batch."""
  return int(dim) if isinstance(dim, int | np.integer) else None


def _elementwise(op: str) -> Callable[[Graph, Any, list[Value]], str]:
  return lambda graph, eqn, values: graph.add(op, *values)


def _convert_type(graph: Graph, eqn: Any, values: list[Value]) -> str:
  from onnx import helper

  dtype = np.dtype(eqn.params['new_dtype'])
  if dtype == jnp.bfloat16:  # ONNX runtimes lack it: computed in float32
    dtype = np.dtype(np.float32)
  to = helper.np_dtype_to_tensor_dtype(dtype)
  return graph.add('Cast', values[0], to=to)


def _broadcast(graph: Graph, eqn: Any, values: list[Value]) -> str:
  shape = eqn.params['shape']
  placed = [1] * len(shape)
  operand = eqn.invars[0].aval.shape
  for dim, at in zip(operand, eqn.params['broadcast_dimensions'], strict=True):
    placed[at] = dim
  x = graph.add('Reshape', values[0], graph.shape(placed))
  if tuple(placed) == tuple(shape):
    return x
  return graph.add('Expand', x, graph.shape(shape))


def _reshape(graph: Graph, eqn: Any, values: list[Value]) -> str:
  shape = eqn.outvars[0].aval.shape
  return graph.add('Reshape', values[0], graph.shape(shape))


def _transpose(graph: Graph, eqn: Any, values: list[Value]) -> str:
  perm = list(eqn.params['permutation'])
  return graph.add('Transpose', values[0], perm=perm)


def _concatenate(graph: Graph, eqn: Any, values: list[Value]) -> str:
  return graph.add('Concat', *values, axis=eqn.params['dimension'])


def _reduce(op: str) -> Callable[[Graph, Any, list[Value]], str]:
  return lambda graph, eqn, values: graph.add(
    op, values[0], np.array(eqn.params['axes'], np.int64), keepdims=0
  )


def _power(graph: Graph, eqn: Any, values: list[Value]) -> str:
  return graph.add('Pow', values[0], np.array(eqn.params['y'], np.float32))


def _select(graph: Graph, eqn: Any, values: list[Value]) -> str:
  which, if_false, if_true = values
  return graph.add('Where', which, if_true, if_false)


def _slice(graph: Graph, eqn: Any, values: list[Value]) -> str:
  starts, limits = eqn.params['start_indices'], eqn.params['limit_indices']
  strides = eqn.params['strides'] or [1] * len(starts)
  whole = np.iinfo(np.int64).max
  ends = [whole if _integer(x) is None else x for x in limits]
  axes = np.arange(len(starts))
  parts = (np.array(x, np.int64) for x in (starts, ends, axes, strides))
  return graph.add('Slice', values[0], *parts)


def _dot(graph: Graph, eqn: Any, values: list[Value]) -> str:
  (a_sum, b_sum), (a_batch, b_batch) = eqn.params['dimension_numbers']
  a_rank, b_rank = (x.aval.ndim for x in eqn.invars)
  if (tuple(a_sum), tuple(b_sum), b_rank) == ((a_rank - 1,), (0,), 2):
    return graph.add('MatMul', *values)
  letters = iter('abcdefghijklmnopqrstuvwxyz')
  a = [next(letters) for _ in range(a_rank)]
  b = [''] * b_rank
  for i, j in zip((*a_sum, *a_batch), (*b_sum, *b_batch), strict=True):
    b[j] = a[i]
  b = [letter or next(letters) for letter in b]
  free_a = [x for i, x in enumerate(a) if i not in (*a_sum, *a_batch)]
  free_b = [x for i, x in enumerate(b) if i not in (*b_sum, *b_batch)]
  out = [a[i] for i in a_batch] + free_a + free_b
  equation = f'{"".join(a)},{"".join(b)}->{"".join(out)}'
  return graph.add('Einsum', *values, equation=equation)


NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def _window(window: Any) -> dict[str, Any]:
  (top, bottom), (left, right) = window.padding
  return {
    'kernel_shape': list(window.kernel),
    'strides': [window.stride] * 2,
    'pads': [top, left, bottom, right],
  }


def _filter(graph: Graph, w: Value) -> Value:
  """Returns a filter [kh, kw, c, d] as ONNX has it: [d, c, kh, kw]."""
  if isinstance(w, np.ndarray):
    return np.ascontiguousarray(w.transpose(3, 2, 0, 1))
  return graph.add('Transpose', w, perm=[3, 2, 0, 1])


def _conv(graph: Graph, eqn: Any, values: list[Value]) -> str:
  x = graph.add('Transpose', values[0], perm=NCHW)
  w = _filter(graph, values[1])
  y = graph.add('Conv', x, w, **_window(eqn.params['window']))
  return graph.add('Transpose', y, perm=NHWC)


def _conv_transpose(graph: Graph, eqn: Any, values: list[Value]) -> str:
  window = eqn.params['window']
  sizes = zip(
    window.size, eqn.invars[0].aval.shape[1:3], window.kernel, window.padding,
    strict=True,
  )  # fmt: skip
  extra = [
    size - (window.stride * (n - 1) + k - sum(padding))
    for size, n, k, padding in sizes
  ]
  y = graph.add('Transpose', values[0], perm=NCHW)
  w = _filter(graph, values[1])
  x = graph.add('ConvTranspose', y, w, output_padding=extra, **_window(window))
  return graph.add('Transpose', x, perm=NHWC)


def _flax_conv(graph: Graph, eqn: Any, values: list[Value]) -> str:
  """A convolution of Flax itself, as in networks that users write."""
  p = eqn.params
  if set(p['lhs_dilation']) != {1} or p['batch_group_count'] != 1:
    raise UserError(
      'the export to ONNX does not support dilated or transposed convolutions '
      'of Flax: '
      'use gan_jax.models.layers.ConvTranspose, or export to .stablehlo'
    )
  numbers = p['dimension_numbers']
  before, after = zip(*p['padding'], strict=True)
  x = graph.add('Transpose', values[0], perm=list(numbers.lhs_spec))
  w = graph.add('Transpose', values[1], perm=list(numbers.rhs_spec))
  y = graph.add(
    'Conv', x, w, strides=list(p['window_strides']), pads=[*before, *after],
    dilations=list(p['rhs_dilation']), group=p['feature_group_count'],
  )  # fmt: skip
  return graph.add('Transpose', y, perm=np.argsort(numbers.out_spec).tolist())


PRIMITIVES: dict[str, Callable[[Graph, Any, list[Value]], str]] = {
  **{
    name: _elementwise(op)
    for name, op in {
      'abs': 'Abs', 'add': 'Add', 'add_any': 'Add', 'and': 'And', 'cos': 'Cos',
      'div': 'Div', 'eq': 'Equal', 'erf': 'Erf', 'exp': 'Exp',
      'floor': 'Floor', 'ge': 'GreaterOrEqual', 'gt': 'Greater',
      'le': 'LessOrEqual', 'log': 'Log', 'logistic': 'Sigmoid', 'lt': 'Less',
      'max': 'Max', 'min': 'Min', 'mul': 'Mul', 'neg': 'Neg', 'not': 'Not',
      'or': 'Or', 'pow': 'Pow', 'sign': 'Sign', 'sin': 'Sin', 'sqrt': 'Sqrt',
      'stop_gradient': 'Identity', 'copy': 'Identity', 'sub': 'Sub',
      'tanh': 'Tanh',
    }.items()
  },
  'broadcast_in_dim': _broadcast,
  'concatenate': _concatenate,
  'conv_general_dilated': _flax_conv,
  'convert_element_type': _convert_type,
  'dot_general': _dot,
  'expand_dims': _reshape,
  'gan_jax_conv': _conv,
  'gan_jax_conv_transpose': _conv_transpose,
  'integer_pow': _power,
  'reduce_max': _reduce('ReduceMax'),
  'reduce_min': _reduce('ReduceMin'),
  'reduce_sum': _reduce('ReduceSum'),
  'reshape': _reshape,
  'rsqrt': lambda graph, eqn, values: graph.add(
    'Reciprocal', graph.add('Sqrt', values[0])
  ),
  'select_n': _select,
  'slice': _slice,
  'square': lambda graph, eqn, values: graph.add('Mul', values[0], values[0]),
  'squeeze': _reshape,
  'transpose': _transpose,
}  # fmt: skip
