"""Devices and processes: the only file that asks JAX about them."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import (
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
  SingleDeviceSharding,
)
from jaxtyping import PyTree

from gan_jax.errors import UserError

AXIS = 'devices'
# Numbers the calls of `preempted`, because JAX requires consecutive numbers.
_call_numbers = itertools.count()


def make_sharding(
  *axes: str | None, devices: Sequence[jax.Device] | None = None
) -> NamedSharding:
  """Makes a sharding over `devices`; None: all devices.

  `AXIS` marks an array axis that is divided among the devices.
  """
  mesh = Mesh(devices or jax.devices(), AXIS)
  return NamedSharding(mesh, PartitionSpec(*axes))


def use_cpu_only() -> None:
  """Makes JAX use only the CPU: other processes need the accelerators."""
  jax.config.update('jax_platforms', 'cpu')


def is_distributed() -> bool:
  """Returns whether the run has several processes."""
  return jax.process_count() > 1


def preempted() -> bool:
  """Returns whether all processes must stop now: one received SIGTERM.

  It is true in one call. The processes agree on which: so all of them must make
  the same calls, after dispatches and in evaluations.
  """
  if not is_distributed():
    return False
  return multihost_utils.reached_preemption_sync_point(next(_call_numbers))


def barrier(name: str) -> None:
  """Waits until every process has reached this call."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def create(function: Callable, *args: Any) -> PyTree:
  """Calls a function; its results are replicated on every device."""
  return jax.jit(function, out_shardings=make_sharding())(*args)


def replicate(tree: PyTree) -> PyTree:
  """Replicates host arrays, equal in all processes, on every device."""
  put = lambda x: jax.make_array_from_process_local_data(make_sharding(), x)
  return jax.tree.map(put, tree)


def replicated_shapes(tree: PyTree) -> PyTree:
  """Returns the shapes of `tree`, replicated on every device."""
  return _shapes(tree, make_sharding())


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
    rows = jax.lax.with_sharding_constraint(rows, make_sharding(AXIS))
    return function(rows, *args)

  return jax.jit(sharded, out_shardings=make_sharding())


def shard_rows(rows: PyTree) -> PyTree:
  """Divides host arrays [rows, ...] of this process among the devices."""
  put = partial(jax.make_array_from_process_local_data, make_sharding(AXIS))
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
  return jax.jit(stacked, out_shardings=make_sharding(AXIS))()


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
