"""The initial weights of a run: those of another run, or of a .pkl file."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from gan_jax import devices
from gan_jax.config import read as read_config
from gan_jax.errors import UserError
from gan_jax.pair import Pair, Variables
from gan_jax.training import checkpoint, network_pkl
from gan_jax.training.schedule import Schedule, make_schedule
from gan_jax.training.state import State

# Upper limit of the arrays that the summary names.
MAX_NAMES = 8


class Initial(NamedTuple):
  """Weights to start from.

  Attributes:
    source: The file or workdir.
    variables: Both players' variables; None of a player that is not taken.
    ema: The moving average of G.
    digest: A hash of all arrays.
  """

  source: str
  variables: Pair[Variables | None]
  ema: Variables | None
  digest: str


def read(source: str, players: Sequence[str] = Pair._fields) -> Initial:
  """Reads the weights of a run's newest checkpoint or of a .pkl file.

  Nothing that the source names is imported or run.

  Args:
    source: The workdir of a run, or the file.
    players: Whose weights to take: gen, disc or both. The moving average goes
      with gen.

  Raises:
    UserError: The source does not exist, or cannot be read.
  """
  path = Path(source).expanduser()
  if path.suffix == '.pkl' or path.is_file():
    found = network_pkl.read(path)
    variables = Pair(found.gen.variables, found.disc.variables)
    ema = found.ema.variables
  else:
    steps = checkpoint.steps(source)
    if not steps:
      raise UserError(
        f'--init={source} is neither a run with a checkpoint nor a .pkl file'
      )
    parts = checkpoint.read(source, ('variables', 'ema'), steps[-1])
    parts = jax.tree.map(np.asarray, parts)
    variables, ema = Pair(**parts['variables']), parts['ema']
  taken = Pair(
    *(
      value if player in players else None
      for player, value in variables._asdict().items()
    )
  )
  ema = ema if 'gen' in players else None
  return Initial(source, taken, ema, _digest((taken, ema)))


def initialize(state: State, initial: Initial) -> tuple[State, list[str]]:
  """Replaces the weights of a new state by those that fit.

  An array fits if it has the same name and shape.

  Returns:
    The state, and lines for the run summary.

  Raises:
    UserError: No array of a player fits.
  """
  lines, both, taken = [], [], 'Init:     ' + initial.source
  for player in Pair._fields:
    new, old = (
      getattr(x, player) for x in (state.variables, initial.variables)
    )
    if old is not None:
      new, total, missed = _take(new, old)
      taken += f', {total - len(missed)} of {total} arrays of {player}'
      lines += [f'  {player}{name}' for name in missed]
      if total == len(missed):
        raise UserError(
          f'--init={initial.source} has no array that fits {player}: it is of '
          f'another network (first of {total}: {player}{missed[0]}); leave '
          'the player out of config.init.players, or change config.model'
        )
    both.append(new)
  ema = state.ema if initial.ema is None else _take(state.ema, initial.ema)[0]
  if len(lines) > MAX_NAMES:
    lines[MAX_NAMES:] = [f'  and {len(lines) - MAX_NAMES} more']
  not_taken = ['          not taken, and therefore random:', *lines]
  state = state._replace(variables=Pair(*both), ema=ema)
  return state, [taken, *(not_taken if lines else [])]


def continue_run(
  config: ConfigDict, schedule: Schedule, create: Callable[[], State]
) -> tuple[State, list[str]]:
  """Takes the whole state of the run in `config.init.source`.

  Returns:
    The state, and a line for the run summary.

  Raises:
    UserError: The source is not a run, its state does not fit, or its
      iterations show another number of images.
  """
  source = config.init.source
  steps = checkpoint.steps(source)
  if not steps:
    raise UserError(
      f'--config.init.state needs a run: {source} has no checkpoints'
    )
  state = checkpoint.read_state(source, create, step := steps[-1])
  images = make_schedule(read_config(source)).images(step)
  if step >= schedule.total_steps or images != schedule.images(step):
    raise UserError(
      f'{source} is at iteration {step:,} of {images:,} images, which this '
      'schedule does not continue: increase config.total_images, and keep '
      'the batch sizes'
    )
  return state, [f'Init:     {source}, continued at iteration {step:,}']


def _take(new: PyTree, old: PyTree) -> tuple[PyTree, int, list[str]]:
  """Takes the arrays that fit.

  Returns:
    The tree, the number of its arrays, and those that were not taken: name and
    shapes.
  """
  keystr = jax.tree_util.keystr
  there = {
    keystr(path): array
    for path, array in jax.tree_util.tree_leaves_with_path(old)
  }
  missed = []

  def choose(path: Any, leaf: jax.Array) -> jax.Array:
    name = keystr(path)
    array = there.get(name)
    if array is not None and array.shape == leaf.shape:
      return devices.replicate(np.asarray(array, leaf.dtype))
    shape = 'none there' if array is None else f'{array.shape} there'
    missed.append(f'{_readable(path)}: {leaf.shape} here, {shape}')
    return leaf

  tree = jax.tree_util.tree_map_with_path(choose, new)
  return tree, len(jax.tree.leaves(new)), missed


def _readable(path: Any) -> str:
  """Returns /block/kernel for a path within `params`."""
  keys = [str(getattr(key, 'key', key)) for key in path]
  return ''.join(f'/{key}' for key in keys if key != 'params')


def _digest(tree: PyTree) -> str:
  """Returns a short hash of all arrays."""
  digest = hashlib.sha256()
  for path, array in jax.tree_util.tree_leaves_with_path(tree):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()[:16]
