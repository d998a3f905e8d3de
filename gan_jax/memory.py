"""Refuses sizes that do not fit into memory, before anything is allocated."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
from jaxtyping import PyTree

from gan_jax import devices
from gan_jax.errors import UserError
from gan_jax.pair import player_params

# Host memory of the scalars of an iteration, and of the indices of an example.
STEP_BYTES, EXAMPLE_BYTES = 500, 8


def host_bytes() -> int:
  """Returns the memory of this machine, in bytes."""
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def check_images(count: int, resolution: int, image_bytes: int) -> None:
  """Refuses images if `count` of them do not fit into memory."""
  needed, available = count * image_bytes, host_bytes()
  if needed > available:
    raise UserError(
      f'{count:,} images of {resolution}x{resolution} take {_gb(needed)}, but '
      f'this machine has {_gb(available)}: set a smaller '
      '--config.data.resolution'
    )


def check_state(state: Any) -> None:
  """Refuses networks that do not fit on a device; `state` may be shapes."""
  params = sum(
    leaf.size for leaf in jax.tree.leaves(player_params(state.variables))
  )
  needed = _bytes(state)
  available = devices.device_memory_bytes() or _host_bytes_per_device()
  if needed > available:
    raise UserError(
      f'the networks have {params:,} parameters: with the optimizer states and '
      f'the moving average they take {_gb(needed)}, but a device has '
      f'{_gb(available)}: make them smaller (config.model, '
      'config.game.latent_dim, config.data.resolution)'
    )


def check_dispatch(steps: int, examples: int, streamed_bytes: int) -> None:
  """Refuses a dispatch whose inputs do not fit into memory.

  Args:
    steps: The iterations of a dispatch.
    examples: The examples of an iteration.
    streamed_bytes: The bytes of an example that are not on the devices yet.
  """
  needed = steps * (STEP_BYTES + examples * (EXAMPLE_BYTES + streamed_bytes))
  if needed > host_bytes():
    raise UserError(
      f'a dispatch of {steps:,} iterations with {examples:,} examples each '
      f'takes {_gb(needed)}, but this machine has {_gb(host_bytes())}: set a '
      'smaller --config.steps_per_dispatch or --config.batch_size'
    )


@contextlib.contextmanager
def report_out_of_memory() -> Iterator[None]:
  """Turns an out-of-memory error into a message of one line.

  Raises:
    UserError: Memory ran out.
  """
  try:
    yield
  except MemoryError as error:
    raise UserError(_EXHAUSTED.format('this machine', error)) from error
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    line = ' '.join(str(error).split())[:160]
    raise UserError(_EXHAUSTED.format('the device', line)) from error


_EXHAUSTED = (
  'out of memory on {}: set a smaller --config.batch_size or '
  '--config.steps_per_dispatch, a smaller network, or '
  '--config.precision=bfloat16 ({})'
)


def _host_bytes_per_device() -> int:
  """Returns the memory of a device that uses the machine's memory."""
  return host_bytes() // jax.local_device_count()


def _bytes(tree: PyTree) -> int:
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _gb(size: int) -> str:
  return f'{size / 1e9:,.1f} GB'
