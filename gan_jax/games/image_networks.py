"""The networks of an image game: how G and D are applied, and G's inputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.games.discriminate import (
  DiscOutput,
  Discriminate,
  apply_training,
  one_hot_labels,
)
from gan_jax.games.game import (
  Batch,
  Context,
  Keys,
  Phase,
)
from gan_jax.games.latents import Latent
from gan_jax.pair import Pair, Variables

Images = Float[Array, 'n h w c']
# The key of the game state under which the adaptive augmentation has its own;
# no penalty has such a name.
ADA_STATE = 'disc/ada'


class ImageNetworks(NamedTuple):
  """G and D of an image game, with their inputs and conditioning.

  Attributes:
    gen: (z [n, d], keys [n], train, **conditioning) -> images [n, h, w, c].
    discriminate: Applies D to reals and fakes.
    conditioning: (phase, labels) -> keyword arguments of both networks.
    latent, latent_dim: The distribution of z, and d.
    classes: Number of classes; 0: unconditional.
  """

  gen: nn.Module
  discriminate: Discriminate
  conditioning: Callable[[Phase | None, Any], dict[str, Any]]
  latent: Latent
  latent_dim: int
  classes: int

  def init(self, key: Key[Array, ''], batch: Batch) -> Pair[Variables]:
    """Initializes both networks."""
    gen_key, disc_key, rest = jax.random.split(key, 3)
    keys = jax.random.split(rest, len(batch['images']))
    z = jnp.zeros((len(keys), self.latent_dim))
    conditioning = self.conditioning(None, one_hot_labels(batch, self.classes))
    return Pair(
      gen=self.gen.init(gen_key, z, keys, train=False, **conditioning),
      disc=self.discriminate.init(disc_key, batch, keys),
    )

  def sample_inputs(self, keys: Keys, batch: Batch, phase: Phase) -> PyTree:
    """Samples latents and keys, and uniform labels if the batch has none."""
    del phase
    pairs = jax.vmap(jax.random.split)(keys)
    sample_z = jax.vmap(lambda key: self.latent.draw(key, self.latent_dim))
    z = sample_z(pairs[:, 0])
    inputs = {'z': z, 'keys': pairs[:, 1]}
    if self.classes:
      if 'labels' not in batch:
        uniform = lambda key: jax.random.randint(key, (), 0, self.classes)
        label_keys = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys)
        batch = {'labels': jax.vmap(uniform)(label_keys)}
      inputs['labels'] = one_hot_labels(batch, self.classes)
    return inputs

  def generate(
    self, gen_vars: Variables, inputs: PyTree, phase: Phase
  ) -> tuple[Images, Variables]:
    """Applies G in training mode; returns images and new collections."""
    conditioning = self.conditioning(phase, inputs.get('labels'))
    return apply_training(
      self.gen, gen_vars, inputs['z'], inputs['keys'], **conditioning
    )

  def sample(self, gen_vars: Variables, inputs: PyTree, phase: Phase) -> Images:
    """Applies G in evaluation mode."""
    conditioning = self.conditioning(phase, inputs.get('labels'))
    return self.gen.apply(
      gen_vars, inputs['z'], inputs['keys'], train=False, **conditioning
    )

  def penalty_inputs(
    self, gen_vars: Variables, inputs: PyTree, phase: Phase
  ) -> tuple[Callable[[Array], Images], Array]:
    """Returns what penalties of G differentiate: (z) -> images, and z."""
    generate = lambda z: self.generate(gen_vars, {**inputs, 'z': z}, phase)[0]
    return generate, inputs['z']

  def disc_output(
    self,
    disc_vars: Variables,
    context: Context,
    batch: Batch,
    fakes: Images,
    keys: Keys,
    phase: Phase,
  ) -> DiscOutput:
    """Applies D to the reals and the fakes of an update."""
    labels = context.inputs.get('labels')
    ada, p = self.discriminate.ada, 0.0
    if ada is not None:
      p = ada.probability(ada_state(context), phase.values)
    return self.discriminate(disc_vars, batch, fakes, labels, keys, phase, p)


def ada_state(context: Context) -> PyTree:
  """Returns the state of the adaptive augmentation; None: p does not adapt."""
  state = context.game_state
  return state.get(ADA_STATE) if isinstance(state, dict) else None
