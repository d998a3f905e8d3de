"""How a run is spread over devices: the only file that names them.

A round is written once. `jit` makes of it one global-view program over a mesh,
in which every array is whole and XLA splits the work; `pmap` makes one program
a device, which averages gradients over a named axis. Both give the same run.
"""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import (
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
  SingleDeviceSharding,
)
from jaxtyping import PyTree

from gan_jax.errors import UserError, choose
from gan_jax.state import Pair

AXIS = 'devices'
# Where the batch is, counted from the left, in the leaves of a feed.
BATCH_AXES = Pair(gen=1, disc=2)
# Dispatches that are on the devices before they are due.
AHEAD = 2


class Spread(NamedTuple):
  """One way of spreading a run.

  Attributes:
    axis_name: What the round is to call the devices' axis, if anything.
    compile: (function) -> compiled, its first argument, the state, donated.
      function(state, dataset, feed, phases, frozen) -> (state, metrics).
    shard: (feed) -> the feed, each device its part of the batch.
  """

  axis_name: str | None
  compile: Callable[[Callable], Callable]
  shard: Callable[[PyTree], PyTree]


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

  return Spread(None, compile, shard)


def _pmap() -> Spread:
  if jax.process_count() > 1:
    # What pmap returns is local to its process, and cannot be saved as it is.
    raise UserError(
      "config.parallel='pmap' is for one process as yet: take 'jit'"
    )

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

  return Spread(AXIS, compile, shard)


SPREADS = {'jit': _jit, 'pmap': _pmap}


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


def _shapes(tree: PyTree, sharding: Sharding) -> PyTree:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
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


def keep_compiled() -> None:
  """Turns the persistent compilation cache on, so a second start is fast.

  JAX_COMPILATION_CACHE_DIR names its folder; without it, ~/.cache/gan_jax.
  """
  if not jax.config.jax_compilation_cache_dir:
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    folder = Path(base) / 'gan_jax' / 'compiled'
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
