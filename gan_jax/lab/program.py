"""The compiled functions of a toy game: create, train, view and inspect."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from gan_jax import games
from gan_jax.data.toys import Toy
from gan_jax.games.game import Batch, Context, Game, Phase, main_output
from gan_jax.games.losses import LOSSES, GANLoss
from gan_jax.keys import Purpose, example_keys
from gan_jax.lab import interface
from gan_jax.pair import Pair
from gan_jax.plots.toy_plot import disc_grid, latent_grid, reference_points
from gan_jax.registry import build
from gan_jax.training import optimizers
from gan_jax.training.schedule import Schedule, make_schedule
from gan_jax.training.setup import create_state
from gan_jax.training.state import State, init_opt_state
from gan_jax.training.step import train_step

# The most iterations of one call of `train`.
CHUNK = 50
# Fakes of a view, those that are drawn, and those with an arrow.
NUM_FAKES, NUM_DRAWN, NUM_ARROWS = 1024, 400, 128
# Points of a step that slow motion shows.
NUM_INSPECTED = 128
# Points in each direction at which D is evaluated, by dimension.
GRID = {1: 160, 2: 44}
# Lines of the latent grid in each direction, and points on each line.
NUM_LINES, LINE_POINTS = 11, 33
# The standard deviation of the kernel that estimates densities in 1-D, as a
# share of `Toy.limit`.
BANDWIDTH = 0.04
# Which players an iteration updates.
ONLY = {
  'both': Pair(gen=True, disc=True),
  'disc': Pair(gen=False, disc=True),
  'gen': Pair(gen=True, disc=False),
}

View = dict[str, Array]


class Program(NamedTuple):
  """The compiled functions of one game; live values are their arguments.

  Attributes:
    toy: The distribution.
    tx: The optimizers.
    loss: The losses of both players.
    create: (seed) -> the state before the first iteration.
    compiled: By a key of ONLY, (state, stacked phases, n) -> the state after
      `n` iterations, which is donated, and the means of their metrics. Also
      `view`: (state, phase) -> what the page shows of a state; and `inspect`:
      (state, phase) -> the points of the next D update, with D's answers and
      the gradients of G's loss at the fakes.
    lowered: (name) -> a function of `compiled` before its compilation.
    real: Real points [n, d], the same at all times.
    shapes: The shapes of the state.
  """

  toy: Toy
  tx: Pair[optax.GradientTransformation]
  loss: GANLoss
  create: Callable[[Any], State]
  compiled: dict[str, Callable[..., Any]]
  lowered: Callable[[str], Any]
  real: Float[np.ndarray, 'n d']
  shapes: State

  def function(self, name: str) -> Callable[..., Any]:
    """Returns a function of `compiled`; compiles it if it is not ready."""
    if name not in self.compiled:
      self.compiled[name] = self.lowered(name).compile()
    return self.compiled[name]


def stack_phases(schedule: Schedule, step: int, n: int) -> Phase:
  """Stacks the phases of `n` iterations, padded to CHUNK."""
  phases = [schedule.phase(step + i) for i in range(n)]
  phases += [phases[-1]] * (CHUNK - n)
  return jax.tree.map(lambda *leaves: np.stack(leaves), *phases)


def make_program(config: ConfigDict) -> Program:
  """Compiles `create`, `both` and `view` of a config; this takes seconds.

  Raises:
    UserError: The config is invalid.
  """
  game, schedule = games.make(config), make_schedule(config)
  tx = optimizers.make(config.optimizer.to_dict())
  source, toy = interface.open_toy(config)
  loss = build('config.game.loss', LOSSES, config.game.loss.to_dict())
  read = interface.reader(config, source)
  phase = schedule.phase(0)
  shapes = interface.batch_shapes(config)
  create = jax.jit(lambda seed: create_state(game, tx, shapes, phase, seed))
  state = jax.eval_shape(create, np.int32(0))
  real = np.asarray(jax.jit(lambda: reference_points(toy, NUM_FAKES))())
  step_batch = partial(_step_batch, config, read)
  phases = stack_phases(schedule, 0, 1)

  def lowered(name: str) -> Any:
    if name in ONLY:
      train = partial(_train, _only(game, name), tx, step_batch)
      train = jax.jit(train, donate_argnums=0)
      return train.lower(state, phases, np.int32(1))
    function = partial(_inspect, game, loss, step_batch)
    if name == 'view':
      function = partial(_view, game, toy, loss, config, real)
    return jax.jit(function).lower(state, phase)

  create = create.lower(np.int32(0)).compile()
  compiled = {name: lowered(name).compile() for name in ('both', 'view')}
  return Program(toy, tx, loss, create, compiled, lowered, real, state)


def _only(game: Game, only: str) -> Game:
  """Returns the game in which only the named players are updated."""
  if only == 'both':
    return game
  return game._replace(trainable=lambda params, phase: ONLY[only])


def _step_batch(
  config: ConfigDict, read: Callable[..., Batch], state: State
) -> Batch:
  """Returns the real examples of the next iteration, [disc_steps, n, ...]."""
  shape = config.disc_steps, config.batch_size
  examples = jnp.arange(shape[0] * shape[1], dtype=jnp.int32).reshape(shape)
  return read(examples, state.key, state.step)


def _train(
  game: Game,
  tx: Pair[optax.GradientTransformation],
  step_batch: Callable[[State], Batch],
  state: State,
  phases: Phase,
  n: Any,
) -> tuple[State, dict[str, Array]]:
  """Runs `n` iterations; see `Program.compiled`."""

  def one(i, state: State):
    phase = jax.tree.map(lambda x: x[i], phases)
    batches = Pair(gen=None, disc=step_batch(state))
    return train_step(game, tx, state, batches, phase)

  def body(i, carry):
    state, sums = carry
    state, metrics = one(i, state)
    return state, jax.tree.map(jnp.add, sums, metrics)

  shapes = jax.eval_shape(one, 0, state)[1]
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  state, sums = jax.lax.fori_loop(0, n, body, (state, zeros))
  means = {name: x[0] / jnp.maximum(x[1], 1) for name, x in sums.items()}
  return state, means


def _scores(
  game: Game, loss: GANLoss, state: State, points: Array, phase: Phase
) -> Float[Array, ' n']:
  """Returns D's probability, its score (0: undecided), or a critic's value."""
  batch = {'images': points[:, None, None, :]}
  output = game.discriminate(state.variables.disc, batch, phase)
  if output.probability is not None:
    return output.probability
  if loss.real_score is not None:
    return loss.real_score(output.logits)
  return output.logits


def grid_points(toy: Toy) -> Float[np.ndarray, 'm d']:
  """Returns the points at which D is shown, row by row."""
  return disc_grid(toy, GRID).astype(np.float32)


def density(points: Float[Array, 'n 1'], toy: Toy) -> Float[Array, ' m']:
  """Estimates the density of points in 1-D at `grid_points`, by a kernel."""
  width = BANDWIDTH * toy.limit
  distances = (grid_points(toy) - points[:, 0][None, :]) / width
  kernels = jnp.exp(-jnp.square(distances) / 2)
  return kernels.mean(1) / (width * np.sqrt(2 * np.pi))


def _forces(
  game: Game,
  state: State,
  batch: Batch,
  inputs: PyTree,
  fakes: Array,
  phase: Phase,
) -> Float[Array, 'n d']:
  """Returns -n dJ_G/dx at each fake x: where G's loss pushes it."""
  update = game.updates.gen[0]
  context = Context(state.variables, inputs, state.game_state, ())
  keys = example_keys(state.key, Purpose.GEN, batch['example'], state.step)
  keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 0)
  params = state.variables.gen['params']
  value = lambda x: update.loss(params, context, batch, x, keys, phase)[0]
  return -len(fakes) * jax.grad(value)(fakes)[:, 0, 0]


def _view(
  game: Game,
  toy: Toy,
  loss: GANLoss,
  config: ConfigDict,
  real: Float[np.ndarray, 'n d'],
  state: State,
  phase: Phase,
) -> View:
  """See `Program.compiled`."""
  examples = jnp.arange(NUM_FAKES)
  sample_keys = example_keys(state.key, Purpose.SAMPLE, examples)
  inputs = game.sample_inputs(sample_keys, {}, phase)
  generate = partial(main_output(game).sample, state.variables.gen)
  fakes = generate(inputs, phase)
  points = fakes[:, 0, 0]
  few = jax.tree.map(lambda x: x[:NUM_ARROWS], inputs)
  batch = {
    'images': jnp.asarray(real[:NUM_ARROWS, None, None]),
    'example': examples[:NUM_ARROWS],
  }
  shown = {
    'fake': points,
    'scores': _scores(game, loss, state, jnp.asarray(grid_points(toy)), phase),
    'forces': _forces(game, state, batch, few, fakes[:NUM_ARROWS], phase),
  }
  latents = latent_grid(config, NUM_LINES, LINE_POINTS, margin=0.02)
  if latents is not None:
    flat = latents.reshape(-1, latents.shape[-1])
    repeated = jax.tree.map(lambda x: x[jnp.zeros(len(flat), int)], inputs)
    lines = generate({**repeated, 'z': flat}, phase)[:, 0, 0]
    shown['lines'] = lines.reshape(*latents.shape[:2], -1)
  if toy.dim == 1:
    p, q = density(jnp.asarray(real), toy), density(points, toy)
    shown |= {'p': p, 'q': q, 'optimal': p / jnp.maximum(p + q, 1e-12)}
  return shown


def _inspect(
  game: Game,
  loss: GANLoss,
  step_batch: Callable[[State], Batch],
  state: State,
  phase: Phase,
) -> View:
  """See `Program.compiled`."""
  last = jax.tree.map(lambda x: x[-1], step_batch(state))
  keys = example_keys(state.key, Purpose.INPUTS, last['example'], state.step)
  inputs = game.sample_inputs(keys, last, phase)
  fakes, _ = game.generate(state.variables.gen, inputs, phase)
  real, fake = last['images'][:, 0, 0], fakes[:, 0, 0]
  forces = _forces(game, state, last, inputs, fakes, phase)
  score = lambda points: _scores(game, loss, state, points, phase)
  found = {
    'batch_real': real,
    'batch_fake': fake,
    'real_scores': score(real),
    'fake_scores': score(fake),
    'batch_forces': forces,
  }
  return {name: x[:NUM_INSPECTED] for name, x in found.items()}


def adopt(program: Program, state: State) -> State | None:
  """Fits the state of another program to this one, without training.

  Keeps the networks; an optimizer of another kind starts anew.

  Returns:
    The state; None if the networks differ.
  """
  fresh = program.shapes
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)
  if shapes(fresh.variables) != shapes(state.variables):
    return None
  opt_state = init_opt_state(program.tx, state.variables)
  kept = [
    old if shapes(old) == shapes(new) else new
    for old, new in zip(state.opt_state, opt_state, strict=True)
  ]
  game_state = state.game_state
  if shapes(fresh.game_state) != shapes(game_state):
    game_state = program.create(np.int32(0)).game_state
  return state._replace(opt_state=Pair(*kept), game_state=game_state)
