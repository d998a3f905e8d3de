"""Devices and processes: the parallel strategies, and JAX's devices.

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
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils, topologies
from jax.sharding import (
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
  SingleDeviceSharding,
)
from jaxtyping import PyTree

from gan_jax.errors import UserError
from gan_jax.pair import Pair
from gan_jax.registry import choose

AXIS = 'devices'
# The batch axis of each array in a player's part of an index batch.
BATCH_AXES = Pair(gen=1, disc=2)
# Dispatches whose inputs are transferred before they are needed.
IN_FLIGHT = 2
# The smallest array that `fsdp` divides, in elements.
MIN_DIVIDED = 2**12
# Numbers the calls of `preempted`, because JAX requires consecutive numbers.
_call_numbers = itertools.count()


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


def _sharding(
  *axes: str | None, devices: Sequence[jax.Device] | None = None
) -> NamedSharding:
  """Makes a sharding over `devices`; None: all devices.

  `AXIS` marks an array axis that is divided among the devices.
  """
  mesh = Mesh(devices or jax.devices(), AXIS)
  return NamedSharding(mesh, PartitionSpec(*axes))


def _jit() -> Strategy:
  def compile(function: Callable) -> Callable:
    return jax.jit(function, donate_argnums=0, out_shardings=_sharding())

  same = lambda tree: tree
  return Strategy(None, compile, _shard, same, same, same, same)


def _shard(batch: PyTree) -> PyTree:
  """Divides an index batch among the devices."""

  def put_tree(axis, tree):
    sharding = _sharding(*axis * [None], AXIS)
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

    return jax.jit(step, donate_argnums=0, out_shardings=(None, _sharding()))

  same = lambda tree: tree
  whole = jax.jit(same, out_shardings=_sharding())
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
    return _sharding(devices=devices)
  longest = max(axes, key=lambda axis: x.shape[axis])
  return _sharding(*longest * [None], AXIS, devices=devices)


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
    unshard_state=partial(jax.tree.map, partial(_rewrap, _sharding())),
  )


def _rewrap(sharding: Sharding, x: jax.Array) -> jax.Array:
  """Returns an array with another sharding and the same buffers."""
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    raw = _rewrap(sharding, jax.random.key_data(x))
    return jax.random.wrap_key_data(raw, impl=jax.random.key_impl(x))
  buffers = [shard.data for shard in x.addressable_shards]
  return jax.make_array_from_single_device_arrays(x.shape, sharding, buffers)


STRATEGIES = {'fsdp': _fsdp, 'jit': _jit, 'pmap': _pmap}


def use_cpu_only() -> None:
  """Makes JAX use only the CPU: other processes need the accelerators."""
  jax.config.update('jax_platforms', 'cpu')


def is_distributed() -> bool:
  """Returns whether the run has several processes."""
  return jax.process_count() > 1


def preempted() -> bool:
  """Returns whether all processes must stop now: one received SIGTERM.

  The processes agree on the step: each calls this once after every dispatch.
  """
  if not is_distributed():
    return False
  return multihost_utils.reached_preemption_sync_point(next(_call_numbers))


def barrier(name: str) -> None:
  """Waits until every process has reached this call."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def make_strategy(name: str) -> Strategy:
  """Makes the strategy that `config.parallel` names."""
  return choose('config.parallel', name, STRATEGIES)()


def create(function: Callable, *args: Any) -> PyTree:
  """Calls a function; its results are replicated on every device."""
  return jax.jit(function, out_shardings=_sharding())(*args)


def replicate(tree: PyTree) -> PyTree:
  """Replicates host arrays, equal in all processes, on every device."""
  put = lambda x: jax.make_array_from_process_local_data(_sharding(), x)
  return jax.tree.map(put, tree)


def replicated_shapes(tree: PyTree) -> PyTree:
  """Returns the shapes of `tree`, replicated on every device."""
  return _shapes(tree, _sharding())


def local_shapes(tree: PyTree) -> PyTree:
  """Returns the shapes of `tree`, on the first device of this process."""
  return _shapes(tree, SingleDeviceSharding(jax.local_devices()[0]))


def shapes_of(tree: PyTree) -> PyTree:
  """Returns the shapes of `tree`, with the shardings of its arrays."""
  return _shapes(tree)


def _shapes(tree: PyTree, sharding: Sharding | None = None) -> PyTree:
  """Returns shapes with this sharding; None: each keeps its own."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding or x.sharding
    ),
    tree,
  )


def fetch(tree: PyTree) -> PyTree:
  """Waits for replicated arrays and copies them to the host."""
  return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)


def is_main() -> bool:
  """Returns whether this is process 0, the only one that writes files."""
  return jax.process_index() == 0


def process_rows() -> Callable[[int], slice]:
  """Makes (batch size) -> the rows of a global batch that this process loads.

  The returned function also works in loader processes, which have no devices.
  """
  return partial(_rows, jax.process_index(), jax.process_count())


def _rows(index: int, count: int, batch_size: int) -> slice:
  size = batch_size // count
  return slice(index * size, (index + 1) * size)


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


def check_batch_size(name: str, batch_size: int) -> None:
  """Refuses a batch size that is not divisible by the number of devices."""
  devices = jax.device_count()
  if batch_size % devices:
    below = batch_size // devices * devices
    valid = f'{below} or {below + devices}' if below else f'{devices}'
    raise UserError(
      f'config.{name}={batch_size} is not divisible by {devices} devices: '
      f'set {valid}'
    )


def describe() -> str:
  """Describes the devices: `4 x TPU v4, 2 processes`."""
  text = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  if jax.process_count() > 1:
    text += f', {jax.process_count()} processes'
  return text


def jit_over_rows(function: Callable) -> Callable:
  """Compiles function(rows, *args), with the rows divided among the devices.

  The result, [rows, ...] as well, is replicated on every device.
  """

  def sharded(rows: PyTree, *args: Any) -> PyTree:
    rows = jax.lax.with_sharding_constraint(rows, _sharding(AXIS))
    return function(rows, *args)

  return jax.jit(sharded, out_shardings=_sharding())


def shard_rows(rows: PyTree) -> PyTree:
  """Divides host arrays [rows, ...] of this process among the devices."""
  put = partial(jax.make_array_from_process_local_data, _sharding(AXIS))
  return jax.tree.map(put, rows)


def gather(text: str) -> list[str]:
  """Returns the text of each process; all processes must call this."""
  if not is_distributed():
    return [text]
  raw = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(raw.size))
  padded = np.zeros(sizes.max(), np.uint8)
  padded[: raw.size] = raw
  gathered = multihost_utils.process_allgather(padded)
  return [
    row[:size].tobytes().decode()
    for row, size in zip(gathered, sizes, strict=True)
  ]


def true_on_all(flag: bool) -> bool:
  """Returns whether the flag is True on every process."""
  if not is_distributed():
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).all())


def broadcast_from_main(number: int) -> int:
  """Returns the number that process 0 passes."""
  if not is_distributed():
    return number
  return int(multihost_utils.broadcast_one_to_all(np.array(number)))


def round_up_batch_size(batch_size: int) -> int:
  """Rounds a batch size up to a multiple of the number of devices."""
  devices = jax.device_count()
  return -(-batch_size // devices) * devices


def stack_per_device(make: Callable[[], jax.Array]) -> jax.Array:
  """Makes [devices, ...]: an array, once on each device."""
  stacked = lambda: jnp.stack([make()] * jax.device_count())
  return jax.jit(stacked, out_shardings=_sharding(AXIS))()


def peak_memory() -> int | None:
  """Returns the peak memory of a device, in bytes; None: unknown."""
  stats = [device.memory_stats() for device in jax.local_devices()]
  known = [s['peak_bytes_in_use'] for s in stats if s]
  return max(known, default=None)


def device_memory_bytes() -> int | None:
  """Returns the memory of a device, in bytes; None: unknown."""
  stats = [device.memory_stats() for device in jax.local_devices()]
  known = [s['bytes_limit'] for s in stats if s and 'bytes_limit' in s]
  return min(known, default=None)


def topology(name: str) -> list[jax.Device]:
  """Returns the TPU chips of a topology, such as v5e:4x4; none is needed.

  Programs can be compiled for them, but not run.

  Raises:
    UserError: The compiler of TPUs is not installed, or does not know the
      topology.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise UserError(
      f'--topology={name} needs the compiler of TPUs: pip install '
      "'gan_jax[tpu]'"
    )
  # With these, libtpu does not search for TPUs.
  for key, value in {
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
  }.items():
    os.environ.setdefault(key, value)
  try:
    return topologies.get_topology_desc(name, 'tpu').devices
  except Exception as error:  # of XLA's own kind
    line = ' '.join(str(error).split())[:120]
    raise UserError(
      f'--topology={name} is refused ({line}): name one such as v5e:2x4, '
      'v5e:16x16 or v6e:8x8'
    ) from error


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
  whole = _sharding(devices=devices)
  rows = [
    _sharding(*axis * [None], AXIS, devices=devices) for axis in BATCH_AXES
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
