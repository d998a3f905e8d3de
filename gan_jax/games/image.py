"""The game of images: G makes them of latents, D tells them from the real."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.games.game import Aux, Game, Move
from gan_jax.latents import Latent
from gan_jax.losses import LogitLoss
from gan_jax.state import Pair


def image_game(
  gen: nn.Module,
  disc: nn.Module,
  *,
  loss: Pair[LogitLoss],
  latent: Latent,
  latent_dim: int,
) -> Game:
  """The unconditional game.

  Args:
    gen: (z [n, d], keys [n], train) -> images [n, h, w, c] in [-1, 1].
    disc: (images, keys [n], train) -> logits [n].
    loss: Both players', on logits.
    latent: The distribution of z.
    latent_dim: d.

  D sees reals and fakes in separate passes, so that their BatchNorm statistics
  do not mix.
  """

  # Which sign D gives to reals: the loss decides.
  one, zero = jnp.ones(1), jnp.zeros(1)
  real_side = 1 if loss.disc(one, zero) <= loss.disc(zero, one) else -1

  def init(key, batch):
    gen_key, disc_key, rest = jax.random.split(key, 3)
    keys = jax.random.split(rest, len(batch['images']))
    z = jnp.zeros((len(keys), latent_dim))
    variables = Pair(
      gen=gen.init(gen_key, z, keys, train=False),
      disc=disc.init(disc_key, batch['images'], keys, train=False),
    )
    return variables, ()

  def draw(keys, batch, phase):
    del batch, phase
    pairs = jax.vmap(jax.random.split)(keys)
    z = jax.vmap(lambda key: latent.draw(key, latent_dim))(pairs[:, 0])
    return {'z': z, 'keys': pairs[:, 1]}

  def play(gen_vars, inputs, phase):
    del phase
    z, keys = inputs['z'], inputs['keys']
    return _train_apply(gen, gen_vars, z, keys)

  def sample(gen_vars, inputs, phase):
    del phase
    return gen.apply(gen_vars, inputs['z'], inputs['keys'], train=False)

  def judge(disc_vars, real, fake, keys):
    """Logits of both, and D's collections after both passes."""
    keys = jax.vmap(jax.random.split)(keys)
    real_logits, new = _train_apply(disc, disc_vars, real, keys[:, 0])
    disc_vars = {**disc_vars, **new}
    fake_logits, new = _train_apply(disc, disc_vars, fake, keys[:, 1])
    return real_logits, fake_logits, new

  def disc_loss(params, view, batch, fakes, keys, phase):
    del phase
    disc_vars = {**view.variables.disc, 'params': params}
    real, fake, new = judge(disc_vars, batch['images'], fakes, keys)
    metrics = {
      'real_logit': jnp.mean(real),
      'fake_logit': jnp.mean(fake),
      'real_accuracy': jnp.mean(real_side * real > 0),
      'fake_accuracy': jnp.mean(real_side * fake < 0),
    }
    return loss.disc(real, fake), Aux(metrics, collections=new)

  def gen_loss(params, view, batch, fakes, keys, phase):
    del params, phase  # G's gradient is pulled back through the fakes
    real, fake, _ = judge(view.variables.disc, batch['images'], fakes, keys)
    return loss.gen(real, fake), Aux({})

  def interpolate(a, b, t):
    return {**a, 'z': latent.interpolate(a['z'], b['z'], t)}

  def truncate(inputs, threshold):
    return {**inputs, 'z': latent.truncate(inputs['z'], threshold)}

  return Game(
    init=init,
    draw=draw,
    play=play,
    sample=sample,
    moves=Pair(gen=(Move(gen_loss),), disc=(Move(disc_loss),)),
    interpolate=interpolate,
    truncate=truncate if latent.truncate else None,
  )


def _train_apply(module, variables, x, keys):
  """Applies a network as in training: its output, its new collections."""
  mutable = [name for name in variables if name != 'params']
  return module.apply(variables, x, keys, train=True, mutable=mutable)
