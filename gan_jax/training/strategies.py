"""Strategies: the ways of running a train step on all devices.

A train step is written once, for any number of devices. The strategy `jit`
compiles the step as one global-view program over a mesh: every array has its
global shape, and XLA divides the work. `fsdp` is the same program, with the
large arrays of the state divided among the devices. `pmap` compiles one program
for each device, which averages gradients over a named axis. All compute
the same training run.

Images per second of the vanilla MLP with jit and pmap: 3,210 and 3,240 on one
device of two CPU cores; 1,630 and 2,470 on 2 fake devices that share the cores;
1,020 and 1,590 on 4. Nevertheless `jit` is the default until accelerators have
been measured, because JAX no longer develops `pmap`.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import PyTree

from gan_jax.devices import AXIS, make_sharding
from gan_jax.errors import UserError
from gan_jax.pair import Pair
from gan_jax.registry import choose

# The batch axis of each array in a player's part of an index batch.
BATCH_AXES = Pair(gen=1, disc=2)
# Dispatches whose inputs are transferred before they are needed.
IN_FLIGHT = 2
# The smallest array that `fsdp` divides, in elements.
MIN_DIVIDED = 2**12


class Strategy(NamedTuple):
  """A way of running a train step on all devices.

  Attributes:
    axis_name: The name of the devices' axis in the train step; None: it has no
      such axis.
    compile: (function) -> the compiled function, which donates its first
      argument, the state. The function is
      (state, dataset, index batch, phases, frozen) -> (state, metrics).
    shard: (index batch) -> the index batch, divided among the devices.
    replicate: (tree) -> the tree, copied to every device, as the compiled
      function takes it.
    shard_state: (state) -> the state in the layout of the compiled function.
    replicate_state: (state) -> the state, replicated on every device, for other
      programs.
    unshard_state: The inverse of `shard_state`: (state) -> global arrays, as
      checkpoints store them.
  """

  axis_name: str | None
  compile: Callable[[Callable], Callable]
  shard: Callable[[PyTree], PyTree]
  replicate: Callable[[PyTree], PyTree]
  shard_state: Callable[[PyTree], PyTree]
  replicate_state: Callable[[PyTree], PyTree]
  unshard_state: Callable[[PyTree], PyTree]


def _jit() -> Strategy:
  def compile(function: Callable) -> Callable:
    return jax.jit(function, donate_argnums=0, out_shardings=make_sharding())

  same = lambda tree: tree
  return Strategy(None, compile, _shard, same, same, same, same)


def _shard(batch: PyTree) -> PyTree:
  """Divides an index batch among the devices."""

  def put_tree(axis, tree):
    sharding = make_sharding(*axis * [None], AXIS)
    put = lambda x: jax.make_array_from_process_local_data(sharding, x)
    return jax.tree.map(put, tree)

  return Pair(*map(put_tree, BATCH_AXES, batch))


def _fsdp() -> Strategy:
  def divide(state: PyTree) -> PyTree:
    constrain = jax.lax.with_sharding_constraint
    return jax.tree.map(lambda x: constrain(x, _fsdp_sharding(x)), state)

  def compile(function: Callable) -> Callable:
    def step(state: PyTree, *args: PyTree) -> tuple[PyTree, PyTree]:
      state, metrics = function(state, *args)
      return divide(state), metrics

    return jax.jit(
      step, donate_argnums=0, out_shardings=(None, make_sharding())
    )

  same = lambda tree: tree
  whole = jax.jit(same, out_shardings=make_sharding())
  return Strategy(None, compile, _shard, same, jax.jit(divide), whole, whole)


def _fsdp_sharding(
  x: jax.Array, devices: Sequence[jax.Device] | None = None
) -> NamedSharding:
  """Returns a sharding over the longest axis that the devices divide.

  Small arrays are replicated.
  """
  count = len(devices or jax.devices())
  axes = [axis for axis, n in enumerate(x.shape) if n % count == 0]
  if x.size < MIN_DIVIDED or not axes:
    return make_sharding(devices=devices)
  longest = max(axes, key=lambda axis: x.shape[axis])
  return make_sharding(*longest * [None], AXIS, devices=devices)


def _pmap() -> Strategy:
  def compile(function: Callable) -> Callable:
    return jax.pmap(
      function,
      axis_name=AXIS,
      in_axes=(None, None, BATCH_AXES, None, None),
      out_axes=None,
      donate_argnums=0,
    )

  def shard(batch: PyTree) -> PyTree:
    def split(axis, tree):
      devices = jax.local_device_count()
      reshape = lambda x: x.reshape(
        *x.shape[:axis], devices, x.shape[axis] // devices, *x.shape[axis + 1 :]
      )
      return jax.tree.map(reshape, tree)

    return Pair(*map(split, BATCH_AXES, batch))

  # pmap takes and returns arrays of its own process; checkpoints store global
  # arrays.
  local = NamedSharding(Mesh(jax.local_devices(), AXIS), PartitionSpec())
  to_local = partial(jax.tree.map, partial(_rewrap, local))
  return Strategy(
    AXIS,
    compile,
    shard,
    replicate=to_local,
    shard_state=to_local,
    replicate_state=lambda state: state,
    unshard_state=partial(jax.tree.map, partial(_rewrap, make_sharding())),
  )


def _rewrap(sharding: Sharding, x: jax.Array) -> jax.Array:
  """Returns an array with another sharding and the same buffers."""
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    raw = _rewrap(sharding, jax.random.key_data(x))
    return jax.random.wrap_key_data(raw, impl=jax.random.key_impl(x))
  buffers = [shard.data for shard in x.addressable_shards]
  return jax.make_array_from_single_device_arrays(x.shape, sharding, buffers)


STRATEGIES = {'fsdp': _fsdp, 'jit': _jit, 'pmap': _pmap}


def make_strategy(name: str) -> Strategy:
  """Makes the strategy that `config.parallel` names."""
  return choose('config.parallel', name, STRATEGIES)()


def prefetch(
  shard: Callable[[PyTree], PyTree], batches: Iterable[PyTree]
) -> Iterator[PyTree]:
  """Yields sharded batches; transfers them before they are needed."""
  queue: collections.deque[PyTree] = collections.deque()
  for batch in batches:
    queue.append(shard(batch))
    if len(queue) > IN_FLIGHT:
      yield queue.popleft()
  yield from queue


def limit_in_flight(results: list[PyTree]) -> None:
  """Waits until the devices have computed all but the last few results.

  This limits memory: each pending dispatch keeps its inputs on the devices.
  """
  if len(results) > IN_FLIGHT:
    jax.block_until_ready(results[-1 - IN_FLIGHT])


def compile_for(
  devices: Sequence[jax.Device],
  parallel: str,
  function: Callable,
  *args: PyTree,
) -> jax.stages.Compiled:
  """Compiles a train step for devices that need not exist.

  Args:
    devices: The devices.
    parallel: The strategy, `fsdp` or `jit`.
    function: As for `Strategy.compile`.
    *args: Its arguments: arrays or shapes.

  Raises:
    UserError: The strategy compiles on its own devices only.
  """
  if parallel not in ('fsdp', 'jit'):
    raise UserError(
      f'config.parallel={parallel} cannot be compiled for other devices: set '
      'jit or fsdp'
    )
  whole = make_sharding(devices=devices)
  rows = [
    make_sharding(*axis * [None], AXIS, devices=devices) for axis in BATCH_AXES
  ]
  state, dataset, batch, phases, frozen = args
  state_shardings = jax.tree.map(
    lambda x: _fsdp_sharding(x, devices) if parallel == 'fsdp' else whole, state
  )

  def shapes(tree: PyTree, sharding: Sharding) -> PyTree:
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding),
      tree,
    )

  step = jax.jit(
    function, donate_argnums=0, out_shardings=(state_shardings, whole)
  )
  lowered = step.lower(
    jax.tree.map(shapes, state, state_shardings),
    shapes(dataset, whole),
    Pair(*map(shapes, batch, rows)),
    phases,
    shapes(frozen, whole),
  )
  return lowered.compile()
