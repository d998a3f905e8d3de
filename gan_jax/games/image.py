"""The game of images: G makes them of latents, D tells them from the real."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.games.game import Aux, Game, Move
from gan_jax.latents import Latent
from gan_jax.losses import Adversarial
from gan_jax.penalties import Shown, Weighted
from gan_jax.schedule import Phase
from gan_jax.state import Pair

Images = Float[Array, 'n h w c']


def image_game(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: Adversarial,
  latent: Latent,
  latent_dim: int,
  penalties: Sequence[Weighted] = (),
  told: Callable[[Phase | None], dict[str, Any]] = lambda phase: {},
  reals: Callable[[Images, Phase], Images] = lambda images, phase: images,
) -> Game:
  """The unconditional game.

  Args:
    gen: (z [n, d], keys [n], train, **told) -> images [n, h, w, c].
    disc: (images, keys [n], train, **told) -> logits [n].
    loss: Both players', on logits.
    latent: The distribution of z.
    latent_dim: d.
    penalties: Of D.
    told: (phase) -> what both networks are told of it; of None: when they are
      made.
    reals: (images, phase) -> the reals as D sees them.

  D sees reals and fakes in separate passes, so that their BatchNorm statistics
  do not mix.
  """

  def init(key, batch):
    gen_key, disc_key, rest = jax.random.split(key, 3)
    keys = jax.random.split(rest, len(batch['images']))
    z = jnp.zeros((len(keys), latent_dim))
    variables = Pair(
      gen=gen.init(gen_key, z, keys, train=False, **told(None)),
      disc=disc.init(
        disc_key, batch['images'], keys, train=False, **told(None)
      ),
    )
    return variables, ()

  def draw(keys, batch, phase):
    del batch, phase
    pairs = jax.vmap(jax.random.split)(keys)
    z = jax.vmap(lambda key: latent.draw(key, latent_dim))(pairs[:, 0])
    return {'z': z, 'keys': pairs[:, 1]}

  def play(gen_vars, inputs, phase):
    z, keys = inputs['z'], inputs['keys']
    return _train_apply(gen, gen_vars, z, keys, **told(phase))

  def sample(gen_vars, inputs, phase):
    z, keys = inputs['z'], inputs['keys']
    return gen.apply(gen_vars, z, keys, train=False, **told(phase))

  def show(disc_vars, batch, fake, keys, phase):
    """What D says of reals and fakes, and its collections after both passes."""
    real = reals(batch['images'], phase)
    two = jax.vmap(jax.random.split)(keys)
    look = lambda variables, images, keys: _train_apply(
      disc, variables, images, keys, **told(phase)
    )
    real_logits, new = look(disc_vars, real, two[:, 0])
    disc_vars = {**disc_vars, **new}
    fake_logits, new = look(disc_vars, fake, two[:, 1])
    judge = lambda images: look(disc_vars, images, two[:, 0])[0]
    return Shown(judge, real, fake, real_logits, fake_logits, keys), new

  def disc_loss(params, view, batch, fakes, keys, phase):
    disc_vars = {**view.variables.disc, 'params': params}
    shown, new = show(disc_vars, batch, fakes, keys, phase)
    total = loss.disc(shown.real_logits, shown.fake_logits)
    metrics = _tell(loss, shown)
    for penalty in penalties:
      if penalty.every == 1:
        metrics[penalty.name] = penalty.value(shown)
        total += penalty.weight * metrics[penalty.name]
    return total, Aux(metrics, collections=new)

  def lazy(penalty):
    def penalty_loss(params, view, batch, fakes, keys, phase):
      disc_vars = {**view.variables.disc, 'params': params}
      shown, _ = show(disc_vars, batch, fakes, keys, phase)
      value = penalty.value(shown)
      return penalty.weight * value, Aux({penalty.name: value})

    return Move(penalty_loss, penalty.every, name=f'weighted_{penalty.name}')

  def gen_loss(params, view, batch, fakes, keys, phase):
    del params  # G's gradient is pulled back through the fakes
    shown, _ = show(view.variables.disc, batch, fakes, keys, phase)
    return loss.gen(shown.real_logits, shown.fake_logits), Aux({})

  def interpolate(a, b, t):
    return {**a, 'z': latent.interpolate(a['z'], b['z'], t)}

  def truncate(inputs, threshold):
    return {**inputs, 'z': latent.truncate(inputs['z'], threshold)}

  rare = tuple(lazy(penalty) for penalty in penalties if penalty.every > 1)
  return Game(
    init=init,
    draw=draw,
    play=play,
    sample=sample,
    moves=Pair(gen=(Move(gen_loss),), disc=(Move(disc_loss), *rare)),
    interpolate=interpolate,
    truncate=truncate if latent.truncate else None,
  )


def _tell(loss, shown):
  """How D tells reals from fakes."""
  real, fake = shown.real_logits, shown.fake_logits
  metrics = {'real_logit': jnp.mean(real), 'fake_logit': jnp.mean(fake)}
  if loss.says_real is not None:
    metrics['real_accuracy'] = jnp.mean(loss.says_real(real) > 0)
    metrics['fake_accuracy'] = jnp.mean(loss.says_real(fake) < 0)
  return metrics


def _train_apply(module, variables, x, keys, **told):
  """Applies a network as in training: its output, its new collections."""
  mutable = [name for name in variables if name != 'params']
  return module.apply(variables, x, keys, train=True, mutable=mutable, **told)
