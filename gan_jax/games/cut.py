"""CUT: translation in one direction, without pairs and without a cycle.

Park et al. 2020, "Contrastive learning for unpaired image-to-image
translation".
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from gan_jax.errors import UserError
from gan_jax.games.discriminate import apply_training
from gan_jax.games.game import (
  Aux,
  Batch,
  Context,
  Game,
  Keys,
  Phase,
  Update,
)
from gan_jax.games.losses import GANLoss
from gan_jax.games.translation import (
  Images,
  critic_loss,
  fold,
  frozen_logits,
  translation_direction,
  unpaired_inputs,
  unpaired_output,
)
from gan_jax.models.translation import ENCODER, PatchHeads
from gan_jax.pair import Pair, Variables, join_networks, network_of

Patches = Float[Array, 'n p d']


def patch_nce(
  translated: Patches, given: Patches, temperature: float
) -> Float[Array, '']:
  """Computes the contrastive loss of patches: Park et al. 2020, equation 3.

  A patch of the translation is to resemble the patch of the given image at the
  same place more than the other patches of this image.

  Args:
    translated, given: Unit vectors of the patches, at the same places. The
      gradient does not pass through `given`.
    temperature: Divides the cosines.
  """
  given = jax.lax.stop_gradient(given)
  cosines = jnp.einsum('npd,nqd->npq', translated, given)
  scores = jax.nn.log_softmax(cosines / temperature)
  return -jnp.mean(jnp.diagonal(scores, axis1=1, axis2=2))


def draw_places(
  keys: Keys, layers: Sequence[Float[Array, 'n _ _ _']], patches: int
) -> list[Int[Array, 'n _']]:
  """Draws places without repetition, for each example and layer.

  All places, if a layer has fewer than `patches`.
  """
  places = []
  for salt, layer in enumerate(layers):
    count = layer.shape[1] * layer.shape[2]
    draw = partial(jax.random.permutation, x=count)
    places.append(jax.vmap(draw)(fold(keys, salt))[:, :patches])
  return places


def patches_at(
  layers: Sequence[Float[Array, 'n _ _ _']], places: Sequence[Int[Array, 'n _']]
) -> list[Float[Array, 'n _ _']]:
  """Returns the features of each layer at its places."""
  return [
    jnp.take_along_axis(
      x.reshape(len(x), -1, x.shape[-1]), place[..., None], axis=1
    )
    for x, place in zip(layers, places, strict=True)
  ]


class Weights(NamedTuple):
  """The contrastive losses of CUT.

  Attributes:
    nce: Weight of the loss between an image and its translation.
    identity: Weight of the loss between an image of the target set and its
      translation. 0: no such loss.
    temperature: Divides the cosines.
    patches: Patches of each image and layer.
  """

  nce: float
  identity: float
  temperature: float
  patches: int


class CUT(NamedTuple):
  """The networks and weights of CUT.

  Attributes:
    gen: (images, keys [n], train) -> images; with features of its encoder, see
      ENCODER.
    disc: (images, keys [n], train) -> logits.
    loss: The losses of both players, on logits.
    weights: The contrastive losses.
    given, target: The entries of a batch: G maps one set to the other.
    axis_name: The device axis under pmap.
    heads: Embeds the encoder's features. G's optimizer trains them.
  """

  gen: nn.Module
  disc: nn.Module
  loss: GANLoss
  weights: Weights
  given: str
  target: str
  axis_name: str | None
  heads: PatchHeads = PatchHeads()

  def init(self, key: Key[Array, ''], batch: Batch) -> tuple[Pair, tuple]:
    """Initializes the networks.

    Raises:
      UserError: G has no features of an encoder.
    """
    gen_key, disc_key, heads_key = jax.random.split(key, 3)
    given, target = (batch[x][:1] for x in (self.given, self.target))
    keys = jax.random.split(gen_key, 1)
    gen = {'translator': self.gen.init(gen_key, given, keys, False)}
    layers = self._encode(join_networks(gen), given, keys)
    places = draw_places(keys, layers, self.weights.patches)
    gen['heads'] = self.heads.init(heads_key, patches_at(layers, places))
    disc = self.disc.init(disc_key, target, keys, False)
    return Pair(join_networks(gen), disc), ()

  def generate(
    self, gen_vars: Variables, inputs: PyTree, phase: Phase
  ) -> tuple[dict[str, Images], Variables]:
    """Translates the given images, and those of the target set too."""
    del phase
    images, keys = inputs[self.given], inputs['keys']
    count = len(images)
    if self.weights.identity:  # one pass for both: two compile slower
      images = jnp.concatenate([images, inputs[self.target]])
      keys = jnp.concatenate([keys, fold(keys, 0)])
    variables = network_of(gen_vars, 'translator')
    made, new = apply_training(self.gen, variables, images, keys)
    fakes = {'translated': made[:count]}
    if self.weights.identity:
      fakes['identity'] = made[count:]
    return fakes, join_networks({'translator': new})

  def sample(self, gen_vars: Variables, inputs: PyTree, phase: Phase) -> Images:
    """Applies G in evaluation mode."""
    del phase
    variables = network_of(gen_vars, 'translator')
    return self.gen.apply(variables, inputs[self.given], inputs['keys'], False)

  def disc_loss(
    self,
    params: PyTree,
    context: Context,
    batch: Batch,
    fakes: dict[str, Images],
    keys: Keys,
    phase: Phase,
  ) -> tuple[Float[Array, ''], Aux]:
    """Computes D's loss on the target set and on the translations."""
    del phase
    total, metrics, new = critic_loss(
      self.loss,
      self.disc,
      {**context.variables.disc, 'params': params},
      batch[self.target],
      fakes['translated'],
      keys,
      self.axis_name,
    )
    return total, Aux(metrics, new)

  def gen_loss(
    self,
    params: PyTree,
    context: Context,
    batch: Batch,
    fakes: dict[str, Images],
    keys: Keys,
    phase: Phase,
  ) -> tuple[Float[Array, ''], Aux]:
    """Sums the adversarial and the contrastive losses: equation 5.

    Their gradient passes through the fakes, too.
    """
    del phase
    gen_vars = {**context.variables.gen, 'params': params}
    logits = partial(
      frozen_logits, self.disc, context.variables.disc,
      keys=fold(keys, 0), axis_name=self.axis_name,
    )  # fmt: skip
    adversarial = self.loss.gen(
      logits(batch[self.target]), logits(fakes['translated'])
    )
    nce = self._contrast(
      gen_vars, batch[self.given], fakes['translated'], fold(keys, 1)
    )
    total = adversarial + self.weights.nce * nce
    metrics = {'adversarial': adversarial, 'nce': nce}
    if self.weights.identity:
      identity = self._contrast(
        gen_vars, batch[self.target], fakes['identity'], fold(keys, 2)
      )
      total += self.weights.identity * identity
      metrics['identity_nce'] = identity
    return total, Aux(metrics)

  def _contrast(
    self, gen_vars: Variables, given: Images, translated: Images, keys: Keys
  ) -> Float[Array, '']:
    """Averages the contrastive loss over the layers of the encoder."""
    layers = self._encode(gen_vars, given, keys)
    places = draw_places(keys, layers, self.weights.patches)
    embed = lambda layers: self.heads.apply(
      network_of(gen_vars, 'heads'), patches_at(layers, places)
    )
    queries = embed(self._encode(gen_vars, translated, keys))
    losses = [
      patch_nce(query, key, self.weights.temperature)
      for query, key in zip(queries, embed(layers), strict=True)
    ]
    return jnp.mean(jnp.stack(losses))

  def _encode(
    self, gen_vars: Variables, images: Images, keys: Keys
  ) -> tuple[Array, ...]:
    """Returns the features of G's encoder; XLA removes the decoder.

    Raises:
      UserError: G has none.
    """
    variables = network_of(gen_vars, 'translator')
    mutable = ['intermediates', *(x for x in variables if x != 'params')]
    _, new = self.gen.apply(variables, images, keys, True, mutable=mutable)
    if ENCODER not in new.get('intermediates', {}):
      raise UserError(
        f'the generator {type(self.gen).__name__} has no features of an '
        'encoder, which CUT compares: set '
        'config.model.gen.name=translation_resnet'
      )
    return new['intermediates'][ENCODER]


def cut_game(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: GANLoss,
  weights: Weights,
  direction: str,
  axis_name: str | None = None,
) -> Game:
  """Makes a CUT game; see `CUT` for the arguments.

  `direction` is a key of DIRECTIONS.
  """
  given, target = translation_direction(direction)
  networks = CUT(gen, disc, loss, weights, given, target, axis_name)
  return Game(
    init=networks.init,
    sample_inputs=unpaired_inputs,
    generate=networks.generate,
    outputs={direction: unpaired_output(networks.sample, direction)},
    updates=Pair(
      gen=(Update(networks.gen_loss),), disc=(Update(networks.disc_loss),)
    ),
    reads=('a', 'b'),
    sources=('a', 'b'),
  )
