"""Tests of messages about memory, before and when it runs out."""

import jax
import jax.numpy as jnp
import pytest
from runs import get_config

from gan_jax import data, devices, memory
from gan_jax.errors import UserError
from gan_jax.training import loop

# The tiny MLPs on 28x28 images, by hand: G 64-32-784 and D 784-32-1.
GEN = 64 * 32 + 32 + 32 * 784 + 784
DISC = 784 * 32 + 32 + 32 + 1
# float32: parameters and Adam's two moments of both players, and the average of
# G. A few scalars come on top.
BYTES = 4 * (3 * (GEN + DISC) + GEN)


@pytest.mark.parametrize(
  ('available', 'fits'), [(BYTES - 1, False), (BYTES + 1000, True)]
)
def test_state_larger_than_the_device_raises(
  available, fits, monkeypatch, tmp_path
):
  monkeypatch.setattr(devices, 'device_memory_bytes', lambda: available)
  config = get_config('vanilla_mnist', 'tiny')
  assert config.game.latent_dim == 64
  if fits:
    loop.train(config, tmp_path / 'run')
    return
  message = (
    f'the networks have {GEN + DISC:,} parameters: .* take 0.0 GB, but a'
  )
  with pytest.raises(UserError, match=message):
    loop.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_out_of_memory_is_one_line():
  message = 'out of memory on the device: set a smaller --config.batch_size'
  with pytest.raises(UserError, match=message), memory.report_out_of_memory():
    jnp.zeros(2**45, jnp.uint8).block_until_ready()
  with (
    pytest.raises(UserError, match='out of memory on this machine'),
    memory.report_out_of_memory(),
  ):
    bytearray(2**60)


def test_other_errors_are_passed_on():
  with pytest.raises(jax.errors.JaxRuntimeError), memory.report_out_of_memory():
    raise jax.errors.JaxRuntimeError('INTERNAL: something else')


def test_run_out_of_memory_ends_with_one_line(monkeypatch, tmp_path):
  def exhaust(*_):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

  monkeypatch.setattr(loop, 'index_batches', exhaust)
  with pytest.raises(UserError, match='out of memory on the device'):
    loop.train(get_config('vanilla_mnist', 'tiny'), tmp_path)


@pytest.mark.parametrize('in_memory', [True, False])
def test_folder_larger_than_the_memory_raises(in_memory, monkeypatch, tmp_path):
  """Counts all images if they stay in memory, else those decoded at once."""
  from PIL import Image

  for number in range(4):
    Image.new('RGB', (8, 8)).save(tmp_path / f'{number}.png')
  config = get_config('dcgan_folder', 'tiny')
  config.data.source = f'folder:{tmp_path}'
  config.data.resolution = 16
  config.data.max_device_bytes = 2**40 if in_memory else 0
  count = 4 if in_memory else 3
  monkeypatch.setattr('os.cpu_count', lambda: 3)
  monkeypatch.setattr(memory, 'host_bytes', lambda: count * 16 * 16 * 3)
  assert data.make(config).size == 4
  monkeypatch.setattr(memory, 'host_bytes', lambda: count * 16 * 16 * 3 - 1)
  with pytest.raises(UserError, match=f'{count} images of 16x16 take'):
    data.make(config)
