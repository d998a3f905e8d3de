"""The interface of a game: a value, a few pure functions.

The iteration, the loop, the devices, the checkpoints and the metrics know only
this. A new kind of GAN is a new file beside this one and a row in GAMES.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.errors import UserError
from gan_jax.pair import Pair, Variables

# float32 [] or int32 []; [steps] where the iterations of a dispatch are
# stacked. (JAX also puts its own placeholders into the leaves of a pytree.)
Scalar = Any
# {'images': [n, H, W, C] in [-1, 1], 'labels'?: [n], 'example': [n], ...}
Batch = dict[str, Any]
Keys = Key[Array, ' n']


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Phase:
  """Everything that the schedule says of one iteration.

  The static fields are part of the compiled program: each combination of them
  is compiled once. The others are traced.

  Attributes:
    stage: Selects the trainable layers (progressive growing); up to the game.
    disc_steps: D updates in the iteration.
    batch_size: Reals, and fakes, per D update, over all devices.
    gen_batch_size: Fakes of G's own update; None: G is updated on the fakes of
      the last D update.
    learning_rate: Of both players; the optax transformations have none.
    ema_decay: Decay of the moving average of G, per iteration.
    disc_step: D updates before this iteration.
    values: Scheduled scalars by name: `alpha` of a stage that fades in, or the
      key of the config that the value overrides: `game.instance_noise`.
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
  """What a loss returns beside its value.

  Attributes:
    metrics: Scalars for the log, by name.
    collections: New Flax collections of the updated player (BatchNorm
      statistics). None keeps the old ones.
    game_state: The new game state. None keeps the old one. It is the same on
      every device: under pmap, gather (ops/axis.py) what goes into it.
  """

  metrics: dict[str, Array]
  collections: Variables | None = None
  game_state: PyTree = None


class Context(NamedTuple):
  """The game as an update sees it; constant for the gradient.

  Attributes:
    variables: Of both players. The parameters of the updated player are the
      loss's first argument instead: gradients flow there alone.
    inputs: The inputs of G that the fakes were generated from.
    game_state: The game state before the update.
    frozen: What `Game.frozen` returned.
  """

  variables: Pair[Variables]
  inputs: PyTree
  game_state: PyTree
  frozen: PyTree


# loss(params, context, batch, fakes, keys, phase) -> (loss, Aux)
Loss = Callable[
  [PyTree, Context, Batch, PyTree, Keys, Phase],
  tuple[Float[Array, ''], Aux],
]


class Update(NamedTuple):
  """One optimizer step of one player on one loss.

  Attributes:
    loss: The loss. In G's first update, the gradient with respect to the fakes
      is pulled back through `generate`; a later update of G takes the fakes as
      data, and generates its own if it needs their gradient.
    every: The update is made at every `every`-th step of the player.
    rescale: Multiplies the loss by `every`, so that a lazy penalty has the
      strength of one in each step (StyleGAN2, appendix B).
    name: The loss is logged as `gen/NAME` or `disc/NAME`.
    project: (params) -> params, applied after the update (weight clipping).
  """

  loss: Loss
  every: int = 1
  rescale: bool = True
  name: str = 'loss'
  project: Callable[[PyTree], PyTree] | None = None


class RealScore(NamedTuple):
  """D's output for examples; `probability` of "real": None for a critic."""

  logits: Float[Array, ' n']
  probability: Float[Array, ' n'] | None


class Game(NamedTuple):
  """A two-player game.

  Attributes:
    init: (key, batch) -> variables of both players, game_state.
    sample_inputs: (keys, batch, phase) -> inputs of G: latents, labels, images.
      One key per example; row i depends on key i and on row i of the batch.
      The batch has the entries named in `reads`; labels that a reader asks for
      (`run.sample(n, labels=...)`) are in it too.
    generate: (gen_vars, inputs, phase) -> fakes, collections. The fakes are a
      pytree of float arrays; the collections are G's new ones, as in Aux.
    sample: (gen_vars, inputs, phase) -> images [n, H, W, C], as in evaluation.
    updates: The updates of each player in one step of its own, in order.
    reads: Entries of real examples that `sample_inputs` needs, as `images` of
      a translation. Evaluation, sample grids and `run.sample` pass real
      examples of the run's data with these entries.
    frozen: () -> arrays that the losses need and nobody trains (a feature
      network). They reach the losses in Context, are never checkpointed, and
      are asked for in training only.
    trainable: (params, phase) -> a pytree of bools for each player, each a
      prefix of the player's parameters. Parameters marked False keep their
      values to the bit, as do their optimizer moments and G's average. None:
      all are trainable.
    downsample: (phase) -> factor by which reals are smaller than the data.
      None: 1.
    discriminate: (disc_vars, batch, phase) -> RealScore of each example by
      itself, as in evaluation (where D judges several images as one, copies
      of the image). None: D judges no single images.
    scheduled: Names of the scheduled values that the game reads from
      `Phase.values`; others are refused.
    ema_copies: Collections of G that the moving average copies instead of
      averaging.
    interpolate: (inputs_a, inputs_b, t [n]) -> inputs between both, for games
      with latents.
    truncate: (inputs, threshold) -> inputs whose samples are better and less
      diverse, for latents that can be truncated.
  """

  init: Callable[[Key[Array, ''], Batch], tuple[Pair[Variables], PyTree]]
  sample_inputs: Callable[[Keys, Batch, Phase], PyTree]
  generate: Callable[[Variables, PyTree, Phase], tuple[PyTree, Variables]]
  sample: Callable[[Variables, PyTree, Phase], Float[Array, 'n h w c']]
  updates: Pair[tuple[Update, ...]]
  reads: tuple[str, ...] = ()
  frozen: Callable[[], PyTree] = tuple
  trainable: Callable[[Pair[PyTree], Phase], Pair[PyTree]] | None = None
  downsample: Callable[[Phase], int] | None = None
  discriminate: Callable[[Variables, Batch, Phase], RealScore] | None = None
  scheduled: tuple[str, ...] = ()
  ema_copies: tuple[str, ...] = ()
  interpolate: Callable[[PyTree, PyTree, Float[Array, ' n']], PyTree] | None = (
    None
  )
  truncate: Callable[[PyTree, Scalar], PyTree] | None = None


def truncated(game: Game, inputs: PyTree, truncation: float | None) -> PyTree:
  """Truncates the inputs of G, if a threshold is given; see `Run.inputs`."""
  if truncation is None:
    return inputs
  if game.truncate is None:
    raise UserError(
      'truncation needs Gaussian latents, and this game has none: remove '
      'truncation'
    )
  if not truncation > 0:
    raise UserError(f'truncation={truncation} must be positive')
  return game.truncate(inputs, truncation)
