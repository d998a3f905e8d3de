"""What no memory can hold is refused before anything is allocated."""

import contextlib
import os
from collections.abc import Iterator

import jax
from jaxtyping import PyTree

from gan_jax import parallel
from gan_jax.errors import UserError
from gan_jax.schedule import Table
from gan_jax.state import State, player_params

# What the scalars of a round take on the host, and the numbers of an example.
ROUND_BYTES, EXAMPLE_BYTES = 500, 8


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


def check_state(state: State) -> None:
  """Refuses networks that are too large for a device; `state`: its shapes."""
  params = sum(
    leaf.size for leaf in jax.tree.leaves(player_params(state.variables))
  )
  needed = _bytes(state)
  there = parallel.bytes_of_device() or _share()
  if needed > there:
    raise UserError(
      f'the networks have {params:,} parameters: with the optimizers and the '
      f'moving average they take {_gb(needed)}, and a device has {_gb(there)}; '
      'make them smaller (config.model, config.game.latent_dim, '
      'config.data.resolution)'
    )


def check_dispatch(table: Table, streamed_bytes: int) -> None:
  """Refuses dispatches whose input is too large for the machine.

  `streamed_bytes`: of an example that does not lie on the devices.
  """
  each = EXAMPLE_BYTES + streamed_bytes
  spans = [row.span for row in table.rows]
  examples = max(
    span.images_per_round + (span.gen_batch_size or 0) for span in spans
  )
  rounds = table.rounds_per_dispatch
  needed, there = rounds * (ROUND_BYTES + examples * each), host_bytes()
  if needed > there:
    raise UserError(
      f'a dispatch of {rounds:,} rounds with {examples:,} examples each takes '
      f'{_gb(needed)}, and this machine has {_gb(there)}: a smaller '
      '--config.rounds_per_dispatch or --config.batch_size'
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
  '--config.rounds_per_dispatch or network, or --config.precision=bfloat16 '
  '({})'
)


def _share() -> int:
  """What each of the devices has that use this machine's memory."""
  return host_bytes() // jax.local_device_count()


def _bytes(tree: PyTree) -> int:
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _gb(size: int) -> str:
  return f'{size / 1e9:,.1f} GB'
