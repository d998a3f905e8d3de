"""What no memory can hold is refused before anything is allocated."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
from jaxtyping import PyTree

from gan_jax import devices
from gan_jax.errors import UserError
from gan_jax.pair import player_params

# What the scalars of an iteration take on the host, and the indices of an
# example.
STEP_BYTES, EXAMPLE_BYTES = 500, 8


def host_bytes() -> int:
  """The memory of this machine."""
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def check_images(count: int, resolution: int, image_bytes: int) -> None:
  """Refuses images that the machine cannot hold, `count` at a time."""
  needed, there = count * image_bytes, host_bytes()
  if needed > there:
    raise UserError(
      f'{count:,} images of {resolution}x{resolution} take {_gb(needed)}, and '
      f'this machine has {_gb(there)}: a smaller --config.data.resolution'
    )


def check_state(state: Any) -> None:
  """Refuses networks that are too large for a device; `state`: its shapes."""
  params = sum(
    leaf.size for leaf in jax.tree.leaves(player_params(state.variables))
  )
  needed = _bytes(state)
  there = devices.bytes_of_device() or _share()
  if needed > there:
    raise UserError(
      f'the networks have {params:,} parameters: with the optimizers and the '
      f'moving average they take {_gb(needed)}, and a device has {_gb(there)}; '
      'make them smaller (config.model, config.game.latent_dim, '
      'config.data.resolution)'
    )


def check_dispatch(steps: int, examples: int, streamed_bytes: int) -> None:
  """Refuses dispatches whose input is too large for the machine.

  Args:
    steps: Iterations of a dispatch.
    examples: Of an iteration.
    streamed_bytes: Of an example that is not on the devices already.
  """
  needed = steps * (STEP_BYTES + examples * (EXAMPLE_BYTES + streamed_bytes))
  if needed > host_bytes():
    raise UserError(
      f'a dispatch of {steps:,} iterations with {examples:,} examples each '
      f'takes {_gb(needed)}, and this machine has {_gb(host_bytes())}: set a '
      'smaller --config.steps_per_dispatch or --config.batch_size'
    )


@contextlib.contextmanager
def exhaustion_told() -> Iterator[None]:
  """Tells in one line that memory ran out.

  Raises:
    UserError: It did.
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
  'out of memory on {}: a smaller --config.batch_size, '
  '--config.steps_per_dispatch or network, or --config.precision=bfloat16 '
  '({})'
)


def _share() -> int:
  """What each of the devices has that use this machine's memory."""
  return host_bytes() // jax.local_device_count()


def _bytes(tree: PyTree) -> int:
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _gb(size: int) -> str:
  return f'{size / 1e9:,.1f} GB'
