"""Programs compiled for other devices: what they send, and bad input."""

import importlib.util
import json
import math
import os
import subprocess
import sys

import jax
import pytest
from conftest import ROOT, launch, with_devices
from runs import get_config

from gan_jax.config import changed
from gan_jax.errors import UserError
from gan_jax.modes import compile as modes
from gan_jax.modes.compile import (
  Collective,
  collectives,
  compile_step,
  find_chips,
)

# Lines of compiled programs.
HLO = """
  %all-reduce.2 = (f32[64,128]{1,0:T(8,128)}, f32[]) all-reduce(%a, %b)
  %all-reduce-start = bf16[3,5]{1,0} all-reduce-start(%c), channel_id=2
  %done = bf16[3,5]{1,0} all-reduce-done(%all-reduce-start)
  %gather = (f32[2,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%d), dimensions={0}
  %plain = f32[7]{0} add(%e, %all-reduce.2)
"""


def test_transfers_are_listed_with_their_bytes():
  found = collectives(HLO)
  assert found == [
    Collective('all-reduce', (('f32', (64, 128)), ('f32', ()))),
    Collective('all-reduce', (('bf16', (3, 5)),)),
    Collective('all-gather', (('f32', (16, 8)),)),
  ]
  assert [x.bytes for x in found] == [4 * 64 * 128 + 4, 30, 4 * 16 * 8]
  # A ring of 4: a reduction goes around twice, each time 3 of 4 parts.
  assert modes.sent_bytes(found[1], 4) == 2 * 3 / 4 * 30
  assert modes.sent_bytes(found[2], 4) == 3 / 4 * 512


def shapes_of(config):
  """The shapes of the parameters of both players, and of their arrays."""
  from gan_jax import games
  from gan_jax.modes.dispatch_timer import generated_source, make_create_state
  from gan_jax.pair import player_params
  from gan_jax.training import optimizers

  tx = optimizers.make(config.optimizer.to_dict())
  source = generated_source(config)
  state = jax.eval_shape(
    make_create_state(games.make(config), tx, config, source)
  )
  return [x.shape for x in jax.tree.leaves(player_params(state.variables))]


def check_transfers(config, chips):
  """Checks that gradients and vectors are reduced, and no activation is sent.

  CPUs reduce those of D once for the reals and once for the fakes, and store
  some arrays transposed.
  """
  found = collectives(compile_step(config, chips).as_text())
  assert {x.kind for x in found} == {'all-reduce'}
  sent = [tuple(sorted(shape)) for x in found for _, shape in x.arrays]
  expected = [tuple(sorted(shape)) for shape in shapes_of(config)]
  for shape in {s for s in (*sent, *expected) if len(s) > 1}:
    count = expected.count(shape)
    assert count and count <= sent.count(shape) <= 2 * count, shape


@pytest.mark.parametrize('name', ['vanilla_mnist', 'dcgan_mnist'])
def test_only_gradients_and_statistics_are_sent(name):
  check_transfers(get_config(name, 'tiny'), jax.devices())


@pytest.mark.slow  # a process and a compilation each
@pytest.mark.parametrize('count', [8, 64, 256])
def test_only_gradients_are_sent_between_many(count):
  flags = with_devices(count)
  code = f"""
import os, jax
from test_compile import check_transfers, get_config
os.environ['XLA_FLAGS'] = {flags!r}  # conftest.py has set its own
config = get_config('vanilla_mnist', 'tiny')
config.batch_size = 256
assert len(jax.devices()) == {count}
check_transfers(config, jax.devices())
"""
  env = {**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests'}
  subprocess.run([sys.executable, '-c', code], env=env, check=True)


@pytest.mark.slow  # needs the compiler of TPUs
@pytest.mark.parametrize('topology', ['v5e:2x4', 'v5e:8x8', 'v6e:16x16'])
def test_tpus_reduce_the_gradients_of_a_player_at_once(topology):
  pytest.importorskip('libtpu', reason="pip install 'gan_jax[tpu]'")
  config = changed(get_config('vanilla_mnist'), 'batch_size', 256)
  chips = find_chips(topology)
  found = collectives(compile_step(config, chips).as_text())
  assert [x.kind for x in found] == ['all-reduce'] * 2
  # Each parameter once, in float32, and a few numbers: the metrics.
  parameters = 4 * sum(math.prod(shape) for shape in shapes_of(config))
  assert 0 <= sum(x.bytes for x in found) - parameters <= 64


@pytest.mark.slow
def test_the_mode_prints_what_to_expect(tmp_path):
  pytest.importorskip('libtpu', reason="pip install 'gan_jax[tpu]'")
  command = launch(
    '--config=experiments/vanilla_mnist.py:tiny', '--mode=compile',
    '--topology=v5e:2x2', '--config.batch_size=64',
  )  # fmt: skip
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert not result.returncode, result.stderr
  figures = json.loads(result.stdout.splitlines()[-1])
  assert figures['chips'] == 4 and figures['images_per_iteration'] == 64
  assert figures['sent']['all-reduce']['count'] == 2


def test_bad_input_is_one_line(monkeypatch):
  config = get_config('vanilla_mnist', 'tiny')
  with pytest.raises(UserError, match='add --topology=v5e:2x4'):
    modes.compile(config, '', None)
  with pytest.raises(UserError, match=r"unknown TPU 'v99'.*v5e"):
    modes.compile(config, '', 'v99:2x2')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'gan_jax\[tpu\]'"):
    modes.compile(config, '', 'v5e:2x2')
  batch = changed(config, 'batch_size', 9)
  with pytest.raises(UserError, match='batch of 9 is not divisible by the 2'):
    modes.measure(batch, 'v5e:1x2', modes.CHIPS['v5e'], jax.devices())
