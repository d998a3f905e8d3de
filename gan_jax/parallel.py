"""How a run is spread over devices: the only file that names them.

A round is written once. `jit` makes of it one global-view program over a mesh,
in which every array is whole and XLA splits the work; `pmap` makes one program
a device, which averages gradients over a named axis. Both give the same run.

The vanilla MLP, images/s, jit and pmap: 3,210 and 3,240 on one device of two
CPU cores; 1,630 and 2,470 on 2 fake devices that share the cores, 1,020 and
1,590 on 4. `jit` is the default all the same, until real accelerators have been
measured: JAX only maintains `pmap`.
"""

import collections
import contextlib
import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import (
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
  SingleDeviceSharding,
)
from jaxtyping import PyTree

from gan_jax.errors import UserError, choose
from gan_jax.files import cache_folder
from gan_jax.state import Pair

AXIS = 'devices'
# Where the batch is, counted from the left, in the leaves of a feed.
BATCH_AXES = Pair(gen=1, disc=2)
# Dispatches that are on the devices before they are due.
AHEAD = 2
# How often it was asked whether to stop: counted, for JAX wants every number.
_asked = itertools.count()


class Spread(NamedTuple):
  """One way of spreading a run.

  Attributes:
    axis_name: What the round is to call the devices' axis, if anything.
    compile: (function) -> compiled, its first argument, the state, donated.
      function(state, dataset, feed, phases, frozen) -> (state, metrics).
    shard: (feed) -> the feed, each device its part of the batch.
    own: (tree) -> arrays that all devices hold whole, as what was compiled
      takes them.
    whole: The inverse: (tree) -> as checkpoints have them.
  """

  axis_name: str | None
  compile: Callable[[Callable], Callable]
  shard: Callable[[PyTree], PyTree]
  own: Callable[[PyTree], PyTree]
  whole: Callable[[PyTree], PyTree]


def _sharding(*axes: str | None) -> NamedSharding:
  """Over all devices: `AXIS` for an array axis that they share out."""
  return NamedSharding(Mesh(jax.devices(), AXIS), PartitionSpec(*axes))


def _jit() -> Spread:
  def compile(function: Callable) -> Callable:
    return jax.jit(function, donate_argnums=0, out_shardings=_sharding())

  def shard(feed: PyTree) -> PyTree:
    def place(axis, tree):
      sharding = _sharding(*axis * [None], AXIS)
      put = lambda x: jax.make_array_from_process_local_data(sharding, x)
      return jax.tree.map(put, tree)

    return Pair(*map(place, BATCH_AXES, feed))

  same = lambda tree: tree
  return Spread(None, compile, shard, own=same, whole=same)


def _pmap() -> Spread:
  def compile(function: Callable) -> Callable:
    return jax.pmap(
      function,
      axis_name=AXIS,
      in_axes=(None, None, BATCH_AXES, None, None),
      out_axes=None,
      donate_argnums=0,
    )

  def shard(feed: PyTree) -> PyTree:
    def split(axis, tree):
      devices = jax.local_device_count()
      cut = lambda x: x.reshape(
        *x.shape[:axis], devices, x.shape[axis] // devices, *x.shape[axis + 1 :]
      )
      return jax.tree.map(cut, tree)

    return Pair(*map(split, BATCH_AXES, feed))

  # What pmap takes and returns is local to its process; what is saved is not.
  local = NamedSharding(Mesh(jax.local_devices(), AXIS), PartitionSpec())
  return Spread(
    AXIS,
    compile,
    shard,
    own=partial(jax.tree.map, partial(_rewrap, local)),
    whole=partial(jax.tree.map, partial(_rewrap, _sharding())),
  )


def _rewrap(sharding: Sharding, x: jax.Array) -> jax.Array:
  """The same buffers, one a device, as an array over other devices."""
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    raw = _rewrap(sharding, jax.random.key_data(x))
    return jax.random.wrap_key_data(raw, impl=jax.random.key_impl(x))
  parts = [shard.data for shard in x.addressable_shards]
  return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)


SPREADS = {'jit': _jit, 'pmap': _pmap}


def leave_devices() -> None:
  """Takes none of the accelerators: other processes are to have them."""
  jax.config.update('jax_platforms', 'cpu')


def is_one_of_many() -> bool:
  """Whether the run has several processes."""
  return jax.process_count() > 1


def preempted() -> bool:
  """Whether all processes are to stop now, since one was told to (SIGTERM).

  They agree on when: each asks once after every dispatch.
  """
  if not is_one_of_many():
    return False
  return multihost_utils.reached_preemption_sync_point(next(_asked))


def wait_for_all(what: str) -> None:
  """Waits until every process has come as far."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def make(name: str) -> Spread:
  """The way of spreading that `config.parallel` names."""
  return choose('config.parallel', name, SPREADS)()


def create(function: Callable, *args: Any) -> PyTree:
  """Computes arrays that every device is to hold whole."""
  return jax.jit(function, out_shardings=_sharding())(*args)


def replicate(tree: PyTree) -> PyTree:
  """Puts host arrays, the same on every process, whole on every device."""
  put = lambda x: jax.make_array_from_process_local_data(_sharding(), x)
  return jax.tree.map(put, tree)


def on_every_device(tree: PyTree) -> PyTree:
  """Shapes of `tree`, to be restored whole on every device."""
  return _shapes(tree, _sharding())


def on_one_device(tree: PyTree) -> PyTree:
  """Shapes of `tree`, to be restored on this process's first device."""
  return _shapes(tree, SingleDeviceSharding(jax.local_devices()[0]))


def as_it_lies(tree: PyTree) -> PyTree:
  """Shapes of `tree`, which compile as its arrays do."""
  return _shapes(tree)


def _shapes(tree: PyTree, sharding: Sharding | None = None) -> PyTree:
  """With one sharding for all; None: with their own."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding or x.sharding
    ),
    tree,
  )


def fetch(tree: PyTree) -> PyTree:
  """Brings arrays that every device holds whole to the host; waits for them."""
  return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)


def is_main() -> bool:
  """Whether this process is the one that writes."""
  return jax.process_index() == 0


def process_rows() -> Callable[[int], slice]:
  """Batch size -> the rows of a global batch that are this process's.

  The function may be asked in other processes, which have no devices.
  """
  return partial(_share, jax.process_index(), jax.process_count())


def _share(index: int, count: int, batch_size: int) -> slice:
  share = batch_size // count
  return slice(index * share, (index + 1) * share)


def ahead(
  shard: Callable[[PyTree], PyTree], fed: Iterable[PyTree]
) -> Iterator[PyTree]:
  """What is fed, on its way to the devices before it is asked for."""
  waiting: collections.deque[PyTree] = collections.deque()
  for part in fed:
    waiting.append(shard(part))
    if len(waiting) > AHEAD:
      yield waiting.popleft()
  yield from waiting


def keep_up(results: list[PyTree]) -> None:
  """Waits until the devices have all results but the last few.

  Each dispatch that waits for them holds what it is fed in their memory.
  """
  if len(results) > AHEAD:
    jax.block_until_ready(results[-1 - AHEAD])


def check_batch_size(name: str, batch_size: int) -> None:
  """Refuses a batch that the devices do not divide."""
  devices = jax.device_count()
  if batch_size % devices:
    below = batch_size // devices * devices
    fitting = f'{below} or {below + devices}' if below else f'{devices}'
    raise UserError(
      f'config.{name}={batch_size} is not divisible by {devices} devices: '
      f'the nearest that is: {fitting}'
    )


def describe() -> str:
  """The devices in words: `4 x TPU v4`, on 2 processes."""
  words = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  if jax.process_count() > 1:
    words += f', {jax.process_count()} processes'
  return words


def by_rows(function: Callable) -> Callable:
  """Compiles function(rows, *whole), each device doing a part of the rows.

  What it returns, [rows, ...] too, every device holds whole.
  """

  def divided(rows: PyTree, *whole: Any) -> PyTree:
    rows = jax.lax.with_sharding_constraint(rows, _sharding(AXIS))
    return function(rows, *whole)

  return jax.jit(divided, out_shardings=_sharding())


def share_out(rows: PyTree) -> PyTree:
  """Puts host arrays [rows, ...], of this process's rows, on all devices."""
  put = partial(jax.make_array_from_process_local_data, _sharding(AXIS))
  return jax.tree.map(put, rows)


def gather(text: str) -> list[str]:
  """The text that each process has, by process; all must call it."""
  if not is_one_of_many():
    return [text]
  raw = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(raw.size))
  padded = np.zeros(sizes.max(), np.uint8)
  padded[: raw.size] = raw
  everyone = multihost_utils.process_allgather(padded)
  return [
    row[:size].tobytes().decode()
    for row, size in zip(everyone, sizes, strict=True)
  ]


def all_agree(flag: bool) -> bool:
  """Whether it is so on every process."""
  if not is_one_of_many():
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).all())


def of_main(number: int) -> int:
  """The number that the process has which writes."""
  if not is_one_of_many():
    return number
  return int(multihost_utils.broadcast_one_to_all(np.array(number)))


def rows_at_a_time(least: int) -> int:
  """A batch of so many or a few more, which the devices divide."""
  devices = jax.device_count()
  return -(-least // devices) * devices


def one_on_each(make: Callable[[], jax.Array]) -> jax.Array:
  """The same array for each device: [devices, ...], each with its own."""
  several = lambda: jnp.stack([make()] * jax.device_count())
  return jax.jit(several, out_shardings=_sharding(AXIS))()


def peak_memory() -> int | None:
  """Bytes that one device has had in use at most; None: it does not tell."""
  stats = [device.memory_stats() for device in jax.local_devices()]
  known = [s['peak_bytes_in_use'] for s in stats if s]
  return max(known, default=None)


def bytes_of_device() -> int | None:
  """The memory of a device; None: it does not tell."""
  stats = [device.memory_stats() for device in jax.local_devices()]
  known = [s['bytes_limit'] for s in stats if s and 'bytes_limit' in s]
  return min(known, default=None)


def keep_compiled() -> None:
  """Turns the persistent compilation cache on, so a second start is fast.

  JAX_COMPILATION_CACHE_DIR names its folder; without it, ~/.cache/gan_jax. A
  folder that is full, or cannot be written to, is done without.
  """
  warnings.filterwarnings(
    'ignore', 'Error (reading|writing) persistent compilation cache'
  )
  folder = jax.config.jax_compilation_cache_dir
  _keep_compiled_in(folder or str(cache_folder() / 'compiled'))


@contextlib.contextmanager
def compiled_anew() -> Iterator[None]:
  """With a compilation cache that begins empty, and goes."""
  before = jax.config.jax_compilation_cache_dir
  with tempfile.TemporaryDirectory() as folder:
    compilation_cache.reset_cache()
    _keep_compiled_in(folder)
    try:
      yield
    finally:
      compilation_cache.reset_cache()
      jax.config.update('jax_compilation_cache_dir', before)


def _keep_compiled_in(folder: str) -> None:
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
