"""What a user sees who makes a mistake: one line, and nothing written."""

import importlib.util
import subprocess

import pytest
from conftest import ROOT, launch

VANILLA = '--config=experiments/vanilla_mnist.py:tiny'
DCGAN = '--config=experiments/dcgan_folder.py:tiny'

MISTAKES = [
  ([], 'name an experiment: --config=experiments/'),
  (['--config=experiments/vanila_mnist.py'], "did you mean 'experiments/van"),
  (['--config=experiments/vanilla_mnist.py:tinny'], "argument 'tinny'"),
  ([VANILLA, '--config.sede=1'], "no key 'sede'; did you mean 'seed'?"),
  (
    [VANILLA, '--config.optimizer.gen.learning_rat=1'],
    "did you mean 'optimizer.gen.learning_rate'?",
  ),
  ([VANILLA, '--config.batch_size=many'], "int() with base 10: 'many'"),
  ([VANILLA, '--config.total_images=1.5'], "int() with base 10: '1.5'"),
  ([VANILLA, '--config.model.gen.hidden=(32,"a")'], 'not of the kind of (32,)'),
  ([VANILLA, '--config.model=mlp'], 'config.model is a block'),
  ([VANILLA, '--confg=1'], 'Did you mean: config'),
  ([VANILLA, '--mode=trian'], 'should be one of <train'),
  ([VANILLA, 'seed=1'], "what is 'seed=1'?"),
  ([VANILLA, '--config.batch_size=0'], 'config.batch_size=0 must be positive'),
  (
    [VANILLA, '--config.optimizer.gen.learning_rate=nan'],
    'learning_rate=nan must be positive',
  ),
  ([VANILLA, '-config.sede=1'], "no key 'sede'"),
  ([VANILLA, '--noconfig.data.flop'], "did you mean 'data.flip'?"),
  ([VANILLA, '--config.game.latent_dim=0'], 'latent_dim=0 must be positive'),
  ([VANILLA, '--config.model.disc.dropout=1'], 'dropout=1.0 must be from 0'),
  ([VANILLA, '--config.game.name=imag'], "did you mean 'image'?"),
  ([VANILLA, '--config.game.loss.name=minmax'], "did you mean 'minimax'?"),
  ([VANILLA, '--config.game.latent=normal'], 'valid: gaussian, sphere, unif'),
  ([VANILLA, '--config.model.gen.name=dcgn'], "did you mean 'dcgan'?"),
  ([VANILLA, '--config.model.gen.activation=rel'], "did you mean 'relu'?"),
  ([VANILLA, '--config.optimizer.gen.name=adan'], "did you mean 'adam'?"),
  (
    [VANILLA, '--config.optimizer.gen.name=rmsprop'],
    "config.optimizer.gen has no key 'b1' (valid: decay, eps)",
  ),
  ([VANILLA, '--config.precision=float16'], 'valid: bfloat16, float32'),
  ([VANILLA, '--config.parallel=pmp'], "did you mean 'pmap'?"),
  ([VANILLA, '--config.data.source=digitz'], "did you mean 'digits'?"),
  ([VANILLA, '--config.data.channels=4'], 'is 1 (grey) or 3 (RGB), not 4'),
  ([DCGAN, '--config.data.resolution=28'], '16, 32, 64 or 128 pixels, not 28'),
  ([DCGAN, '--config.data.source=folder:'], 'name one of images'),
]

if importlib.util.find_spec('wandb') is None:
  MISTAKES += [([VANILLA, '--config.wandb=True'], "pip install -e '.[wandb]'")]


@pytest.mark.parametrize(('flags', 'message'), MISTAKES)
def test_a_mistake_is_one_line(flags, message, tmp_path):
  workdir = tmp_path / 'run'
  result = subprocess.run(
    launch(*flags, f'--workdir={workdir}'),
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert line.startswith('launch.py: ')
  assert message in line
  assert not result.stdout
  assert not workdir.exists()


def test_a_broken_experiment(tmp_path):
  broken = tmp_path / 'broken.py'
  for text, message in (
    ('def get_config(:', 'SyntaxError'),
    ('x = 1', "KeyError: 'get_config'"),
  ):
    broken.write_text(text)
    result = subprocess.run(
      launch(f'--config={broken}'),
      cwd=tmp_path,
      capture_output=True,
      text=True,
      check=False,
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert message in line


def test_the_derived_workdir_is_printed_and_resumed(tmp_path):
  """Named by the experiment and by what changes it; not by what does not."""
  command = launch(
    '--config', ROOT / 'experiments/vanilla_mnist.py:tiny',
    '--config.seed=5', '--config.log_every_steps=8',
  )  # fmt: skip
  run = lambda: subprocess.run(
    command, cwd=tmp_path, capture_output=True, text=True, check=True
  )
  first = run().stdout
  assert 'runs/vanilla_mnist-tiny,seed=5\n' in first
  assert "gan_jax.load('runs/vanilla_mnist-tiny,seed=5')" in first
  assert 'round 24/24' in first
  assert (tmp_path / 'runs' / 'vanilla_mnist-tiny,seed=5').is_dir()
  second = run().stdout
  assert 'Resuming at round 24' in second
  assert 'round 24/24' not in second
