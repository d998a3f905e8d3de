"""Strict defaults, and fixtures that several tests share.

Silent rank promotion and warnings are errors, shapes in signatures are checked
as the tests run, and there are several devices.
"""

import contextlib
import functools
import importlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Set before jax is imported: two devices, enough threads that collectives on
# more devices than cores do not deadlock, and the shortest compilation, which
# takes most of the time of these tests: without optimization, with XLA's older
# emitters and with one LLVM module, it takes half as long.
os.environ['XLA_FLAGS'] = ' '.join(
  (
    '--xla_force_host_platform_device_count=2',
    '--xla_backend_optimization_level=0',
    '--xla_cpu_use_fusion_emitters=false',
    '--xla_cpu_parallel_codegen_split_count=1',
  )
)
os.environ['NPROC'] = '32'
os.environ['JAX_PLATFORMS'] = 'cpu'

import jax
import jaxtyping
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')
# (Strict dtype promotion is not possible: optax's Adam promotes.)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / 'shared' / 'data'

# Only the modules whose signatures have shapes: the hook wraps every function
# of a module, which takes seconds for all.
jaxtyping.install_import_hook(
  [
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in (ROOT / 'gan_jax').rglob('*.py')
    if 'jaxtyping' in path.read_text()
  ],
  'beartype.beartype',
)


@pytest.fixture(scope='session')
def shared() -> Path:
  """The folder of genuine images: MNIST, CIFAR-10, emoji."""
  if not SHARED.is_dir():
    pytest.skip('skipped: the genuine images of ../shared/data are not here')
  return SHARED


COMPILED = 'JAX_COMPILATION_CACHE_DIR'


def pytest_configure(config):
  """Keeps compiled programs for all pytest-xdist workers, then deletes them."""
  if not hasattr(config, 'workerinput') and COMPILED not in os.environ:
    folder = tempfile.TemporaryDirectory()
    os.environ[COMPILED] = folder.name
    config.add_cleanup(folder.cleanup)


@pytest.fixture(scope='session', autouse=True)
def caches(tmp_path_factory):
  """Gives the tests and their processes caches of their own."""
  os.environ['XDG_CACHE_HOME'] = str(tmp_path_factory.mktemp('cache'))
  networks = [f'GAN_JAX_{name}' for name in ('INCEPTION', 'DINOV2', 'CLIP')]
  for variable in (*networks, 'HF_HOME', 'TORCH_HOME'):
    os.environ.pop(variable, None)
  folder = os.environ[COMPILED]
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


# The files that take longest start first, so that no worker waits for the other
# at the end.
LONGEST = (
  'test_progressive', 'test_devices', 'test_ada', 'test_launch', 'test_loader',
  'test_failures', 'test_initial', 'test_step', 'test_evaluation', 'test_style',
)  # fmt: skip


def pytest_collection_modifyitems(items):
  """Puts the longest files first, and keeps the order within a file."""
  order = {name: index for index, name in enumerate(LONGEST)}
  items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope='session', autouse=True)
def cached_digits():
  """Caches the digits, which take half a second to read."""
  digits = importlib.import_module('gan_jax.data.digits')
  digits.read_examples = functools.cache(digits.read_examples)


@pytest.fixture(scope='session')
def forks():
  """Runs launch.py faster than a fresh process: see forks.py."""
  from forks import serve

  with serve() as server:
    yield server


@pytest.fixture(scope='session')
def vanilla(tmp_path_factory) -> Path:
  """The workdir of a `:tiny` run of vanilla_mnist.py; no test may change it."""
  from runs import get_config

  from gan_jax.training import loop

  workdir = tmp_path_factory.mktemp('vanilla')
  loop.train(get_config('vanilla_mnist', 'tiny'), workdir)
  return workdir


@pytest.fixture
def scripted(monkeypatch):
  """A list of FIDs: each evaluation takes the next, and measures nothing."""
  from gan_jax.metrics.evaluator import Evaluator
  from gan_jax.metrics.measure import METRICS

  values = []

  def make_evaluate_fn(self, game, truncation=None, exact=None):
    def measure(gen_vars, phase, check_stop):
      value = values.pop(0)
      return {m: {METRICS[m].main: [value]} for m in self.metrics}

    return measure

  monkeypatch.setattr(Evaluator, 'make_evaluate_fn', make_evaluate_fn)
  return values


def with_devices(count: int) -> str:
  """Returns the XLA flags of the tests with another number of devices."""
  flags = os.environ['XLA_FLAGS']
  return re.sub('device_count=[0-9]+', f'device_count={count}', flags)


def launch(*args: object) -> list[str]:
  """Returns the command line of launch.py with these arguments."""
  return [sys.executable, str(ROOT / 'launch.py'), *map(str, args)]


@contextlib.contextmanager
def running(command: list[str], until: str = 'iteration', **options: object):
  """Starts a run, and yields its process after a line that begins so."""
  with subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options
  ) as process:
    while not process.stdout.readline().startswith(until):
      assert process.poll() is None
    yield process
