"""What a game is: a value, a few pure functions that the iteration plays with.

The iteration, the loop, the devices, the checkpoints and the metrics know only
this. A new kind of GAN is a new file beside this one, and a row in GAMES.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.errors import UserError
from gan_jax.pair import Pair, Variables

# float32 [] or int32 []; [iterations] where the iterations of a dispatch are
# stacked. (As any pytree's, these fields also hold what JAX puts in the leaves'
# place.)
Scalar = Any
# {'images': [n, H, W, C] in [-1, 1], 'labels'?: [n], 'example': [n], ...}
Batch = dict[str, Any]
Keys = Key[Array, ' n']


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Phase:
  """What holds in one iteration.

  The static fields are part of the compiled program: it is compiled once for
  each combination of them that the table has. The others are traced.

  Attributes:
    stage: Which layers are in play (progressive growing), up to the game.
    disc_steps: D's steps in the iteration.
    batch_size: Reals, and fakes, that D sees in a step, on all devices.
    gen_batch_size: Fakes that G plays for its own step; None: G moves on the
      fakes that D has just seen.
    learning_rate: Both players'; the optax transformations have none.
    ema_decay: What the moving average of G keeps, in an iteration.
    disc_step: D's steps before this iteration.
    values: What else the game wants to know that changes with time, by name:
      how far a stage has faded in, the noise that D sees images in.
  """

  stage: int = dataclasses.field(metadata={'static': True})
  disc_steps: int = dataclasses.field(metadata={'static': True})
  batch_size: int = dataclasses.field(metadata={'static': True})
  gen_batch_size: int | None = dataclasses.field(metadata={'static': True})
  learning_rate: Pair[Scalar]
  ema_decay: Scalar
  disc_step: Scalar
  values: dict[str, Scalar]


class Aux(NamedTuple):
  """What a loss hands back beside its value.

  Attributes:
    metrics: Scalars to be logged, by name.
    collections: What the moving player keeps beside its parameters: new
      BatchNorm statistics, say. None keeps what there was.
    game_state: The new game state. None keeps what there was. It belongs to
      every device alike: under pmap gather (ops/axis.py) what goes into it.
  """

  metrics: dict[str, Array]
  collections: Variables | None = None
  game_state: PyTree = None


class Context(NamedTuple):
  """The game as a move sees it; all of it constant for the gradient.

  Attributes:
    variables: Both players' variables. The moving player's parameters are the
      loss's first argument instead: gradients flow there alone.
    inputs: What G was fed to play the fakes.
    game_state: The game state before the move.
    frozen: What `Game.frozen` gave.
  """

  variables: Pair[Variables]
  inputs: PyTree
  game_state: PyTree
  frozen: PyTree


# loss(params, view, batch, fakes, keys, phase) -> (loss, Aux)
Loss = Callable[
  [PyTree, Context, Batch, PyTree, Keys, Phase],
  tuple[Float[Array, ''], Aux],
]


class Update(NamedTuple):
  """One update of one player.

  Attributes:
    loss: What the move minimises. For the generator's first move the gradient
      that reaches the fakes is pulled back through `generate`; any later move
      of the generator sees the fakes as data, and plays for itself.
    every: The move is made at every so many of the player's steps.
    rescale: Multiplies the loss by `every`, so that a lazy penalty has the
      strength that it would have at each step (StyleGAN2, appendix B).
    name: The loss is logged as `gen/NAME` or `disc/NAME`.
    project: (params) -> params, applied to the player's after the move (weight
      clipping).
  """

  loss: Loss
  every: int = 1
  rescale: bool = True
  name: str = 'loss'
  project: Callable[[PyTree], PyTree] | None = None


class RealScore(NamedTuple):
  """What D says of examples; `probability` of "real": None for a critic."""

  logits: Float[Array, ' n']
  probability: Float[Array, ' n'] | None


class Game(NamedTuple):
  """A two-player game.

  Attributes:
    init: (key, batch) -> both players' variables, game_state.
    sample_inputs: (keys, batch, phase) -> inputs: what G is fed: latents,
      labels, images. One key an example; each row depends on its own key, and
      its own row of the batch, alone. When a run is read, the batch has in it
      the labels that the reader gives (`run.sample(n, labels=...)`), or
      nothing.
    generate: (gen_vars, inputs, phase) -> fakes, collections. The fakes are a
      pytree of float arrays; the collections G's new ones, as in Aux.
    sample: (gen_vars, inputs, phase) -> images [n, H, W, C], as in evaluation.
    moves: The moves each player makes, in order, in one step of its own.
    frozen: () -> arrays that the losses need and nobody trains (a feature
      network): handed to them in Context, never checkpointed, and asked for
      when a run trains but not when it is read.
    trainable: (params, phase) -> both players' pytrees of bools, each a prefix
      of that player's parameters: those in play. What is not is left alone,
      to the bit, the optimizer's moments and G's average included. None:
      everything is in play.
    downsample: (phase) -> how many times smaller than the data the reals are.
      None: they are as the data is.
    discriminate: (disc_vars, batch, phase) -> what D says, as in evaluation, of
      each example's image by itself (where D judges several as one: of copies
      of it): a logit of "real", or what a critic says. None: D judges no images
      alone.
    interpolate: (inputs_a, inputs_b, t [n]) -> inputs between them, for
      games that have latents.
    truncate: (inputs, threshold) -> inputs whose samples are better and less
      various, for latents that can be truncated.
  """

  init: Callable[[Key[Array, ''], Batch], tuple[Pair[Variables], PyTree]]
  sample_inputs: Callable[[Keys, Batch, Phase], PyTree]
  generate: Callable[[Variables, PyTree, Phase], tuple[PyTree, Variables]]
  sample: Callable[[Variables, PyTree, Phase], Float[Array, 'n h w c']]
  updates: Pair[tuple[Update, ...]]
  frozen: Callable[[], PyTree] = tuple
  trainable: Callable[[Pair[PyTree], Phase], Pair[PyTree]] | None = None
  downsample: Callable[[Phase], int] | None = None
  discriminate: Callable[[Variables, Batch, Phase], RealScore] | None = None
  interpolate: Callable[[PyTree, PyTree, Float[Array, ' n']], PyTree] | None = (
    None
  )
  truncate: Callable[[PyTree, Scalar], PyTree] | None = None


def truncated(game: Game, inputs: PyTree, truncation: float | None) -> PyTree:
  """The inputs, truncated if so wished; see `Run.inputs`."""
  if truncation is None:
    return inputs
  if game.truncate is None:
    raise UserError('truncation is for Gaussian latents: this game has none')
  if not truncation > 0:
    raise UserError(f'truncation={truncation} must be positive')
  return game.truncate(inputs, truncation)
