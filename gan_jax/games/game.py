"""The interface of a game: a NamedTuple of pure functions.

The training step, the loop, the devices, the checkpoints and the metrics depend
only on this interface. A new kind of GAN is a new file in this folder and an
entry in GAMES.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.errors import UserError
from gan_jax.pair import Pair, Variables

# float32 [] or int32 []; [steps] for the stacked iterations of a dispatch. (JAX
# also puts its own placeholders into the leaves of a pytree.)
Scalar = Any
# {'images': [n, H, W, C] in [-1, 1], 'labels'?: [n], 'example': [n], ...}
Batch = dict[str, Any]
Keys = Key[Array, ' n']


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Phase:
  """The scheduled settings of one iteration.

  The static fields are part of the compiled program: each combination of them
  is compiled once. The others are traced.

  Attributes:
    stage: The resolution stage (progressive growing); its meaning is up to the
      game.
    disc_steps: Steps of D per iteration; each makes all due updates of D.
    batch_size: Reals, and fakes, per D update, over all devices.
    gen_batch_size: Batch size of a separate batch for G. None: G is updated on
      the fakes of the last D update.
    learning_rate: Learning rates of both players; the optax transformations
      have none.
    ema_decay: Decay of the EMA of G, per iteration.
    disc_step: Steps of D before this iteration.
    values: Scheduled scalars by name: `alpha` of a stage that fades in, or the
      key of the config that the value overrides, such as `game.instance_noise`.
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
  """The auxiliary outputs of a loss.

  Attributes:
    metrics: Scalars for the log, by name.
    collections: New Flax collections of the updated player (BatchNorm
      statistics). None keeps the old ones.
    game_state: The new game state. None keeps the old one. It must be equal on
      all devices: under pmap, gather its inputs (ops/axis.py).
  """

  metrics: dict[str, Array]
  collections: Variables | None = None
  game_state: PyTree = None


class Context(NamedTuple):
  """The inputs of a loss that are constant for the gradient.

  Attributes:
    variables: Both players' variables. The loss differentiates its first
      argument, the parameters of the updated player, and not these.
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
    loss: The loss. In the first entry of `updates.gen`, the gradient with
      respect to the fakes is pulled back through `generate`. For the other
      entries the fakes are constant: a loss that needs their gradient generates
      them itself.
    every: Interval, in steps of the player, between two of these updates.
    rescale: Whether to multiply the loss by `every`, so that a lazy penalty is
      as strong as one in every step (Karras et al. 2020, StyleGAN2, appendix
      B).
    name: The loss is logged as `gen/NAME` or `disc/NAME`.
    project: (params) -> params, applied after the update (weight clipping).
  """

  loss: Loss
  every: int = 1
  rescale: bool = True
  name: str = 'loss'
  project: Callable[[PyTree], PyTree] | None = None


class Output(NamedTuple):
  """A sample function of a game, with its sample grid and its evaluation.

  Attributes:
    sample: (gen_vars, inputs, phase) -> images [n, H, W, C], in evaluation
      mode.
    reference: The entry of a batch whose images the samples should resemble:
      `images`, or the name of one of the game's sources.
    given: (batch) -> the images that the samples are made from, such as the
      source of a translation. The grid shows them beside the samples. None:
      the samples are made from latents.
    target: (batch) -> the image that each sample should equal, for paired
      metrics and the grid. None: there is none.
    inputs_of: (images, keys) -> inputs of `sample` for given images of any
      size, for `run.translate` and `run.upscale`. None: as for `given`.
    scale: The factor by which samples are larger than the given images.
  """

  sample: Callable[[Variables, PyTree, Phase], Float[Array, 'n h w c']]
  reference: str = 'images'
  given: Callable[[Batch], Float[Array, 'n h w c']] | None = None
  target: Callable[[Batch], Float[Array, 'n h w c']] | None = None
  inputs_of: Callable[[Float[Array, 'n h w c'], Keys], PyTree] | None = None
  scale: int = 1


class RealScore(NamedTuple):
  """D's output for each example, real or fake.

  Attributes:
    logits: The logits, or the values of a critic.
    probability: D(x), the probability that the example is real; None for a
      loss without probabilities, such as that of a critic.
  """

  logits: Float[Array, ' n']
  probability: Float[Array, ' n'] | None


class Style(NamedTuple):
  """The parts of a style-based generator.

  Attributes:
    map: (gen_vars, inputs) -> w of each layer [n, layers, d], truncated if the
      inputs have `psi`. Inputs that have `ws` in place of `z` return it as it
      is.
    synthesize: (gen_vars, ws, keys, noise) -> images. `noise` is 'random' (from
      the keys), 'constant' or 'none'.
    truncate: (gen_vars, ws, psi, cutoff) -> ws, moved towards the average w in
      the first `cutoff` layers, or in all: None.
  """

  map: Callable[[Variables, PyTree], Float[Array, 'n layers d']]
  synthesize: Callable[[Variables, Array, Keys, str], Float[Array, 'n h w c']]
  truncate: Callable[
    [Variables, Array, Scalar, int | None], Float[Array, 'n layers d']
  ]


class Game(NamedTuple):
  """A two-player game.

  Attributes:
    init: (key, batch) -> variables of both players, game_state.
    sample_inputs: (keys, batch, phase) -> inputs of G: latents, labels, images.
      One key per example; row i depends on key i and on row i of the batch.
      The batch has the entries named in `reads`, and the labels of
      `run.sample(n, labels=...)`.
    generate: (gen_vars, inputs, phase) -> fakes, collections, in training mode.
      The fakes are a pytree of float arrays; the collections are G's new ones,
      as in Aux.
    outputs: The sample functions by name, the main one first. If there are
      several, scores and sample grids have their names.
    updates: The updates of each player in one of its steps, in order.
    reads: Entries of real examples that `sample_inputs`, `Output.given` and
      `Output.target` need, such as `images` for super-resolution. Evaluations,
      sample grids and `run.sample` pass real examples of the run's data with
      these entries.
    sources: The keys of `config.data` that name its sources: `source` alone, or
      `a` and `b`. Two sources have sizes and orders of their own, and the batch
      has the images of each as an entry of its name.
    frozen: () -> arrays of frozen networks that the losses need, such as a
      feature network. They reach the losses in Context, are never checkpointed,
      and are created for training only.
    trainable: (params, phase) -> a pytree of bools for each player, each a
      prefix of the player's parameters. Parameters marked False do not change,
      nor do their optimizer moments and their EMA. None: all are trainable.
    downsample: (phase) -> factor by which reals are smaller than the data.
      None: 1.
    discriminate: (disc_vars, batch, phase) -> RealScore of each example
      separately, in evaluation mode. A D with packed inputs gets copies of the
      image. None: D does not support single images.
    scheduled: Names of the values that the game reads from `Phase.values`; the
      schedule may have no others.
    ema_copies: Collections of G that the EMA copies instead of averaging.
    interpolate: (inputs_a, inputs_b, t [n]) -> inputs between the two, for
      games with latents.
    truncate: (inputs, threshold) -> inputs whose samples are better and
      less diverse, for latents that can be truncated.
    style: The parts of a style-based generator. None: G is not one.
    encode: (variables of both players, batch, phase) -> the entries of G's
      inputs that the game infers from images, for games with an encoder.
    features: (disc_vars, batch, phase) -> D's activations [n, ...] of each
      image separately, by layer, from the first to the last, in evaluation
      mode.
  """

  init: Callable[[Key[Array, ''], Batch], tuple[Pair[Variables], PyTree]]
  sample_inputs: Callable[[Keys, Batch, Phase], PyTree]
  generate: Callable[[Variables, PyTree, Phase], tuple[PyTree, Variables]]
  outputs: Mapping[str, Output]
  updates: Pair[tuple[Update, ...]]
  reads: tuple[str, ...] = ()
  sources: tuple[str, ...] = ('source',)
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
  style: Style | None = None
  encode: Callable[[Pair[Variables], Batch, Phase], PyTree] | None = None
  features: Callable[[Variables, Batch, Phase], dict[str, Array]] | None = None


def main_output(game: Game) -> Output:
  """Returns the first output of a game."""
  return next(iter(game.outputs.values()))


def truncated(game: Game, inputs: PyTree, truncation: float | None) -> PyTree:
  """Truncates the inputs of G if `truncation` is given; see `Run.inputs`.

  Raises:
    UserError: The game has no truncation, or `truncation` is invalid.
  """
  if truncation is None:
    return inputs
  if game.truncate is None:
    raise UserError(
      'truncation needs Gaussian latents, which this game does not have: '
      'remove truncation'
    )
  return game.truncate(inputs, truncation)
