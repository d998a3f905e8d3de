"""Compiles an experiment for TPUs, without having any, and estimates its cost.

XLA's compiler of TPUs runs on any machine. It shows whether a run fits into the
memory of a chip, and what the chips must send to each other. With the chip's
published speeds this gives the time of an iteration by a roofline: nothing is
measured, and XLA's count of the bytes moved is a coarse one.
"""

import importlib.util
import json
import math
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import rich.console
import rich.table
from jax.experimental import topologies
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import games
from gan_jax.data.on_device import make_reader
from gan_jax.data.order import stream_of
from gan_jax.errors import UserError
from gan_jax.modes.dispatch_timer import (
  endless_schedule,
  flops_per_dispatch,
  generated_source,
  make_create_state,
)
from gan_jax.pair import player_params
from gan_jax.registry import choose
from gan_jax.training import optimizers
from gan_jax.training.check import check_config
from gan_jax.training.dispatch import train_dispatch
from gan_jax.training.feed import index_batch
from gan_jax.training.strategies import compile_for


class Chip(NamedTuple):
  """Published figures of a chip.

  Attributes:
    flops: bfloat16 operations per second; products of float32 arrays are
      computed in bfloat16 too, by JAX's default on TPUs.
    memory, bandwidth: Bytes of its memory; bytes per second.
    link: Bytes per second to other chips, in one direction.
  """

  flops: float
  memory: float
  bandwidth: float
  link: float


# Google Cloud's documentation of each TPU.
CHIPS = {
  'v5e': Chip(197e12, 16e9, 819e9, 200e9),
  'v5p': Chip(459e12, 95e9, 2765e9, 600e9),
  'v6e': Chip(918e12, 32e9, 1638e9, 400e9),
}


class Collective(NamedTuple):
  """A transfer between chips in a compiled program.

  Attributes:
    kind: Its operation, such as 'all-reduce'.
    arrays: The dtype and shape of each array: ('f32', (4, 4, 3, 64)).
  """

  kind: str
  arrays: tuple[tuple[str, tuple[int, ...]], ...]

  @property
  def bytes(self) -> int:
    """The bytes of the arrays."""
    return sum(_bytes(*array) for array in self.arrays)


_KINDS = 'all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter'
_CALL = re.compile(rf'= (.*?) ({_KINDS})(-start)?\(')
_ARRAY = re.compile(r'\b(pred|[a-z]+\d+)\[([\d,]*)\]')


def collectives(hlo: str) -> list[Collective]:
  """Lists the transfers in a compiled program's text.

  Those in the body of a loop are listed once.
  """
  found = []
  for line in hlo.splitlines():
    match = _CALL.search(line)
    if match is None:
      continue
    arrays = tuple(
      (dtype, tuple(int(n) for n in dims.split(',') if n))
      for dtype, dims in _ARRAY.findall(match[1])
    )
    if match[3] and match[2] in ('all-gather', 'collective-permute'):
      arrays = arrays[len(arrays) // 2 :]  # without its operands
    found.append(Collective(match[2], arrays))
  return found


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
  bits = 8 if dtype == 'pred' else int(re.sub(r'\D', '', dtype))
  return math.prod(shape) * bits // 8


def sent_bytes(collective: Collective, chips: int) -> float:
  """Returns the bytes that each chip sends, in a ring."""
  factor = {
    'all-gather': (chips - 1) / chips,
    'all-reduce': 2 * (chips - 1) / chips,
    'all-to-all': (chips - 1) / chips,
    'collective-permute': 1.0,
    'reduce-scatter': chips - 1.0,  # of the part that a chip keeps
  }[collective.kind]
  return factor * collective.bytes


def compile_step(
  config: ConfigDict, chips: list[jax.Device]
) -> jax.stages.Compiled:
  """Compiles one iteration of the schedule's last segment for chips."""
  config = cfg.changed(config, 'steps_per_dispatch', 1)
  schedule, first = endless_schedule(config)
  source, game = generated_source(config), games.make(config)
  tx = optimizers.make(config.optimizer.to_dict())
  batch = index_batch(
    stream_of(source, config.seed), source, schedule, lambda n: slice(n), first
  )
  streamed = cfg.changed(config, 'data.max_device_bytes', 0)
  reader = make_reader(streamed, source)
  return compile_for(
    chips,
    config.parallel,
    partial(train_dispatch, game, tx, reader, None),
    jax.eval_shape(make_create_state(game, tx, config, source)),
    {},
    batch,
    schedule.dispatch(first),
    game.frozen(),
  )


def find_chips(name: str) -> list[jax.Device]:
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


def compile(
  config: ConfigDict, workdir: str | Path, topology: str | None
) -> None:
  """Prints a table, and the same figures as one line of JSON; writes nothing.

  Args:
    config: The config of the experiment.
    workdir: Not used.
    topology: The chips, such as v5e:4x4.

  Raises:
    UserError: The config or the topology is invalid.
  """
  del workdir
  if topology is None:
    raise UserError(
      '--mode=compile needs TPUs to compile for: add --topology=v5e:2x4'
    )
  check_config(config)
  chip = choose('TPU', topology.partition(':')[0], CHIPS)
  chips = find_chips(topology)
  config = config.copy_and_resolve_references()
  figures = measure(config, topology, chip, chips)
  table = rich.table.Table(show_header=False, box=None)
  for name, text in _rows(figures, chip):
    table.add_row(name, text)
  rich.console.Console().print(table)
  print(json.dumps(figures))


def measure(
  config: ConfigDict, topology: str, chip: Chip, chips: list[jax.Device]
) -> dict[str, Any]:
  """Compiles an iteration and derives its figures; see `compile`.

  A loop of D updates is counted once, except in the FLOPs.
  """
  schedule, first = endless_schedule(config)
  segment = schedule.segment_at(first).segment
  for size in (segment.batch_size, segment.gen_batch_size):
    if size is not None and size % len(chips):
      raise UserError(
        f'a batch of {size} is not divisible by the {len(chips)} chips of '
        f'{topology}: set --config.batch_size={len(chips)} or a multiple'
      )
  start = time.perf_counter()
  compiled = compile_step(config, chips)
  seconds = time.perf_counter() - start
  memory = compiled.memory_analysis()
  sent = collectives(compiled.as_text())
  one = cfg.changed(config, 'steps_per_dispatch', 1)
  flops = flops_per_dispatch(one, generated_source(config)) / len(chips)
  moved = compiled.cost_analysis()['bytes accessed']
  limits = {
    'compute': flops / chip.flops,
    'memory': moved / chip.bandwidth,
    'transfers': sum(sent_bytes(x, len(chips)) for x in sent) / chip.link,
  }
  images = segment.images_per_step
  return {
    'topology': topology,
    'chips': len(chips),
    'images_per_iteration': images,
    'compile_seconds': round(seconds, 1),
    'state_bytes': memory.argument_size_in_bytes,
    'temporary_bytes': memory.temp_size_in_bytes,
    'flops_per_chip': flops,
    'bytes_moved_per_chip': moved,
    'parameter_bytes': _parameter_bytes(config),
    'sent': {
      kind: {
        'count': sum(x.kind == kind for x in sent),
        'bytes': sum(x.bytes for x in sent if x.kind == kind),
      }
      for kind in sorted({x.kind for x in sent})
    },
    'roofline_seconds': limits,
    'roofline_images_per_second': images / max(limits.values()),
  }


def _parameter_bytes(config: ConfigDict) -> int:
  """Counts the bytes of both players' parameters."""
  game, source = games.make(config), generated_source(config)
  tx = optimizers.make(config.optimizer.to_dict())
  state = jax.eval_shape(make_create_state(game, tx, config, source))
  leaves = jax.tree.leaves(player_params(state.variables))
  return sum(x.size * jnp.dtype(x.dtype).itemsize for x in leaves)


def _rows(figures: dict[str, Any], chip: Chip) -> list[tuple[str, str]]:
  """Returns the lines of the printed table."""
  used = figures['state_bytes'] + figures['temporary_bytes']
  images, chips = figures['images_per_iteration'], figures['chips']
  sent = [
    f'{x["count"]} {kind} of {x["bytes"] / 1e6:,.2f} MB'
    for kind, x in figures['sent'].items()
  ]
  limits = figures['roofline_seconds']
  return [
    ('chips', f'{chips} ({figures["topology"]})'),
    ('images per iteration', f'{images:,} ({images / chips:g} per chip)'),
    ('compiled in', f'{figures["compile_seconds"]:.0f} s'),
    (
      'memory per chip',
      f'{used / 1e9:.2f} GB of {chip.memory / 1e9:.0f} GB '
      f'({figures["temporary_bytes"] / 1e9:.2f} GB temporary)'
      + (': DOES NOT FIT' if used > chip.memory else ''),
    ),
    ('GFLOP per chip', f'{figures["flops_per_chip"] / 1e9:,.2f}'),
    ('GB moved per chip', f'{figures["bytes_moved_per_chip"] / 1e9:,.2f}'),
    ('parameters', f'{figures["parameter_bytes"] / 1e6:,.2f} MB'),
    ('arrays exchanged', ', '.join(sent) or 'nothing'),
    *(
      (f'{name} alone', f'{1e3 * value:.3f} ms per iteration')
      for name, value in limits.items()
    ),
    (
      'images/s by roofline',
      f'{figures["roofline_images_per_second"]:,.0f}, limited by '
      f'{max(limits, key=limits.get)}; not measured',
    ),
  ]
