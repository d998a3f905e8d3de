"""Tests of launch.py: a user error is one line, and nothing is written."""

import functools
import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess

import pytest
from conftest import ROOT, launch, running
from PIL import Image

import gan_jax
from gan_jax.files import point_link
from gan_jax.metrics import scores
from gan_jax.training import checkpoint

VANILLA = '--config=experiments/vanilla_mnist.py:tiny'
DCGAN = '--config=experiments/dcgan_folder.py:tiny'

USER_ERRORS = [
  ([], 'name an experiment: --config=experiments/'),
  (['--config=experiments/vanila_mnist.py'], "did you mean 'experiments/van"),
  (['--config=experiments/vanilla_mnist.py:tinny'], "argument 'tinny'"),
  ([VANILLA, '--config.sede=1'], "no key 'sede'; did you mean 'seed'?"),
  (
    [VANILLA, '--config.optimizer.gen.learning_rat=1'],
    "did you mean 'optimizer.gen.learning_rate'?",
  ),
  (
    [VANILLA, '--config.batch_size=1e3'],
    '--config.batch_size=1e3 must be an integer (type 1000)',
  ),
  (
    [VANILLA, '--config.batch_size=many'],
    '--config.batch_size=many must be an integer (for example "16")',
  ),
  (
    [VANILLA, '--config.total_images=1.5'],
    '--config.total_images=1.5 must be an integer',
  ),
  (
    [VANILLA, '--config.optimizer.gen.b1=x'],
    '--config.optimizer.gen.b1=x must be a number (for example "0.0")',
  ),
  (
    [VANILLA, '--config.data.flip=maybe'],
    '--config.data.flip=maybe must be True or False (for example "False")',
  ),
  (
    [VANILLA, '--config.model.gen.hidden=(32,'],
    '--config.model.gen.hidden=(32, must be a tuple (for example "(32,)")',
  ),
  ([VANILLA, '--trials=x'], '--trials=x must be an integer'),
  ([VANILLA, '--config.model.gen.hidden=(32,"a")'], 'must be an integer'),
  ([VANILLA, '--config.model=mlp'], 'config.model is a block'),
  ([VANILLA, '--confg=1'], "no flag --confg; did you mean '--config'?"),
  ([VANILLA, '--truncaton=1'], "did you mean '--truncation'?"),
  ([VANILLA, '--x=1'], 'no flag --x (flags: --config, --config.KEY, --work'),
  ([VANILLA, '--mode=trian'], 'should be one of <train'),
  ([VANILLA, 'seed=1'], "unexpected argument 'seed=1': flags"),
  ([VANILLA, '--config.batch_size=0'], 'config.batch_size=0 must be positive'),
  (
    [VANILLA, '--config.optimizer.gen.learning_rate=nan'],
    'learning_rate=nan must be positive',
  ),
  ([VANILLA, '-config.sede=1'], "no key 'sede'"),
  ([VANILLA, '--noconfig.data.flop'], "did you mean 'data.flip'?"),
  ([VANILLA, '--config.game.latent_dim=0'], 'latent_dim=0 must be positive'),
  (
    [VANILLA, '--config.model.disc.dropout=1'],
    'dropout=1.0 must be at least 0 and less than 1',
  ),
  ([VANILLA, '--config.game.name=imag'], "did you mean 'image'?"),
  ([VANILLA, '--config.game.loss.name=minmax'], "did you mean 'minimax'?"),
  ([VANILLA, '--config.game.latent=normal'], 'valid: gaussian, sphere, unif'),
  ([VANILLA, '--config.model.gen.name=dcgn'], "did you mean 'dcgan'?"),
  ([VANILLA, '--config.model.gen.activation=rel'], "did you mean 'relu'?"),
  ([VANILLA, '--config.optimizer.gen.name=adan'], "did you mean 'adam'?"),
  ([VANILLA, '--batch_size=8'], "did you mean '--config.batch_size'?"),
  (
    [VANILLA, '--config.optimizer.gen.lr=1'],
    '(valid: optimizer.gen.b1, optimizer.gen.b2, optimizer.gen.learning_rate,',
  ),
  ([VANILLA, '--config.optimizer.gen.b1=7'], 'at least 0 and less than 1'),
  (
    [
      VANILLA,
      '--config.game.loss.name=hinge',
      '--config.game.loss.real_label=0.9',
    ],
    "config.game.loss has no key 'real_label' (valid for hinge: none)",
  ),
  (
    [VANILLA, '--config.model.gen.negative_slope=0.3'],
    'negative_slope has no effect: config.model.gen.activation is relu',
  ),
  (
    [
      '--config=experiments/losses_mnist.py:tiny',
      '--config.game.penalties.dragan.target=2',
    ],
    'dragan.target has no effect: config.game.penalties.dragan.weight is 0',
  ),
  (
    ['--config=experiments/progressive_folder.py', '--config.batch_size=8'],
    'batch_size has no effect: each segment of config.schedule has its own',
  ),
  ([VANILLA, '--config.ema_rampup=nan'], 'ema_rampup=nan must be positive'),
  ([VANILLA, '--config.ema_rampup=-1'], 'ema_rampup=-1.0 must be positive'),
  ([VANILLA, '--config.data.max_device_bytes=-1'], 'must be 0 or more'),
  ([VANILLA, '--config.data.workers=1000'], 'must be from 0 to 256'),
  (
    [VANILLA, '--config.optimizer.gen.learning_rate=1e30'],
    'learning_rate=1e+30 must be greater than 0 and at most 10',
  ),
  ([VANILLA, '--config.seed=-1'], 'seed=-1 must be 0 or more'),
  ([VANILLA, '--config.seed=99999999999'], 'must be from 0 to 4,294,967,295'),
  ([VANILLA, '--config.game.loss.real_label=5'], 'must be in (0, 1]'),
  ([VANILLA, '--config.model.gen.hidden=(0,)'], 'hidden=(0,) must be positive'),
  ([VANILLA, '--config.precision=float16'], 'valid: bfloat16, float32'),
  ([VANILLA, '--config.parallel=pmp'], "did you mean 'pmap'?"),
  ([VANILLA, '--config.data.source=digitz'], "did you mean 'digits'?"),
  (
    [VANILLA, '--mode=benchmark', '--config.data.source=digitz'],
    "did you mean 'digits'?",
  ),
  ([VANILLA, '--step=best'], '--step needs --mode=apply or evaluate or '),
  ([VANILLA, '--trials=3'], '--trials needs --mode=sweep'),
  (
    [VANILLA, '--mode=sweep', '--num_processes=2'],
    'a sweep has one driver process: remove',
  ),
  ([VANILLA, '--mode=sweep', '--sweep=x'], 'sweep of experiments/vanilla_mnis'),
  ([VANILLA, '--mode=sweep', '--executor=slrm'], "'slrm' (valid: local, ray)"),
  ([VANILLA, '--mode=sweep', '--parallel_trials=0'], '=0 must be 1 or more'),
  ([VANILLA, '--mode=sweep', '--trials=0'], '--trials=0 must be 1 or more'),
  (
    ['--config=experiments/cgan_digits.py', '--mode=sweep'],
    'declares no sweep',
  ),
  ([VANILLA, '--mode=evaluate'], 'is not the workdir of a run'),
  (['--compare=runs/one,runs/two'], 'only --score: remove --workdir'),
  ([VANILLA, '--score=swd'], '--score needs --compare=WORKDIR,WORKDIR'),
  (['--mode=generate', '--init=runs/one'], '--init needs --mode=train'),
  (
    [
      VANILLA,
      '--config.evaluation.every_images=64',
      "--config.evaluation.metrics=('fidd',)",
    ],
    "did you mean 'fid'?",
  ),
  ([VANILLA, '--config.data.channels=4'], 'must be 1 (grey) or 3 (RGB), not 4'),
  ([DCGAN, '--config.data.resolution=28'], '16, 32, 64 or 128 pixels, not 28'),
  ([DCGAN, '--config.data.source=folder:'], 'folder:/path/to/images'),
  (
    [VANILLA, '--config.batch_size=3', '--config.steps_per_dispatch=-1'],
    'steps_per_dispatch=-1 must be positive',
  ),
  (
    [VANILLA, '--config.batch_size=3'],
    'not divisible by 2 devices: set 2 or 4',
  ),
  ([VANILLA, '--config.ema_halflife_images=-1'], 'images=-1 must be 0 or more'),
  ([VANILLA, '--config.total_images=-5'], 'total_images=-5 must be positive'),
  ([VANILLA, '--config.data.resolution=0'], 'resolution=0 must be positive'),
  ([VANILLA, '--config.data.crop=0'], 'config.data.crop=0 must be positive'),
  (
    [VANILLA, '--config.data.crop=40'],
    'crop=40 is larger than an image of 28x',
  ),
  ([VANILLA, '--config.data.workers=-1'], 'workers=-1 must be 0 or more'),
  ([VANILLA, '--config.data.split=test'], 'digits has no splits'),
  (
    [VANILLA, '--config.data.files=/x'],
    'digits does not use config.data.file',
  ),
  ([VANILLA, '--config.on_divergence=rollbak'], "did you mean 'rollback'?"),
  (
    [VANILLA, '--config.data.source=mnist', '--config.data.files=/nowhere'],
    '/nowhere does not exist: --config.data.files must name the',
  ),
  (
    [VANILLA, '--config.data.source=mnist:/path'],
    'mnist takes no path: name the folder of its files with --conf',
  ),
  (
    [VANILLA, '--config.data.source=tfds:emnist', '--config.data.dir=/nowhere'],
    'emnist is not prepared in /nowhere: run the same command with --mode=',
  ),
  (
    [VANILLA, '--config.data.resolution=4096'],
    '5,000 images of 4096x4096 take 83.9 GB, but this machine has',
  ),
  (
    # A matrix of 65,536^2, four times: weights, two Adam moments, the average.
    [VANILLA, '--config.model.gen.hidden=(65536,65536)'],
    'but a device has',
  ),
  ([VANILLA, '--num_processes=2'], 'need an address: --coordinator_address='),
  (
    [VANILLA, '--coordinator_address=localhost:1'],
    '--coordinator_address needs --num_processes and --process_id',
  ),
]

if importlib.util.find_spec('wandb') is None:
  USER_ERRORS += [
    ([VANILLA, '--config.wandb=True'], "pip install -e '.[wandb]'")
  ]


@pytest.mark.parametrize(('flags', 'message'), USER_ERRORS)
def test_user_error_is_one_line(forks, flags, message, tmp_path):
  done = forks.run(*flags, f'--workdir={tmp_path / "new"}')
  assert done.returncode == 2
  assert not done.stdout
  (line,) = done.stderr.splitlines()
  assert line.startswith('launch.py: ')
  assert message in line
  assert not (tmp_path / 'new').exists()


CONFIG = """
from experiments import vanilla_mnist
def get_config(arg=''):
  config = vanilla_mnist.get_config('tiny')
  {}
  return config
"""


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('def get_config(:', 'SyntaxError'),
    ('x = 1', "KeyError: 'get_config'"),
    ('def get_config():\n  return 1 / 0', 'broken.py:2 failed: Zero'),
    ('def get_config():\n  return {}', 'must return a ConfigDict'),
    (CONFIG.format('config.batchsize = 4'), "did you mean 'batch_size'?"),
    (CONFIG.format('del config.seed'), 'the config has no key seed'),
    (
      CONFIG.format('config.optimizer.gen.bb1 = 0.1'),
      "config.optimizer.gen has no key 'bb1'; did you mean 'b1'?",
    ),
  ],
)
def test_broken_experiment_is_one_line(forks, text, message, tmp_path):
  (tmp_path / 'broken.py').write_text(text)
  result = forks.run('--config=broken.py', cwd=tmp_path)
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert message in line
  assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--compare='], 'compare needs at least two runs'),
    (['--compare=runs/one'], 'compare needs at least two runs'),
    (['--compare=nowhere,runs/two'], 'nowhere is not the workdir of a run'),
    (['--compare=a,b', '--compare=c'], 'a,b is not the workdir of a run'),
    (['--compare=a,b', VANILLA], '--compare takes only --score: remove --conf'),
    (['--compare=a,b', '--mode=film'], 'only --score: remove --mode'),
  ],
)
def test_wrong_compare_flags_are_one_line(forks, flags, message):
  done = forks.run(*flags)
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert message in line


@pytest.mark.parametrize('flag', ['--help', '--helpfull'])
def test_help_into_a_closed_pipe_prints_no_error(flag):
  """As with `| head -1`, whether the output fills the buffer or not."""
  reader, writer = os.pipe()
  os.close(reader)
  done = subprocess.run(
    launch(flag), cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True,
    check=False,
  )  # fmt: skip
  os.close(writer)
  assert done.returncode
  assert done.stderr == ''


@pytest.mark.parametrize('flag', ['--dry_run', '--parallel_trials=0'])
def test_closed_stdout_gives_no_traceback(flag):
  """As with `| head -1`: the exit code is that of a tool ended by SIGPIPE.

  Errors are printed nevertheless.
  """
  reader, writer = os.pipe()
  os.close(reader)
  done = subprocess.run(
    launch(VANILLA, '--mode=sweep', flag), cwd=ROOT, stdout=writer,
    stderr=subprocess.PIPE, text=True, check=False,
  )  # fmt: skip
  os.close(writer)
  if flag == '--dry_run':
    assert (done.returncode, done.stderr) == (141, '')
  else:
    assert done.returncode == 2
    assert done.stderr.startswith('launch.py: --parallel_trials=0 must be')


def test_workdir_with_other_files_is_refused(forks, tmp_path):
  (tmp_path / 'holiday.png').write_bytes(b'')
  result = forks.run(VANILLA, f'--workdir={tmp_path}')
  assert result.returncode == 2
  assert "holds no run, but 'holiday.png'" in result.stderr


@pytest.mark.parametrize('folder', ['/proc/nowhere', 'file/below'])
def test_unwritable_workdir_is_refused(forks, tmp_path, folder):
  (tmp_path / 'file').touch()
  result = forks.run(VANILLA, f'--workdir={tmp_path / folder}')
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert f'cannot write to {tmp_path / folder}' in line


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({}, '0 images, but at least 2 are needed'),
    ({'a.png': 1}, '1 images, but at least 2 are needed'),
    ({'a.png': 0, 'b.jpg': 0, 'c.webp': 0}, '3 of 3 files in'),
    ({'a.tiff': 1, 'b.txt': 1}, '0 images, but at least 2 are needed'),
  ],
)
def test_folder_without_enough_images_is_refused(
  forks, tmp_path, files, message
):
  folder = tmp_path / 'pictures'
  folder.mkdir()
  for name, good in files.items():
    (folder / name).write_bytes(b'')
    if good:
      Image.new('L', (16, 16)).save(folder / name, 'PNG')
  source = f'--config.data.source=folder:{folder}'
  result = forks.run(DCGAN, source, f'--workdir={tmp_path}/run')
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert message in line
  assert not (tmp_path / 'run').exists()


def test_none_as_a_flag_gives_another_run(forks, tmp_path):
  """The run has another default workdir."""
  flags = (
    f'--config={ROOT}/experiments/vanilla_mnist.py:tiny',
    '--config.ema_rampup=None',
    '--config.evaluation.every_images=None',
  )
  done = forks.run(*flags, cwd=tmp_path, check=True)
  workdir = (tmp_path / 'runs' / 'latest').resolve()
  assert re.fullmatch('vanilla_mnist-tiny-[0-9a-f]{8}', workdir.name)
  settings = json.loads((workdir / 'config.json').read_text())
  assert settings['ema_rampup'] is None
  assert 'Done' in done.stdout
  result = forks.run(*flags, '--config.batch_size=None', cwd=tmp_path)
  assert result.returncode == 2


def test_total_images_below_the_trained_images_is_refused(forks, vanilla):
  """Nothing is overwritten."""
  before = (vanilla / 'config.json').read_text()
  flags = f'--workdir={vanilla}', '--config.total_images=100'
  less = forks.run(VANILLA, *flags)
  assert less.returncode == 2
  (line,) = less.stderr.splitlines()
  assert 'config.total_images=100 is below the 384 images that' in line
  assert (vanilla / 'config.json').read_text() == before


def test_workdir_of_another_run_lists_differences(forks, vanilla):
  flags = '--config.seed=3', '--config.log_every_steps=8'
  other = forks.run(VANILLA, f'--workdir={vanilla}', *flags)
  assert other.returncode == 2
  (line,) = other.stderr.splitlines()
  assert 'holds another run' in line
  assert 'seed (0 there, 3 here)' in line
  assert 'log_every_steps' not in line


def test_another_optimizer_needs_only_its_name(forks, tmp_path):
  """The settings of Adam are removed, and a line names them."""
  flag = '--config.optimizer.gen.name=sgd'
  done = forks.run(VANILLA, flag, f'--workdir={tmp_path}/run', check=True)
  note = 'optimizer.gen.name=sgd does not take optimizer.gen.b1, optimizer.gen'
  assert f'Removed: {note}.b2\n' in done.stdout
  settings = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert settings['optimizer']['gen'].keys() == {'name', 'learning_rate'}


def test_run_with_a_decaying_rate_keeps_its_length(forks, tmp_path):
  """Another length would change the run from its first iteration on."""
  (tmp_path / 'falling.py').write_text(
    'from experiments import vanilla_mnist\n'
    'def get_config(arg):\n'
    '  config = vanilla_mnist.get_config(arg)\n'
    "  falling = {'gen_learning_rate_factor': ('linear', 1.0, 0.0)}\n"
    '  config.schedule = (falling,)\n'
    '  return config\n'
  )
  own = f'--config={tmp_path}/falling.py:tiny', f'--workdir={tmp_path}/run'
  done = forks.run(*own, check=True)
  assert '0.0002 to 0 (linear)' in done.stdout
  longer = forks.run(*own, '--config.total_images=768')
  assert longer.returncode == 2
  (line,) = longer.stderr.splitlines()
  assert 'total_images=768, but ' in line
  assert 'was started with 384' in line
  assert 'keep it, or choose another --workdir' in line


def test_diverged_run_saves_no_checkpoint(forks, tmp_path):
  flags = (
    '--config.game.loss.name=least_squares',
    '--config.optimizer.disc.name=sgd',
    '--config.optimizer.disc.learning_rate=10',
  )
  result = forks.run(VANILLA, *flags, f'--workdir={tmp_path}/run')
  assert result.returncode == 3  # distinguishes divergence from a user error
  (line,) = result.stderr.splitlines()
  assert re.search(r'/loss\S* not finite at iteration \d+: training has', line)
  assert not list((tmp_path / 'run' / 'checkpoints').glob('[0-9]*'))


@pytest.mark.processes
def test_ctrl_c_saves_and_exits(tmp_path):
  """An interrupted run saves all completed iterations."""
  command = launch(
    VANILLA, '--config.total_images=100000000', f'--workdir={tmp_path}/run',
    '--config.checkpoint_every_images=100000000',
  )  # fmt: skip
  with running(command, until='iteration 40 ') as process:
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
  assert process.returncode == 130
  (step,) = checkpoint.steps(tmp_path / 'run')
  assert step >= 40
  assert f'Interrupted, saved at iteration {step:,}' in rest


def default_workdir(forks, *flags):
  """Returns the default workdir of a command line."""
  code = 'launch.parse(sys.argv); print(launch.default_workdir())'
  config = f'--config={ROOT}/experiments/vanilla_mnist.py'
  return forks.run(config, *flags, check=True, code=code).stdout.strip()


def test_default_workdir_depends_on_changed_settings(forks):
  """It does not depend on how the settings are typed."""
  name = functools.partial(default_workdir, forks)
  assert name() == 'runs/vanilla_mnist'
  # Values of the file, and keys that may change in a run, have no effect.
  assert name('--config.seed=0', '--config.parallel=pmap') == name()
  rate = '--config.optimizer.gen.learning_rate='
  other = name('--config.seed=5', f'{rate}1e-3')
  assert re.fullmatch('runs/vanilla_mnist-[0-9a-f]{8}', other)
  assert name(f'{rate}0.001', '--config.seed', '5') == other
  others = [
    name('--config.seed=5'),
    name('--config.seed=6'),
    name('--config.seed=5', f'{rate}2e-3'),
    name('--config.data.source=folder:/a,b/../c=d'),
    name('--config.ema_rampup=None'),
  ]
  assert len({other, *others}) == 6
  digest = hashlib.sha256(b'{"seed": 5}').hexdigest()[:8]
  assert others[0] == f'runs/vanilla_mnist-{digest}'
  assert others[0] in (ROOT / 'README.md').read_text()
  assert all(re.fullmatch('runs/[A-Za-z0-9._-]+', one) for one in others)
  assert name('--mode=sweep') == 'runs/vanilla_mnist-sweep'
  sweep = name('--mode=sweep', '--sweep=my rates', '--config.seed=5')
  assert sweep == f'{others[0]}-sweep-my_rates'
  tiny = name(f'--config={ROOT}/experiments/vanilla_mnist.py:tiny')
  assert tiny == 'runs/vanilla_mnist-tiny'
  toy = name(f'--config={ROOT}/experiments/toy.py:grid,wgan_gp')
  assert toy == 'runs/toy-grid-wgan_gp'  # no comma: see --compare
  sweep = name(f'--config={ROOT}/experiments/toy.py:ring', '--mode=sweep')
  assert sweep == 'runs/toy-ring-sweep'


def test_latest_link_points_to_the_newest_run(tmp_path):
  """The link is relative and is replaced; a folder of its name is kept."""
  link = tmp_path / 'runs' / 'latest'
  for name in ('one', 'two'):
    (tmp_path / 'runs' / name).mkdir(parents=True)
    point_link(link, tmp_path / 'runs' / name)
    assert str(link.readlink()) == name
  link.unlink()
  link.mkdir()
  (link / 'config.json').touch()
  point_link(link, tmp_path / 'runs' / 'one')
  assert [path.name for path in link.iterdir()] == ['config.json']
  names = {path.name for path in link.parent.iterdir()}
  assert names == {'one', 'two', 'latest'}


def test_file_system_without_links_gets_no_link(tmp_path, monkeypatch):
  def refuse(*args, **kwargs):
    raise OSError('no links here')

  monkeypatch.setattr(os, 'symlink', refuse)
  point_link(tmp_path / 'latest', tmp_path)
  assert not list(tmp_path.iterdir())


def test_default_workdir_is_printed_and_resumed(forks, tmp_path, monkeypatch):
  """Its name has the experiment and a hash of the changed settings."""
  flags = [f'--config={ROOT}/experiments/vanilla_mnist.py:tiny']
  forks.run(*flags, cwd=tmp_path, check=True)
  assert (tmp_path / 'runs' / 'latest').readlink().name == 'vanilla_mnist-tiny'
  flags += ['--config.seed=5', '--config.log_every_steps=8']
  first = forks.run(*flags, cwd=tmp_path, check=True).stdout
  workdir = f'runs/{(tmp_path / "runs" / "latest").readlink()}'
  assert re.fullmatch('runs/vanilla_mnist-tiny-[0-9a-f]{8}', workdir)
  assert f'Workdir:  {workdir}\n' in first
  assert 'Settings: log_every_steps=8, seed=5\n' in first
  assert f"gan_jax.load('{workdir}')" in first
  assert 'iteration 24  384/384 images' in first
  config, *others = flags
  second = forks.run(config, *reversed(others), cwd=tmp_path, check=True).stdout
  assert 'Resuming at iteration 24' in second
  assert 'Training is already complete (384 images)' in second
  assert 'images/s' not in second

  # Both runs can be opened and compared by these names.
  monkeypatch.chdir(tmp_path)
  latest = gan_jax.load('runs/latest')
  assert (latest.config.seed, latest.sample(2).shape) == (5, (2, 28, 28, 1))
  workdirs = ['runs/vanilla_mnist-tiny', workdir]
  for folder, value in zip(workdirs, (7.5, 2.5), strict=True):
    scores.record(folder, [scores.Score('fid', value, None, 24, 384, {})])
  table = forks.run(
    f'--compare={",".join(workdirs)}', cwd=tmp_path, check=True
  ).stdout
  rows = [line.split() for line in table.splitlines()[1:]]
  assert [(row[1], row[4]) for row in rows] == [
    (workdir, '2.5'), (workdirs[0], '7.5')
  ]  # fmt: skip
