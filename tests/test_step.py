"""Tests of the training step, on a fake game with every feature."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fake_game import fake_game

from gan_jax import devices
from gan_jax.data.order import Stream, stream_of
from gan_jax.data.source import in_memory, joined
from gan_jax.games import Aux, Update
from gan_jax.keys import Purpose, example_keys
from gan_jax.pair import Pair
from gan_jax.training import state
from gan_jax.training import step as steps
from gan_jax.training.checkpoint import Checkpoints
from gan_jax.training.dispatch import train_dispatch
from gan_jax.training.feed import index_batch
from gan_jax.training.schedule import place_segments
from gan_jax.training.strategies import Strategy, make_strategy

POINTS = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
OTHERS = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
ADAM = Pair(optax.scale_by_adam(0.5), optax.scale_by_adam(0.5))
SGD = Pair(optax.identity(), optax.identity())
RATE = 0.125
IDENTITY = lambda tree: tree
ONE_DEVICE = Strategy(
  None,
  jax.jit,
  IDENTITY,
  replicate=IDENTITY,
  shard_state=IDENTITY,
  replicate_state=IDENTITY,
  unshard_state=IDENTITY,
)


def make_schedule(disc_steps=1, gen_batch_size=None, halflife=32, dispatch=2):
  """Four iterations of stage 0, then stage 1, fading in over four."""
  per_stage = 4 * 8 * disc_steps
  return place_segments(
    (
      {'images': per_stage},
      {
        'images': per_stage,
        'stage': 1,
        'values': {'alpha': ('linear', 0.0, 1.0)},
      },
    ),
    defaults={
      'batch_size': 8,
      'gen_batch_size': gen_batch_size,
      'disc_steps': disc_steps,
    },
    learning_rate=Pair(RATE, RATE),
    total_images=2 * per_stage,
    steps_per_dispatch=dispatch,
    ema_halflife_images=halflife,
    ema_rampup=None,
  )


def create(game, tx):
  key = jax.random.key(0)
  variables, game_state = game.init(key, {'a': jnp.asarray(POINTS[:1])})
  return state.create(key, variables, game_state, tx, stage=0)


class Trainer:
  """Trains a game from the state `now`."""

  def __init__(self, game, tx, schedule, now=None, strategy=ONE_DEVICE):
    self.game, self.schedule, self.strategy = game, schedule, strategy
    sources = {'a': POINTS, 'b': OTHERS}
    self.source = joined(
      {name: in_memory({'images': x}) for name, x in sources.items()}
    )
    self.stream = stream_of(self.source, 0)
    self.now = create(game, tx) if now is None else now
    read = lambda dataset, batch, key, step, shrink: batch
    self.step = strategy.compile(
      partial(train_dispatch, game, tx, read, strategy.axis_name)
    )

  def train(self, until):
    """Trains to iteration `until` and returns the state."""
    while (step_number := int(self.now.step)) < until:
      batch = index_batch(
        self.stream, self.source, self.schedule, lambda n: slice(n), step_number
      )
      phases = self.schedule.dispatch(step_number)
      self.now, metrics = self.step(
        self.now, {}, self.strategy.shard(batch), phases, self.game.frozen()
      )
      self.metrics = jax.tree.map(lambda x: x.sum(0), metrics)
    return self.now


def assert_identical(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize('stop', [2, 4, 6])
def test_resumed_run_equals_the_uninterrupted_run(tmp_path, stop):
  """Stops before, at and after a change of stage, and reads a checkpoint."""
  game, schedule = fake_game(), make_schedule()
  start = partial(create, game, ADAM)
  trainer = Trainer(game, ADAM, schedule, devices.create(start))
  checkpoints = Checkpoints(tmp_path, keep=1)
  checkpoints.save(stop, trainer.train(stop), {}, {})
  checkpoints.close()
  straight = trainer.train(8)
  resumed = Checkpoints(tmp_path, keep=1).resume(start)
  assert_identical(straight, Trainer(game, ADAM, schedule, resumed).train(8))


def test_gen_gradient_includes_the_path_through_the_fakes():
  """The gradient through the fakes plus the direct gradient equals the
  derivative of the loss as a function of G's parameters.
  """
  game, schedule = fake_game(), make_schedule(dispatch=1)
  game = game._replace(
    updates=Pair(gen=game.updates.gen[:1], disc=()), trainable=None
  )
  now = create(game, SGD)
  stream = Stream(0, 64)
  batch = {
    'a': jnp.asarray(POINTS[stream.indices(np.arange(8))]),
    'example': jnp.arange(8),
  }
  phase = schedule.phase(0)

  def full_loss(params):
    keys = example_keys(now.key, Purpose.INPUTS, batch['example'], 0)
    z = jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
    a, b = z @ params['a']['w'], z @ params['b']['w']
    w = now.variables.disc['params']['w']
    cycle = jnp.mean((a @ params['b']['w'].T - z) ** 2)
    return -jnp.mean(a @ w) - jnp.mean(b @ w) + 0.5 * cycle

  before = now.variables.gen['params']
  expected = jax.tree.map(
    lambda p, g: p - RATE * g, before, jax.grad(full_loss)(before)
  )
  batches = Pair(gen=None, disc=jax.tree.map(lambda x: x[None], batch))
  after, _ = steps.train_step(game, SGD, now, batches, phase, game.frozen())
  for x, y in zip(
    jax.tree.leaves(after.variables.gen['params']),
    jax.tree.leaves(expected),
    strict=True,
  ):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('player', ['gen', 'disc'])
def test_update_keeps_the_state_of_the_other_player(player):
  game, schedule = fake_game(), make_schedule()
  updates = Pair((), ())._replace(**{player: getattr(game.updates, player)})
  before = create(game, ADAM)
  trainer = Trainer(game._replace(updates=updates), ADAM, schedule, before)
  after = trainer.train(2)
  other = 'disc' if player == 'gen' else 'gen'
  for field in ('variables', 'opt_state'):
    old, new = (getattr(getattr(s, field), other) for s in (before, after))
    if other == 'gen' and field == 'variables':
      old, new = old['params'], new['params']
    assert_identical(old, new)
  params_of = lambda s: getattr(s.variables, player)['params']
  changed = jax.tree.map(
    lambda x, y: bool((x != y).any()), params_of(before), params_of(after)
  )
  if player == 'gen':
    assert changed['b'] == {'w': True, 'late': False}
  assert any(jax.tree.leaves(changed))


def test_statistics_change_only_in_updates_of_their_player():
  """G generates fakes in each of D's 3 updates; only its own update counts."""
  game, schedule = fake_game(), make_schedule(disc_steps=3, gen_batch_size=4)
  after = Trainer(game, ADAM, schedule).train(2)
  assert after.variables.gen['stats']['updates'] == 2
  assert after.variables.disc['stats']['updates'] == 6


@pytest.mark.parametrize('shared', [True, False])
def test_updates_by_hand(shared):
  """Two D updates and one G update with plain gradient descent, in NumPy.

  D: w <- w - rate (mean pool + mean b - mean real), and at every third of its
  updates w <- w - rate 3 w. The pool holds `a` of the update before.
  """
  gen_batch = None if shared else 4
  game, schedule = fake_game(), make_schedule(2, gen_batch, dispatch=1)
  start = create(game, SGD)
  params = start.variables.gen['params']
  w = np.array(start.variables.disc['params']['w'], np.float64)
  streams = Stream(0, 64, name='a'), Stream(0, 40, name='b')
  pool, norms = np.zeros((4, 2)), []
  for step in range(2):
    examples = np.arange(8) + 8 * step
    keys = example_keys(start.key, Purpose.INPUTS, jnp.asarray(examples), 0)
    z = np.array(jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys))
    keys = example_keys(start.key, Purpose.DISC, jnp.asarray(examples), 0)
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys)
    coins = np.array(jax.vmap(jax.random.bernoulli)(keys))[:4, None]
    real = POINTS[streams[0].indices(examples)]
    real = (real + OTHERS[streams[1].indices(examples)]) / 2
    b = z @ np.array(params['b']['w'])
    gradient = pool.mean(0) + b.mean(0) - real.mean(0)
    norms.append(np.linalg.norm(gradient))
    w = w - RATE * gradient
    w = np.clip(w, -2, 2)
    if step % 3 == 0:
      w = w - RATE * 3 * w
    pool = np.where(coins, (z @ np.array(params['a']['w']))[:4], pool)
  trainer = Trainer(game, SGD, schedule, start)
  after = trainer.train(1)
  np.testing.assert_allclose(
    after.variables.disc['params']['w'], w, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(
    after.game_state['pool'], pool, rtol=1e-5, atol=1e-6
  )
  total, count = trainer.metrics['disc/loss_grad_norm']
  np.testing.assert_allclose(total, sum(norms), rtol=1e-5)
  assert count == 2
  assert set(trainer.metrics) == {
    'disc/loss', 'disc/loss_grad_norm', 'disc/pool', 'disc/shrink',
    'disc/shrink_grad_norm', 'gen/loss', 'gen/loss_grad_norm', 'gen/cycle',
    'gen/pull', 'gen/pull_grad_norm',
  }  # fmt: skip


def test_lazy_updates_follow_their_interval():
  """G's at iterations 0, 2, 4; D's at its updates 0, 3, 6."""
  game, schedule = fake_game(), make_schedule(dispatch=1)
  trainer, ran = Trainer(game, ADAM, schedule), []
  for until in range(1, 8):
    trainer.train(until)
    counts = [trainer.metrics[k][1] for k in ('gen/pull', 'disc/shrink')]
    ran.append([count == 1 for count in counts])
  pulls, shrinks = zip(*ran, strict=True)
  assert list(pulls) == [True, False] * 3 + [True]
  assert list(shrinks) == [True, False, False, True, False, False, True]


def test_frozen_layers_do_not_change():
  """Layers, their optimizer moments and their EMA are bit-identical until their
  stage; a new stage starts with new optimizer states.
  """
  game, schedule = fake_game(), make_schedule()
  trainer = Trainer(game, ADAM, schedule)
  start = trainer.now
  late = lambda tree: tree['b']['late']
  now = trainer.train(4)
  assert_identical(
    late(start.variables.gen['params']), late(now.variables.gen['params'])
  )
  assert_identical(late(start.ema['params']), late(now.ema['params']))
  assert not late(now.opt_state.gen.mu).any()
  assert not late(now.opt_state.gen.nu).any()
  assert now.opt_state.gen.count == 6  # four iterations, and two lazy updates
  later = trainer.train(6)
  assert later.stage == 1
  assert later.opt_state.gen.count == 3
  assert (late(later.variables.gen['params']) != 1).any()


def test_optimizer_moments_of_frozen_layers_do_not_change():
  """Even if they are not 0, and so would decay or change a layer."""
  game, schedule = fake_game(), make_schedule()
  start = create(game, ADAM)
  gen = start.opt_state.gen
  nonzero = jax.tree.map(lambda x: x + 0.5, gen._replace(count=0))
  start = start._replace(
    opt_state=start.opt_state._replace(gen=nonzero._replace(count=gen.count)),
    ema=jax.tree.map(lambda x: x + 0.5, start.ema),
  )
  now = Trainer(game, ADAM, schedule, start).train(4)
  late = lambda tree: np.asarray(tree['b']['late'])
  for part_of in (
    lambda state: state.opt_state.gen.mu,
    lambda state: state.opt_state.gen.nu,
    lambda state: state.variables.gen['params'],
    lambda state: state.ema['params'],
  ):
    before, after = part_of(start), part_of(now)
    np.testing.assert_array_equal(late(before), late(after))
    assert (np.asarray(before['b']['w']) != after['b']['w']).all()


@pytest.mark.parametrize('disc_steps', [1, 2])
def test_ema_half_life_by_hand(disc_steps):
  """After half-life images, the weight of the initial value is 1/2."""
  per_step = 8 * disc_steps
  game = fake_game()._replace(updates=Pair((), ()))
  schedule = make_schedule(disc_steps, halflife=4 * per_step)
  start = create(game, ADAM)
  start = start._replace(ema=jax.tree.map(lambda x: x + 1, start.ema))
  now = Trainer(game, ADAM, schedule, start).train(4)
  gap = now.ema['params']['a']['w'] - now.variables.gen['params']['a']['w']
  np.testing.assert_allclose(gap, 0.5, rtol=1e-5)


def test_scheduled_ema_half_life_by_hand():
  """Twice 4 iterations of 8 images: half-lives of 1 and of 4 iterations."""
  segments = (
    {'images': 32, 'values': {'ema_halflife_images': 8.0}},
    {'values': {'ema_halflife_images': 32.0}},
  )
  schedule = place_segments(
    segments,
    defaults={'batch_size': 8, 'gen_batch_size': None, 'disc_steps': 1},
    learning_rate=Pair(RATE, RATE),
    total_images=64,
    steps_per_dispatch=2,
    ema_halflife_images=10**9,
    ema_rampup=None,
  )
  game = fake_game()._replace(updates=Pair((), ()))
  start = create(game, ADAM)
  start = start._replace(ema=jax.tree.map(lambda x: x + 1, start.ema))
  trainer = Trainer(game, ADAM, schedule, start)
  for step, expected in ((4, 2**-4), (8, 2**-5)):
    now = trainer.train(step)
    gap = now.ema['params']['a']['w'] - now.variables.gen['params']['a']['w']
    np.testing.assert_allclose(gap, expected, rtol=1e-5)


def test_ema_copies_only_named_collections():
  game = fake_game()
  for copied in ((), ('stats',)):
    now = Trainer(game._replace(ema_copies=copied), SGD, make_schedule()).train(
      4
    )
    is_copied = (
      now.ema['stats']['updates'] == now.variables.gen['stats']['updates']
    )
    assert bool(is_copied) == bool(copied)


@pytest.mark.parametrize(
  ('name', 'gen_batch_size'),
  [
    ('jit', None),
    ('pmap', 4),
    pytest.param('jit', 4, marks=pytest.mark.slow),
    pytest.param('pmap', None, marks=pytest.mark.slow),
  ],
)
def test_two_devices_equal_one(name, gen_batch_size):
  """With jit and pmap: variables, optimizer states, EMA, statistics, image
  pool.
  """
  schedule = make_schedule(2, gen_batch_size)
  one_device = Trainer(fake_game(), ADAM, schedule).train(8)
  strategy = make_strategy(name)
  game = fake_game(strategy.axis_name)
  start = devices.create(partial(create, game, ADAM))
  two_devices = Trainer(game, ADAM, schedule, start, strategy).train(8)
  for x, y in zip(
    jax.tree.leaves(one_device._replace(key=())),
    jax.tree.leaves(two_devices._replace(key=())),
    strict=True,
  ):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_one_nan_loss_makes_the_mean_metric_nan():
  game = fake_game()
  broken = lambda *args: (jnp.float32(np.nan), Aux({}))
  updates = Pair(gen=(Update(broken, every=2),), disc=())
  trainer = Trainer(
    game._replace(updates=updates), ADAM, make_schedule(dispatch=4)
  )
  trainer.train(4)
  total, count = trainer.metrics['gen/loss']
  assert np.isnan(total)
  assert count == 2
