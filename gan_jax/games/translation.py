"""Translation between two sets of images: CycleGAN and pix2pix."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.errors import UserError
from gan_jax.games import image_pool
from gan_jax.games.discriminate import apply_training
from gan_jax.games.game import (
  Aux,
  Batch,
  Context,
  Game,
  Keys,
  Output,
  Phase,
  Update,
)
from gan_jax.games.losses import GANLoss
from gan_jax.ops import axis
from gan_jax.pair import Pair, Variables, join_networks, network_of

Images = Float[Array, 'n h w c']

# Each direction: its generator maps the images of one set to the other.
DIRECTIONS = {'a_to_b': ('a', 'b'), 'b_to_a': ('b', 'a')}


def translation_direction(direction: str) -> tuple[str, str]:
  """Returns the sets of `config.game.direction`: given, and target.

  Raises:
    UserError: The direction is unknown.
  """
  if direction not in DIRECTIONS:
    raise UserError(
      f'config.game.direction={direction!r} must be {" or ".join(DIRECTIONS)}'
    )
  return DIRECTIONS[direction]


def mean_absolute(x: Images, y: Images) -> Float[Array, '']:
  """Returns the mean absolute difference, E |x - y|."""
  return jnp.mean(jnp.abs(x - y))


def fold(keys: Keys, salt: int) -> Keys:
  """Returns other keys of the same examples."""
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, salt)


def critic_loss(
  loss: GANLoss,
  disc: nn.Module,
  disc_vars: Variables,
  real: Images,
  fake: Images,
  keys: Keys,
  axis_name: str | None,
) -> tuple[Float[Array, ''], dict[str, Array], Variables]:
  """Computes D's loss; returns it, its metrics and D's new collections.

  The logits are gathered from all devices, for losses that compare the examples
  of a batch.
  """
  real_logits, new = apply_training(disc, disc_vars, real, fold(keys, 0))
  disc_vars = {**disc_vars, **new}
  fake_logits, new = apply_training(disc, disc_vars, fake, fold(keys, 1))
  real_logits, fake_logits = axis.gather((real_logits, fake_logits), axis_name)
  metrics = {
    'real_logit': jnp.mean(real_logits),
    'fake_logit': jnp.mean(fake_logits),
  }
  if loss.real_score is not None:
    metrics['real_accuracy'] = jnp.mean(loss.real_score(real_logits) > 0)
    metrics['fake_accuracy'] = jnp.mean(loss.real_score(fake_logits) < 0)
  return loss.disc(real_logits, fake_logits), metrics, new


def frozen_logits(
  disc: nn.Module,
  disc_vars: Variables,
  images: Images,
  keys: Keys,
  axis_name: str | None,
) -> Float[Array, 'm ...']:
  """Returns D's logits for a loss of G, gathered from all devices.

  D's new collections are discarded.
  """
  logits, _ = apply_training(disc, disc_vars, images, keys)
  return axis.gather(logits, axis_name)


def generate_from_images(
  gen: nn.Module, gen_vars: Variables, inputs: PyTree, phase: Phase
) -> tuple[Images, Variables]:
  """Applies G, which is given images, in training mode."""
  del phase
  return apply_training(gen, gen_vars, inputs['images'], inputs['keys'])


def sample_from_images(
  gen: nn.Module, gen_vars: Variables, inputs: PyTree, phase: Phase
) -> Images:
  """Applies G, which is given images, in evaluation mode."""
  del phase
  return gen.apply(gen_vars, inputs['images'], inputs['keys'], False)


def unpaired_inputs(keys: Keys, batch: Batch, phase: Phase) -> PyTree:
  """Returns the images of both sets, with keys for the networks' noise."""
  del phase
  return {'keys': keys, **{x: batch[x] for x in 'ab' if x in batch}}


def unpaired_output(
  sample: Callable[[Variables, PyTree, Phase], Images], direction: str
) -> Output:
  """Makes the output of a direction: translations of one set to the other."""
  given, target = DIRECTIONS[direction]
  return Output(
    sample,
    reference=target,
    given=lambda batch: batch[given],
    inputs_of=lambda images, keys: {given: images, 'keys': keys},
  )


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


class Pix2Pix(NamedTuple):
  """The networks and weights of pix2pix (Isola et al. 2017).

  Attributes:
    gen: (images, keys [n], train) -> images.
    disc: (both images, concatenated along the channels, keys [n], train) ->
      logits.
    loss: The losses of both players, on logits.
    pixel: Weight of the mean absolute difference from the target.
    given, target: The entries of a batch: G maps one to the other.
    axis_name: The device axis under pmap.
  """

  gen: nn.Module
  disc: nn.Module
  loss: GANLoss
  pixel: float
  given: str
  target: str
  axis_name: str | None

  def init(self, key: Key[Array, ''], batch: Batch) -> tuple[Pair, tuple]:
    """Initializes both networks."""
    gen_key, disc_key = jax.random.split(key)
    given, target = (batch[x][:1] for x in (self.given, self.target))
    keys = jax.random.split(gen_key, 1)
    both = jnp.concatenate([given, target], axis=-1)
    variables = Pair(
      self.gen.init(gen_key, given, keys, False),
      self.disc.init(disc_key, both, keys, False),
    )
    return variables, ()

  def sample_inputs(self, keys: Keys, batch: Batch, phase: Phase) -> PyTree:
    """Returns the given images, with keys for the dropout."""
    del phase
    return {'keys': keys, 'images': batch[self.given]}

  def _beside(self, batch: Batch, images: Images) -> Float[Array, 'n h w d']:
    """Concatenates images to the given ones, as D's inputs."""
    return jnp.concatenate([batch[self.given], images], axis=-1)

  def disc_loss(
    self,
    params: PyTree,
    context: Context,
    batch: Batch,
    fakes: Images,
    keys: Keys,
    phase: Phase,
  ) -> tuple[Float[Array, ''], Aux]:
    """Computes D's loss on real and generated pairs."""
    del phase
    total, metrics, new = critic_loss(
      self.loss,
      self.disc,
      {**context.variables.disc, 'params': params},
      self._beside(batch, batch[self.target]),
      self._beside(batch, fakes),
      keys,
      self.axis_name,
    )
    return total, Aux(metrics, new)

  def gen_loss(
    self,
    params: PyTree,
    context: Context,
    batch: Batch,
    fakes: Images,
    keys: Keys,
    phase: Phase,
  ) -> tuple[Float[Array, ''], Aux]:
    """Sums the adversarial and the L1 loss: Isola et al. 2017, equation 4.

    Its gradient passes through the fakes.
    """
    del params, phase
    disc_vars = context.variables.disc
    logits = lambda images: frozen_logits(
      self.disc, disc_vars, self._beside(batch, images), keys, self.axis_name
    )
    adversarial = self.loss.gen(logits(batch[self.target]), logits(fakes))
    pixel = mean_absolute(fakes, batch[self.target])
    total = adversarial + self.pixel * pixel
    return total, Aux({'adversarial': adversarial, 'pixel_loss': pixel})


def pix2pix_game(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: GANLoss,
  pixel: float,
  direction: str,
  axis_name: str | None = None,
) -> Game:
  """Makes a pix2pix game.

  Args:
    gen, disc, loss, pixel: See `Pix2Pix`.
    direction: A key of DIRECTIONS.
  """
  given, target = translation_direction(direction)
  networks = Pix2Pix(gen, disc, loss, pixel, given, target, axis_name)
  output = Output(
    partial(sample_from_images, gen),
    reference=networks.target,
    given=lambda batch: batch[networks.given],
    target=lambda batch: batch[networks.target],
    inputs_of=lambda images, keys: {'images': images, 'keys': keys},
  )
  return Game(
    init=networks.init,
    sample_inputs=networks.sample_inputs,
    generate=partial(generate_from_images, gen),
    outputs={direction: output},
    updates=Pair(
      gen=(Update(networks.gen_loss),), disc=(Update(networks.disc_loss),)
    ),
    reads=('a', 'b'),
  )
