"""CycleGAN: translation between two unpaired sets of images."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.games import image_pool
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
  DIRECTIONS,
  Images,
  critic_loss,
  fold,
  frozen_logits,
  mean_absolute,
  unpaired_inputs,
  unpaired_output,
)
from gan_jax.pair import Pair, Variables, join_networks, network_of


class CycleGAN(NamedTuple):
  """The networks and weights of CycleGAN (Zhu et al. 2017).

  Attributes:
    gen: (images, keys [n], train) -> images; one for each direction.
    disc: (images, keys [n], train) -> logits; one for each set.
    loss: The losses of both players, on logits.
    cycle: Weights of the cycle losses a -> b -> a and b -> a -> b.
    identity: Weight of the identity losses, relative to those of the cycles.
    pool_size: Number of earlier fakes of each set; 0: no pool.
    axis_name: The device axis under pmap.
  """

  gen: nn.Module
  disc: nn.Module
  loss: GANLoss
  cycle: dict[str, float]
  identity: float
  pool_size: int
  axis_name: str | None

  def init(
    self, key: Key[Array, ''], batch: Batch
  ) -> tuple[Pair[Variables], PyTree]:
    """Initializes both generators, both critics and both pools."""
    keys = jax.random.split(key, 4)

    def create(module, key, name):
      images = batch[name][:1]
      return module.init(key, images, jax.random.split(key, 1), False)

    gen = {
      direction: create(self.gen, keys[i], DIRECTIONS[direction][0])
      for i, direction in enumerate(DIRECTIONS)
    }
    disc = {
      name: create(self.disc, keys[2 + i], name) for i, name in enumerate('ab')
    }
    pools = {
      name: image_pool.empty(self.pool_size, batch[name].shape[1:])
      for name in 'ab'
    }
    return Pair(
      join_networks(gen), join_networks(disc)
    ), pools if self.pool_size else ()

  def translate(
    self, gen_vars: Variables, direction: str, images: Images, keys: Keys
  ) -> tuple[Images, Variables]:
    """Applies one generator in training mode."""
    return apply_training(
      self.gen, network_of(gen_vars, direction), images, keys
    )

  def generate(
    self, gen_vars: Variables, inputs: PyTree, phase: Phase
  ) -> tuple[dict[str, Images], Variables]:
    """Translates both sets: the fakes of a are made from b."""
    del phase
    fakes, new = {}, {}
    for direction, (source, target) in DIRECTIONS.items():
      fakes[target], new[direction] = self.translate(
        gen_vars, direction, inputs[source], inputs['keys']
      )
    return fakes, join_networks(new)

  def sample(
    self, direction: str, gen_vars: Variables, inputs: PyTree, phase: Phase
  ) -> Images:
    """Applies one generator in evaluation mode."""
    del phase
    images = inputs[DIRECTIONS[direction][0]]
    variables = network_of(gen_vars, direction)
    return self.gen.apply(variables, images, inputs['keys'], False)

  def disc_loss(
    self,
    params: PyTree,
    context: Context,
    batch: Batch,
    fakes: dict[str, Images],
    keys: Keys,
    phase: Phase,
  ) -> tuple[Float[Array, ''], Aux]:
    """Sums the losses of both critics, on fakes exchanged with the pools."""
    del phase
    total, metrics, new, pools = 0.0, {}, {}, {}
    disc_vars = {**context.variables.disc, 'params': params}
    for salt, name in enumerate('ab'):
      own_keys, fake = fold(keys, salt), fakes[name]
      if self.pool_size:
        fake, pools[name] = image_pool.exchange(
          context.game_state[name], fake, fold(own_keys, 2), self.axis_name
        )
      value, values, new[name] = critic_loss(
        self.loss, self.disc, network_of(disc_vars, name), batch[name], fake,
        own_keys, self.axis_name,
      )  # fmt: skip
      total += value
      metrics |= {f'{key}_{name}': x for key, x in values.items()}
    return total, Aux(metrics, join_networks(new), pools or None)

  def gen_loss(
    self,
    params: PyTree,
    context: Context,
    batch: Batch,
    fakes: dict[str, Images],
    keys: Keys,
    phase: Phase,
  ) -> tuple[Float[Array, ''], Aux]:
    """Sums the adversarial, cycle and identity losses of both directions.

    Zhu et al. 2017, equations 1 to 3, and section 5.2 (identity). The
    adversarial gradient passes through the fakes.
    """
    del phase
    gen_vars = {**context.variables.gen, 'params': params}
    total, metrics = 0.0, {}
    for direction, (source, target) in DIRECTIONS.items():
      critic = network_of(context.variables.disc, target)
      logits = partial(
        frozen_logits, self.disc, critic,
        keys=fold(keys, 0), axis_name=self.axis_name,
      )  # fmt: skip
      fake_logits = logits(fakes[target])
      value = self.loss.gen(logits(batch[target]), fake_logits)
      metrics[f'adversarial_{direction}'] = value
      total += value
      again, given = batch[target], fakes[source]
      if self.identity:  # one pass for both: separate ones compile slower
        given, pass_keys = jnp.stack([given, again]), (1, 2)
      else:
        given, pass_keys = given[None], (1,)
      made = jax.vmap(
        lambda images, keys, direction=direction: self.translate(
          gen_vars, direction, images, keys
        )[0]
      )(given, jnp.stack([fold(keys, salt) for salt in pass_keys]))
      cycle = mean_absolute(made[0], again)
      metrics[f'cycle_{target}'] = cycle
      total += self.cycle[target] * cycle
      if self.identity:
        identity = mean_absolute(made[1], again)
        metrics[f'identity_{target}'] = identity
        total += self.identity * self.cycle[target] * identity
    return total, Aux(metrics)


def cyclegan_game(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: GANLoss,
  cycle: dict[str, float],
  identity: float,
  pool_size: int,
  axis_name: str | None = None,
) -> Game:
  """Makes a CycleGAN; see `CycleGAN` for the arguments.

  Unlike the authors' code, D is updated before G, as in every game here.
  """
  networks = CycleGAN(gen, disc, loss, cycle, identity, pool_size, axis_name)
  return Game(
    init=networks.init,
    sample_inputs=unpaired_inputs,
    generate=networks.generate,
    outputs={
      direction: unpaired_output(partial(networks.sample, direction), direction)
      for direction in DIRECTIONS
    },
    updates=Pair(
      gen=(Update(networks.gen_loss),), disc=(Update(networks.disc_loss),)
    ),
    reads=('a', 'b'),
    sources=('a', 'b'),
  )
