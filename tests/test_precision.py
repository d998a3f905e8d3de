"""Tests that bfloat16 training tracks float32 and stores float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import get_config, metrics

from gan_jax.training import loop

ITERATIONS, EVERY = 200, 20


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vanilla_mnist', 'dcgan_mnist'])
def test_bfloat16_tracks_float32(name, tmp_path):
  """The same 200 iterations: losses, in means of 20, stay within 1%, and change
  by more than five times that. The stored state is float32.
  """
  curves = {}
  for precision in ('float32', 'bfloat16'):
    config = get_config(name, 'tiny')
    config.precision = precision
    config.batch_size = 32
    config.steps_per_dispatch = EVERY
    config.log_every_steps = EVERY
    config.total_images = ITERATIONS * config.batch_size
    for key in ('sample_every_images', 'checkpoint_every_images'):
      config[key] = config.total_images
    state = loop.train(config, tmp_path / precision)
    kept = (state.variables, state.opt_state, state.ema)
    for leaf in jax.tree.leaves(kept):
      assert leaf.dtype in (jnp.float32, jnp.int32)
    lines = metrics(tmp_path / precision)
    curves[precision] = np.array(
      [[line['disc/loss'], line['gen/loss']] for line in lines]
    )
  exact, rough = curves['float32'], curves['bfloat16']
  assert len(exact) == ITERATIONS // EVERY
  assert (exact != rough).all()
  assert abs(exact - rough).max() < 0.01
  assert (np.ptp(exact, axis=0) > 0.05).all()
