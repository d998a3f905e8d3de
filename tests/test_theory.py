"""Tests of GAN theory in 1-D, where densities are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import get_config, metrics
from scipy.stats import norm, spearmanr

import gan_jax
from gan_jax import data, games
from gan_jax.data.on_device import read
from gan_jax.devices import process_rows
from gan_jax.training import optimizers
from gan_jax.training.dispatch import train_dispatch
from gan_jax.training.feed import index_batch
from gan_jax.training.loop import train
from gan_jax.training.schedule import make_schedule
from gan_jax.training.setup import create_state

LOG4 = np.log(4)


def against_a_fixed_generator(config, std, mean, steps):
  """Trains D alone; returns (x -> D's logits, metrics per iteration).

  G is N(mean, std^2): one linear layer of z ~ N(0, 1), with a learning
  rate of 0.
  """
  config.model.gen.hidden = ()
  config.game.latent_dim = 1
  config.total_images = steps * config.batch_size
  (segment,) = config.schedule
  segment = {**segment, 'gen_learning_rate_factor': 0.0}
  config.schedule = (segment,)
  schedule, source = make_schedule(config), data.make(config)
  game = games.make(config)
  tx = optimizers.make(config.optimizer.to_dict())
  examples = {'images': jnp.asarray(source.fetch(np.arange(2))['images'])}
  state = create_state(game, tx, examples, schedule.phase(0), config.seed)
  layer = {'kernel': jnp.array([[std]]), 'bias': jnp.array([mean])}
  gen = {'params': {'Dense_0': layer}}
  state = state._replace(variables=state.variables._replace(gen=gen))
  state = state._replace(ema=gen)
  reader = partial(read, flip=False, draw=source.draw)
  run_dispatch = jax.jit(partial(train_dispatch, game, tx, reader, None))
  history = []
  for step in range(0, steps, schedule.steps_per_dispatch):
    batch = index_batch(None, None, schedule, process_rows(), step)
    state, step_metrics = run_dispatch(
      state, {}, batch, schedule.dispatch(step), ()
    )
    history.append({name: x[:, 0] for name, x in step_metrics.items()})
  history = {
    k: np.concatenate([part[k] for part in history]) for k in history[0]
  }
  assert state.variables.gen['params']['Dense_0']['kernel'][0, 0] == std

  def logits(x):
    images = jnp.asarray(x, jnp.float32)[:, None, None, None]
    disc_vars = state.variables.disc
    output = game.discriminate(disc_vars, {'images': images}, schedule.phase(0))
    return np.asarray(output.logits)

  return logits, history


def without_penalties(name):
  config = get_config(name)
  config.game.penalties.r1.weight = 0.0
  config.game.penalties.r2.weight = 0.0
  return config


@pytest.mark.slow  # trains D to its optimum
def test_optimal_discriminator_is_the_ratio_of_densities():
  """D(x) = p_data / (p_data + p_G): Goodfellow et al. 2014, proposition 1.

  p_data is half N(-1.5, 0.3^2) and half N(1.5, 0.3^2), p_G = N(0.3, 1.2^2). The
  error is below 0.05 where a density is above a tenth of its maximum.
  """
  config = without_penalties('toy:mixture')
  logits, history = against_a_fixed_generator(config, 1.2, 0.3, 3000)
  x = np.linspace(-3, 3, 241)
  real = (norm.pdf(x, -1.5, 0.3) + norm.pdf(x, 1.5, 0.3)) / 2
  fake = norm.pdf(x, 0.3, 1.2)
  has_density = (real > 0.1 * real.max()) | (fake > 0.1 * fake.max())
  optimal = real / (real + fake)
  found = 1 / (1 + np.exp(-logits(x)))
  assert np.abs(found - optimal)[has_density].max() < 0.05
  # Its loss is log 4 - 2 JSD (theorem 1), by quadrature.
  middle = (real + fake) / 2
  dx = x[1] - x[0]
  jsd = sum(
    0.5 * np.sum(np.where(p > 1e-12, p * np.log((p + 1e-300) / middle), 0)) * dx
    for p in (real, fake)
  )
  assert history['disc/loss'][-500:].mean() == pytest.approx(
    LOG4 - 2 * jsd, abs=0.02
  )


@pytest.mark.slow
def test_discriminator_ranks_points_by_their_likelihood(tmp_path):
  """`run.discriminator` + log p_G is log p_data, up to D's errors.

  G is w z, and is not trained.
  """
  config = without_penalties('toy:mixture')
  config.model.gen.hidden = ()
  config.total_images = 256 * 2000
  (segment,) = config.schedule
  segment = {**segment, 'gen_learning_rate_factor': 0.0}
  config.schedule = (segment,)
  config.evaluation.every_images = None
  for key in ('sample', 'checkpoint'):
    config[f'{key}_every_images'] = config.total_images
  config.seed = 8
  train(config, tmp_path)
  run = gan_jax.load(tmp_path)
  w = abs(float(run.params['params']['Dense_0']['kernel'][0, 0]))
  assert 1.5 < w < 2  # for this seed
  x = np.random.default_rng(0).uniform(-2.4, 2.4, (500, 1)).astype(np.float32)
  real = np.log((norm.pdf(x, -1.5, 0.3) + norm.pdf(x, 1.5, 0.3)) / 2)
  estimates = run.discriminator(x) + norm.logpdf(x[:, 0], 0, w)
  assert spearmanr(estimates, real[:, 0])[0] > 0.98


@pytest.mark.slow  # trains D until it wins
def test_saturating_gradient_vanishes_where_disc_wins():
  """G is N(-2, 0.2^2), and the data are N(1, 0.5^2): D separates them.

  The gradient of E log(1 - D) has the factor D(G(z)), that of -E log D the
  factor 1 - D(G(z)): Goodfellow et al. 2014, section 3.
  """
  norms = {}
  for name in ('minimax', 'non_saturating'):
    config = without_penalties('toy:gaussian')
    config.game.loss.name = name
    logits, history = against_a_fixed_generator(config, 0.2, -2.0, 500)
    norms[name] = history['gen/loss_grad_norm']
    fake_logits = logits(np.random.default_rng(0).normal(-2.0, 0.2, 10_000))
  end = slice(-50, None)
  ratio = norms['minimax'] / norms['non_saturating']
  assert ratio[end].max() < 1e-2 < 1e-1 < ratio[0]
  # By these factors the ratio is D / (1 - D) = e^logit, on average over fakes.
  factors = np.exp(fake_logits).mean()
  assert factors / 3 < ratio[end].mean() < 3 * factors
  assert norms['non_saturating'][end].min() > norms['non_saturating'][0] / 2


@pytest.mark.slow
def test_discriminator_of_a_converged_run_is_undecided(tmp_path):
  """D is near 1/2 at all points, its loss near log 4, and G near the data."""
  config = get_config('toy:gaussian')
  config.total_images = 256 * 1000
  (segment,) = config.schedule
  config.schedule = ({**segment, 'images': config.total_images},)
  for key in ('sample', 'checkpoint'):
    config[f'{key}_every_images'] = config.total_images
  config.evaluation.every_images = config.total_images
  train(config, tmp_path)
  last = metrics(tmp_path)[-1]
  assert last['disc/loss'] == pytest.approx(LOG4, abs=0.01)
  run = gan_jax.load(tmp_path)
  points = run.sample(4000)
  assert points.shape == (4000, 1)
  assert points.mean() == pytest.approx(1.0, abs=0.1)
  assert points.std() == pytest.approx(0.5, abs=0.1)
  x = np.linspace(0, 2, 50)[:, None].astype(np.float32)
  probabilities = 1 / (1 + np.exp(-run.discriminator(x)))
  assert np.abs(probabilities - 0.5).max() < 0.05
  assert last['eval/jensen_shannon'] < 0.05
