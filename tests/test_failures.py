"""Tests of failures: checkpoints, disks, divergence, concurrent runs."""

import contextlib
import gc
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, launch, running
from runs import get_config, metrics, state_arrays
from soak import soak

import gan_jax
from gan_jax import games
from gan_jax.errors import Diverged, UserError
from gan_jax.games.game import Output, Update, main_output
from gan_jax.keys import Purpose, example_keys
from gan_jax.training import checkpoint, loop, run_log
from gan_jax.training.health import HealthChecks, diversity
from gan_jax.training.schedule import make_schedule

# After a failed read or save, Orbax leaves coroutines, which Python collects
# later.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


@pytest.fixture(scope='module', autouse=True)
def collect_garbage():
  """Collects them before the tests of another file run."""
  yield
  gc.collect()


@pytest.fixture(scope='module')
def straight(vanilla):
  """A `:tiny` run without interruption: checkpoints at 8, 16 and 24."""
  assert checkpoint.steps(vanilla) == [8, 16, 24]
  return vanilla


@pytest.fixture
def copy(straight, tmp_path):
  return shutil.copytree(straight, tmp_path / 'copy')


# Damaged checkpoints.


def flip_a_byte(folder, rng):
  """Changes the file with the arrays; Orbax does not detect the change."""
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  largest = max(files, key=lambda path: path.stat().st_size)
  raw = bytearray(largest.read_bytes())
  raw[rng.randrange(len(raw))] ^= 0x10
  largest.write_bytes(raw)


def truncate(folder, rng):
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  largest = max(files, key=lambda path: path.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)


def lose_a_file(folder, rng):
  rng.choice(sorted(folder.rglob('*manifest*'))).unlink()


@pytest.mark.parametrize('spoil', [flip_a_byte, truncate, lose_a_file])
def test_damaged_checkpoint_is_set_aside(copy, straight, spoil, capsys):
  spoil(copy / 'checkpoints' / '24', random.Random(0))
  with pytest.raises(UserError, match=r'at step 24 is damaged'):
    gan_jax.load(copy)
  assert gan_jax.load(copy, step=16).step == 16
  loop.train(get_config('vanilla_mnist', 'tiny'), copy)
  captured = capsys.readouterr()
  assert 'the checkpoint of iteration 24 is damaged' in captured.err
  assert 'Resuming at iteration 16' in captured.out
  assert (copy / 'damaged' / '24').is_dir()
  assert state_arrays(copy, 24) == state_arrays(straight, 24)
  assert metrics(copy) == metrics(straight)


def test_damage_without_checksums_is_detected(copy, straight, capsys):
  """The run was killed before it wrote checksums; Orbax detects the damage."""
  (copy / 'checksums' / '24.json').unlink()
  for manifest in (copy / 'checkpoints' / '24').rglob('*manifest*'):
    manifest.write_bytes(b'')
  loop.train(get_config('vanilla_mnist', 'tiny'), copy)
  assert 'iteration 24 is damaged' in capsys.readouterr().err
  assert state_arrays(copy, 24) == state_arrays(straight, 24)


def test_changed_networks_do_not_count_as_damage(copy):
  """The checkpoint is intact and is not moved."""
  config = get_config('vanilla_mnist', 'tiny')
  settings = json.loads((copy / 'config.json').read_text())
  settings['model']['gen']['hidden'] = [48]
  (copy / 'config.json').write_text(json.dumps(settings))
  config.model.gen.hidden = (48,)
  with pytest.raises(
    UserError, match='iteration 24 is intact, but it does not match'
  ):
    loop.train(config, copy)
  assert checkpoint.steps(copy) == [8, 16, 24]
  assert not (copy / 'damaged').exists()


def test_damaged_checksums_are_ignored(copy, straight):
  (copy / 'checksums' / '24.json').write_bytes(b'')
  assert gan_jax.load(copy).step == 24
  with (copy / 'metrics.jsonl').open('ab') as file:
    file.write(b'\0\0\n')
  loop.train(get_config('vanilla_mnist', 'tiny'), copy)
  assert metrics(copy) == metrics(straight)


def edited(**changes):
  """Returns a function that changes keys of `config.json` (None: removes)."""

  def change(settings):
    for key, value in changes.items():
      *blocks, last = key.split('__')
      block = settings
      for name in blocks:
        block = block[name]
      if value is None:
        del block[last]
      else:
        block[last] = value
    return settings

  return change


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda _: [1, 2], r'it is \[1, 2\], but must be a block'),
    (lambda _: 'text', 'it is "text", but must be a block'),
    (lambda _: 3.5, 'it is 3.5, but must be a block'),
    (lambda _: None, 'it is null, but must be a block'),
    (edited(data=3), 'data is 3, but must be a block'),
    (edited(model__gen='mlp'), 'model.gen is "mlp", but must be a block'),
    (edited(optimizer=None), 'optimizer is missing, but must be a block'),
    (edited(evaluation=[]), r'evaluation is \[\], but must be a block'),
    (
      edited(batch_size='16'),
      r"config\.batch_size='16' must be an integer",
    ),
    (
      edited(batch_size=[16]),
      r'config\.batch_size=\(16,\) must be an integer',
    ),
    (edited(schedule=7), 'schedule is 7, but must be a list of blocks'),
  ],
)
def test_damaged_config_is_reported(copy, change, message):
  """Opening the run and resuming it report the damage."""
  file = copy / 'config.json'
  file.write_text(json.dumps(change(json.loads(file.read_text()))))
  line = rf'config\.json of {copy} is damaged: {message}; restore it, or name'
  with pytest.raises(UserError, match=line):
    gan_jax.load(copy)
  with pytest.raises(UserError, match=line):
    loop.train(get_config('vanilla_mnist', 'tiny'), copy)


@pytest.mark.parametrize('raw', [b'', b'{"data":', b'\xff', b'[' * 100_000])
def test_config_that_is_not_json_is_reported(copy, raw):
  (copy / 'config.json').write_bytes(raw)
  with pytest.raises(UserError, match=r'config\.json of .* is damaged'):
    gan_jax.load(copy)


@pytest.mark.parametrize(
  'name', ['checkpoints', 'checksums', 'samples', 'tensorboard']
)
def test_file_in_place_of_a_folder_raises(copy, name):
  shutil.rmtree(copy / name)
  (copy / name).write_text('not a folder')
  message = f'{copy}/{name} is a file, but a run needs a folder there: move it'
  for use in (gan_jax.load, train_tiny):
    with pytest.raises(UserError, match=message):
      use(copy)


@pytest.mark.parametrize('name', ['config.json', 'metrics.jsonl'])
def test_folder_in_place_of_a_file_raises(copy, name):
  (copy / name).unlink()
  (copy / name).mkdir()
  message = f'{copy}/{name} is a folder, but a run needs a file there: move it'
  for use in (gan_jax.load, train_tiny):
    with pytest.raises(UserError, match=message):
      use(copy)


def test_scores_that_are_a_folder_raise(copy):
  (copy / 'scores.jsonl').mkdir()
  with pytest.raises(UserError, match='is a folder, but a run needs a file'):
    gan_jax.load(copy)


def train_tiny(workdir):
  return loop.train(get_config('vanilla_mnist', 'tiny'), workdir)


def test_run_without_intact_checkpoints_raises(copy, capsys):
  for step in (8, 16, 24):
    truncate(copy / 'checkpoints' / str(step), None)
  with pytest.raises(UserError, match=r'no checkpoint of .* can be read'):
    loop.train(get_config('vanilla_mnist', 'tiny'), copy)
  assert capsys.readouterr().err.count('is damaged') == 3


def test_checksums_are_deleted_with_their_checkpoints(tmp_path):
  config = get_config('vanilla_mnist', 'tiny')
  config.checkpoints_to_keep = 1
  loop.train(config, tmp_path)
  assert checkpoint.steps(tmp_path) == [24]
  names = {path.name for path in (tmp_path / 'checksums').iterdir()}
  assert names <= {'16.json', '24.json'}
  assert '24.json' in names


# Saves that fail.


@contextlib.contextmanager
def full_disk():
  """Makes each write to a file fail, as on a full disk."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('fault', ['full', 'gone'])
def test_failed_save_is_retried(tmp_path, capsys, fault):
  """Earlier checkpoints stay intact."""
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=3)
  shifted = lambda n: jax.tree.map(lambda x: x + n, state)
  state = some_state()
  save = lambda n: checkpoints.save(n, shifted(n), {'gen/loss': 0.0}, {})
  save(1)
  checkpoints.finish()
  folder = tmp_path / 'checkpoints'
  if fault == 'full':
    with full_disk():
      save(2)
      with pytest.raises(UserError, match='iteration 2 could not be saved'):
        checkpoints.finish()
  else:
    folder.rename(tmp_path / 'elsewhere')
    folder.touch()  # no folder can be created there
    save(2)
    with pytest.raises(UserError, match='iteration 2 could not be saved'):
      checkpoints.finish()
    folder.unlink()
    (tmp_path / 'elsewhere').rename(folder)
  assert 'the next checkpoint will try again' in capsys.readouterr().err
  save(3)
  checkpoints.finish()
  checkpoints.close()
  assert checkpoint.steps(tmp_path) == [1, 3]
  for step in (1, 3):
    assert checkpoint.damage(tmp_path, step) == ''
    read = checkpoint.read(tmp_path, ('ema',), step)['ema']
    np.testing.assert_array_equal(read['w'], np.arange(4) + step)


def test_temporarily_full_disk_loses_nothing(
  tmp_path, straight, capsys, monkeypatch
):
  """Training continues, and the log and the checkpoints are complete."""
  log, lines = run_log.RunLog.log, []

  def log_on_a_full_disk(self, *rest):
    lines.append(rest)
    with full_disk() if len(lines) in (2, 3) else contextlib.nullcontext():
      log(self, *rest)

  save = checkpoint.Checkpoints.save

  def save_at_once(self, *rest):
    """Waits for the save, so that the full disk affects only the log."""
    save(self, *rest)
    self.finish()

  monkeypatch.setattr(run_log.RunLog, 'log', log_on_a_full_disk)
  monkeypatch.setattr(checkpoint.Checkpoints, 'save', save_at_once)
  loop.train(get_config('vanilla_mnist', 'tiny'), tmp_path)
  assert 'cannot write to' in capsys.readouterr().err
  assert metrics(tmp_path) == metrics(straight)
  assert checkpoint.steps(tmp_path) == [8, 16, 24]


@pytest.mark.processes
def test_full_disk_is_reported_in_single_lines(tmp_path):
  """Orbax's hundreds of log lines go to the workdir's log.txt."""
  limit = (
    20_000,
    resource.RLIM_INFINITY,
  )  # larger than all files but checkpoints
  done = subprocess.run(
    launch(
      '--config=experiments/vanilla_mnist.py:tiny', f'--workdir={tmp_path}/run'
    ),
    cwd=ROOT,
    # On a slow machine JAX would warn of its own files too.
    env={**os.environ, 'JAX_ENABLE_COMPILATION_CACHE': 'false'},
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  *warnings, last = done.stderr.splitlines()
  assert last.startswith('launch.py: iteration 24 could not be saved')
  saves = [line for line in warnings if 'could not be saved' in line]
  assert len(saves) == 3
  others = [line for line in warnings if line not in saves]
  known = [x for x in others if 'cannot write to' in x and 'too large' in x]
  assert others == known
  assert len(others) <= 4
  assert 'Traceback' in (tmp_path / 'run' / 'log.txt').read_text()


def some_state():
  from gan_jax.pair import Pair
  from gan_jax.training.state import State

  w = {'w': jnp.arange(4.0)}
  return State(
    step=jnp.int32(0),
    attempt=jnp.int32(0),
    stage=jnp.int32(0),
    key=jnp.uint32(0),
    variables=Pair(w, w),
    opt_state=Pair(w, w),
    ema=w,
    game_state=(),
  )


# Preemption.


@pytest.mark.processes
def test_sigterm_saves_and_exits(tmp_path):
  """The exit code is that of preemption; the resumed run equals a straight run
  bit for bit.
  """
  command = launch(
    '--config=experiments/vanilla_mnist.py:tiny',
    '--config.total_images=16_000',
    '--config.checkpoint_every_images=16_000',
    f'--workdir={tmp_path}/stopped',
  )
  with running(command, until='iteration 40 ') as process:
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
  assert process.returncode == 75
  (step,) = checkpoint.steps(tmp_path / 'stopped')
  assert f'Preempted, saved at iteration {step:,}' in rest
  assert 40 <= step < 1000
  config = get_config('vanilla_mnist', 'tiny')
  config.total_images = 16 * (step + 8)
  config.checkpoint_every_images = config.total_images
  names = 'stopped', 'straight'
  for name in names:
    loop.train(config, tmp_path / name)
  ends = [state_arrays(tmp_path / name, step + 8) for name in names]
  assert ends[0] == ends[1]


@pytest.mark.slow
def test_soak(tmp_path):
  """Killed at random moments, at least once inside a save."""
  assert soak(tmp_path, kills=4, seed=1) >= 1


@pytest.mark.processes
def test_workdir_in_use_is_refused(tmp_path):
  command = launch(
    '--config=experiments/vanilla_mnist.py:tiny',
    '--config.total_images=10_000_000',
    f'--workdir={tmp_path}',
  )
  with running(command) as first:
    second = subprocess.run(
      command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert first.poll() is None  # the first run continues
    first.kill()
    first.stdout.read()
  assert second.returncode == 2
  (line,) = second.stderr.splitlines()
  assert 'is in use by a run that is still running' in line


# Divergence.


def diverge(monkeypatch, player='disc', limit=2.0):
  """Makes the loss NaN in iterations whose first latent is above `limit`."""
  make = games.make

  def with_nan(loss):
    def nan_loss(params, context, batch, fakes, keys, phase):
      value, aux = loss(params, context, batch, fakes, keys, phase)
      large = context.inputs['z'][0, 0] > limit
      return value * jnp.where(large, jnp.nan, 1.0), aux

    return nan_loss

  def make_diverging(*args):
    game = make(*args)
    (update,) = getattr(game.updates, player)
    updates = (Update(with_nan(update.loss)),)
    return game._replace(updates=game.updates._replace(**{player: updates}))

  monkeypatch.setattr(games, 'make', make_diverging)


def diverging_config(**changes):
  config = get_config('vanilla_mnist', 'tiny')
  config.total_images = 16 * 96
  config.update(changes)
  return config


@pytest.mark.parametrize('player', ['gen', 'disc'])
def test_divergence_stops_the_run(tmp_path, monkeypatch, player):
  """The message has the iteration, the player and the term; no checkpoint has
  values that are not finite.
  """
  diverge(monkeypatch, player)
  config = diverging_config()
  with pytest.raises(Diverged) as raised:
    loop.train(config, tmp_path)
  iteration = first_large_latent(config)
  terms = f'{player}/loss, {player}/loss_grad_norm'
  assert f'{terms} not finite at iteration {iteration}:' in str(raised.value)
  other = {'gen': 'disc/', 'disc': 'gen/'}[player]
  assert other not in str(raised.value)
  steps = checkpoint.steps(tmp_path)
  assert steps
  assert steps[-1] < iteration <= steps[-1] + 8
  for leaf in jax.tree.leaves(checkpoint.read(tmp_path, ('ema',), steps[-1])):
    assert np.isfinite(leaf).all()


def first_large_latent(config, limit=2.0):
  """Returns the first iteration whose first latent is above `limit`."""
  key = jax.random.key(config.seed)
  game = games.make(config)
  phase = make_schedule(config).phase(0)
  for step in range(96):
    keys = example_keys(key, Purpose.INPUTS, jnp.arange(1), step)
    if game.sample_inputs(keys, {}, phase)['z'][0, 0] > limit:
      return step + 1
  raise AssertionError(f'no latent is above {limit}')


@pytest.mark.parametrize(
  'player', [pytest.param('gen', marks=pytest.mark.slow), 'disc']
)
def test_rollback_succeeds_and_resumes_bit_for_bit(
  tmp_path, monkeypatch, player, capsys
):
  """An attempt with other data and latents succeeds; a run that is stopped and
  resumed has the same attempts.
  """
  diverge(monkeypatch, player)
  config = diverging_config(on_divergence='rollback', seed=SEED)
  state = loop.train(config, tmp_path / 'straight')
  attempts = int(state.attempt)
  warnings = capsys.readouterr().err
  assert attempts >= 1
  assert warnings.count('Rolling back to it') == attempts
  assert f'{player}/loss' in warnings
  steps = [line['step'] for line in metrics(tmp_path / 'straight')]
  assert steps == list(range(4, 97, 4))  # neither gap nor repeat
  for total in (16 * 16, 16 * 40, 16 * 96):
    config.total_images = total
    loop.train(config, tmp_path / 'stopped')
  end = checkpoint.steps(tmp_path / 'straight')[-1]
  assert state_arrays(tmp_path / 'straight', end) == state_arrays(
    tmp_path / 'stopped', end
  )
  assert metrics(tmp_path / 'straight') == metrics(tmp_path / 'stopped')


SEED = 0


def test_rollbacks_are_bounded(tmp_path, monkeypatch, capsys):
  diverge(monkeypatch, limit=-9.0)  # always
  config = diverging_config(on_divergence='rollback')
  with pytest.raises(Diverged):
    loop.train(config, tmp_path)
  assert capsys.readouterr().err.count('Rolling back') == loop.MAX_ATTEMPTS


class FakeWandb(ModuleType):
  """Records the started runs, and the steps logged to each."""

  def __init__(self):
    super().__init__('wandb')
    self.__spec__ = ModuleSpec('wandb', None)  # find_spec finds it
    self.inits, self.steps, self.finished = [], {}, []

  def init(self, **settings):
    self.inits.append(settings)
    steps = self.steps.setdefault(settings['id'], [])
    return SimpleNamespace(
      log=lambda line, step: steps.append(step),
      finish=lambda: self.finished.append(settings['id']),
    )


def test_each_attempt_is_a_wandb_run(tmp_path, monkeypatch):
  """The steps of a run never decrease; a resumed attempt keeps its run."""
  fake = FakeWandb()
  monkeypatch.setitem(sys.modules, 'wandb', fake)
  diverge(monkeypatch)
  config = diverging_config(on_divergence='rollback', seed=SEED, wandb=True)
  attempts = int(loop.train(config, tmp_path / 'one').attempt)
  assert attempts >= 1
  before = list(fake.inits)
  assert len(before) == len({run['id'] for run in before}) == attempts + 1
  assert {run['group'] for run in before} == {'one'}
  assert [run['name'] for run in before] == [
    'one', *(f'one, attempt {n}' for n in range(1, attempts + 1))
  ]  # fmt: skip
  assert {run['resume'] for run in before} == {'allow'}
  assert fake.finished == [run['id'] for run in before]
  config.total_images += 16 * 8
  state = loop.train(config, tmp_path / 'one')
  assert fake.inits[attempts + 1] == before[-1]
  assert int(state.step) == 104
  for steps in fake.steps.values():
    assert steps == sorted(set(steps))
  with run_log.RunLog(
    tmp_path / 'other', step=0, attempt=0, images=0, total_images=1, wandb=True
  ):
    assert fake.inits[-1]['id'] not in fake.finished  # another run


def test_attempts_differ_in_data_and_latents():
  from gan_jax.data.order import Stream
  from gan_jax.training.state import next_attempt

  state, seed = some_state()._replace(key=jax.random.key(0)), jax.random.key(0)
  keys = [next_attempt(state, seed, n).key for n in (1, 2)]
  # The key depends on the seed and the attempt alone, not on resumes.
  again = next_attempt(next_attempt(state, seed, 1), seed, 2).key
  data = lambda key: jax.random.key_data(key).tolist()
  assert data(again) == data(keys[1])
  assert len({tuple(data(key)) for key in (seed, *keys)}) == 3
  orders = [Stream(0, 50, n).indices(np.arange(50)).tolist() for n in range(3)]
  assert len({tuple(order) for order in orders}) == 3
  assert all(sorted(order) == list(range(50)) for order in orders)


# Health checks.


def test_diversity_by_hand():
  """Points 0, 3 and 4 away on two axes: distances 3, 4 and 5."""
  images = np.zeros((3, 1, 2, 1), np.float32)
  images[1, 0, 0], images[2, 0, 1] = 3, 4
  assert diversity(jnp.asarray(images)) == pytest.approx((3 + 4 + 5) / 3)
  alike = jnp.full((8, 4, 4, 3), 0.9)
  assert diversity(alike) == pytest.approx(0, abs=1e-6)


GOOD = {
  'gen/diversity': 0.8,
  'gen/loss_grad_norm': 0.1,
  'disc/loss_grad_norm': 0.1,
  'disc/real_accuracy': 0.7,
  'disc/fake_accuracy': 0.8,
}


@pytest.mark.parametrize(
  ('bad', 'lines', 'message'),
  [
    ({'gen/diversity': 0.03}, 2, 'its samples is 3% of'),
    ({'disc/loss_grad_norm': 1e-12}, 1, 'disc/loss_grad_norm is 1.0e-12'),
    (
      {'disc/real_accuracy': 0.999, 'disc/fake_accuracy': 1.0},
      10,
      'D separates reals from fakes perfectly',
    ),
  ],
)
def test_health_checks_warn_once_per_problem(bad, lines, message, capsys):
  """A warning is printed once, after `lines` bad log records in a row, and
  again if the metrics recover and turn bad again.
  """
  checks = HealthChecks(quiet_until=100)
  for _ in range(lines):
    checks.read(600, 50, {**GOOD, **bad})  # too few images seen
    checks.read(500, 150, {**GOOD, **bad})  # too few iterations
  checks.read(601, 150, GOOD)
  assert not capsys.readouterr().err
  for again in range(2):
    for line in range(lines + 5):
      checks.read(602, 200, {**GOOD, **bad})
      warnings = capsys.readouterr().err
      assert (message in warnings) == (line + 1 == lines), (again, line)
    checks.read(603, 300, GOOD)


def test_lazy_penalty_without_a_gradient_gives_no_warning(capsys):
  """A one-sided gradient penalty of a smooth D is 0, which is no problem."""
  checks = HealthChecks(quiet_until=0)
  lazy = {'disc/weighted_gradient_penalty_grad_norm': 0.0}
  checks.read(600, 1000, {**GOOD, **lazy})
  assert not capsys.readouterr().err


def test_health_check_metrics_are_logged(straight):
  line = json.loads((straight / 'metrics.jsonl').read_text().splitlines()[-1])
  for name in GOOD:
    assert np.isfinite(line[name]), name
  assert line['gen/diversity'] > 0
  assert 0 <= line['disc/real_accuracy'] <= 1


def test_collapsed_run_gives_a_warning(tmp_path, capsys, monkeypatch):
  """The generator returns the same image for all latents."""
  make = games.make

  def make_collapsed(*args):
    game = make(*args)
    constant = lambda *inputs: jnp.zeros_like(main_output(game).sample(*inputs))
    return game._replace(outputs={'images': Output(constant)})

  monkeypatch.setattr(games, 'make', make_collapsed)
  config = get_config('vanilla_mnist', 'tiny')
  loop.train(config, tmp_path / 'short')  # 24 iterations are too few
  assert 'Warning' not in capsys.readouterr().err
  config.total_images = 16 * 512
  config.log_every_steps = 4
  config.sample_every_images = config.checkpoint_every_images = 16 * 512
  loop.train(config, tmp_path / 'long')
  # The second line after 500 iterations: after 508, of 16 images each.
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(
    'Warning: at 8,128 images, G has collapsed: the distance'
  )
