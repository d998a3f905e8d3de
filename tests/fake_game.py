"""A small game that has everything a game may have.

Two sources and two outputs; two generators, one of which (b) grows at stage 1;
an image pool; a lazy update of each player; clipped weights; statistics of both
players; a frozen array; points instead of images. All of it is linear, so that
gradients can be worked out by hand.
"""

from functools import partial

import jax
import jax.numpy as jnp

from gan_jax.games import Aux, Game, Update
from gan_jax.games.game import Output
from gan_jax.ops import axis
from gan_jax.pair import Pair

POOL = 4


def fake_game(axis_name: str | None = None) -> Game:
  """G maps z to 'a' and to 'b'; D scores 'a' of a pool, and 'b'."""

  def init(key, batch):
    shape = batch['a'].shape[1:]
    a, b, d = jax.random.split(key, 3)
    gen = {
      'a': {'w': jax.random.normal(a, (2, *shape))},
      'b': {'w': jax.random.normal(b, (2, *shape)), 'late': jnp.ones(shape)},
    }
    variables = Pair(
      gen={'params': gen, 'stats': {'updates': jnp.float32(0)}},
      disc={
        'params': {'w': jax.random.normal(d, shape)},
        'stats': {'updates': jnp.float32(0)},
      },
    )
    return variables, {'pool': jnp.zeros((POOL, *shape))}

  def sample_inputs(keys, batch, phase):
    return {'z': jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)}

  def forward(params, z, phase):
    b = z @ params['b']['w']
    if phase.stage == 1:
      b = b + phase.values['alpha'] * params['b']['late'][None]
    return {'a': z @ params['a']['w'], 'b': b}

  def generate(gen_vars, inputs, phase):
    fakes = forward(gen_vars['params'], inputs['z'], phase)
    return fakes, {'stats': {'updates': gen_vars['stats']['updates'] + 1}}

  def disc_loss(params, context, batch, fakes, keys, phase):
    pool = context.game_state['pool']
    # As in CycleGAN: half of the fakes are swapped for older ones.
    coins = jax.vmap(jax.random.bernoulli)(keys)
    coins, new_fakes = axis.gather((coins, fakes['a']), axis_name)
    swapped = jnp.where(coins[:POOL, None], new_fakes[:POOL], pool)
    score = lambda x: jnp.mean(x @ params['w'])
    real = (score(batch['a']) + score(batch['b'])) / 2
    loss = score(pool) + score(fakes['b']) - real
    count = context.variables.disc['stats']['updates'] + 1
    collections = {'stats': {'updates': count}}
    return loss, Aux({'pool': score(pool)}, collections, {'pool': swapped})

  clip = lambda params: jax.tree.map(lambda p: jnp.clip(p, -2, 2), params)

  def shrink(params, context, batch, fakes, keys, phase):
    return jnp.sum(params['w'] ** 2) / 2, Aux({})

  def gen_loss(params, context, batch, fakes, keys, phase):
    w = context.variables.disc['params']['w']
    adversarial = -jnp.mean(fakes['a'] @ w) - jnp.mean(fakes['b'] @ w)
    # As in CycleGAN's cycle: b's weights are applied to a's output.
    cycle = jnp.mean(
      (fakes['a'] @ params['b']['w'].T - context.inputs['z']) ** 2
    )
    return adversarial + context.frozen * cycle, Aux({'cycle': cycle})

  def pull_in(params, context, batch, fakes, keys, phase):
    return jnp.sum(params['a']['w'] ** 2) / 2, Aux({})

  def trainable(params, phase):
    late = phase.stage == 1
    return Pair(gen={'a': True, 'b': {'w': True, 'late': late}}, disc=True)

  def sample(name, gen_vars, inputs, phase):
    return generate(gen_vars, inputs, phase)[0][name]

  return Game(
    init=init,
    sample_inputs=sample_inputs,
    generate=generate,
    outputs={
      name: Output(partial(sample, name), reference=name) for name in 'ab'
    },
    sources=('a', 'b'),
    updates=Pair(
      gen=(Update(gen_loss), Update(pull_in, every=2, name='pull')),
      disc=(
        Update(disc_loss, project=clip),
        Update(shrink, every=3, name='shrink'),
      ),
    ),
    frozen=lambda: jnp.float32(0.5),
    trainable=trainable,
  )
