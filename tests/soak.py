"""Kills a run again and again, and ends with the run that was never killed.

  python tests/soak.py [--experiment=vanilla_mnist] [--kills=24] [--seed=0]

Each life of the run ends by SIGKILL at a random moment, every third one inside
the save of a checkpoint; the same command goes on. At the end every array of
every checkpoint that is kept, and the metrics, must be those of a run that
nothing disturbed; and no life may have redone more than one interval between
checkpoints, and the save that was in flight.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS_A_SAVE, ROUNDS_A_LINE = 96, 8
BATCH = 16


def command(experiment, workdir, steps):
  """The run: saves every 96 iterations of 16 images, and logs every 8."""
  return [
    sys.executable,
    str(ROOT / 'launch.py'),
    f'--config=experiments/{experiment}.py:tiny',
    f'--workdir={workdir}',
    f'--config.total_images={steps * BATCH}',
    f'--config.checkpoint_every_images={ROUNDS_A_SAVE * BATCH}',
    f'--config.sample_every_images={10 * ROUNDS_A_SAVE * BATCH}',
    f'--config.log_every_steps={ROUNDS_A_LINE}',
  ]


def environment():
  """One device: the tests' several would share these cores."""
  several = ('XLA_FLAGS', 'NPROC')
  return {k: v for k, v in os.environ.items() if k not in several}


def start(arguments):
  return subprocess.Popen(
    arguments,
    cwd=ROOT,
    env={**environment(), 'PYTHONUNBUFFERED': '1'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def saving(workdir):
  """Whether a checkpoint is being written at this moment."""
  return any('tmp' in path.name for path in workdir.glob('checkpoints/*'))


def last_logged(workdir):
  """The last iteration in the metrics, whole lines alone."""
  file = workdir / 'metrics.jsonl'
  lines = file.read_text().splitlines(keepends=True) if file.exists() else []
  whole = [json.loads(line) for line in lines if line.endswith('\n')]
  return whole[-1]['step'] if whole else 0


def live(arguments, workdir, rng, inside_a_save):
  """One life: -> the iteration it began at, and whether it died in a save."""
  with start(arguments) as process:
    began, lines, wanted = 0, 0, rng.randint(1, 30)
    for line in process.stdout:
      if line.startswith('Resuming at iteration'):
        began = int(line.split()[3].rstrip(',').replace(',', ''))
      lines += line.startswith('iteration')
      if lines >= wanted:
        break
    if inside_a_save:
      deadline = time.monotonic() + 20
      while not saving(workdir) and time.monotonic() < deadline:
        if process.poll() is not None:
          break
      time.sleep(rng.uniform(0, 0.02))
    else:
      time.sleep(rng.uniform(0, 0.2))
    process.kill()
    process.stdout.read()
    died_in_a_save = saving(workdir)
  assert process.returncode == -9, f'it ended by itself: {process.returncode}'
  return began, died_in_a_save


def soak(folder, experiment='vanilla_mnist', kills=24, seed=0, steps=None):
  """Runs both, and compares; -> how many deaths were inside a save."""
  # Enough that no life reaches the end, few enough that the last one does.
  steps = steps or (kills + 4) * 4 * ROUNDS_A_SAVE
  rng = random.Random(seed)
  straight, killed = folder / 'straight', folder / 'killed'
  subprocess.run(
    command(experiment, straight, steps),
    cwd=ROOT,
    env=environment(),
    check=True,
    stdout=subprocess.DEVNULL,
  )
  arguments = command(experiment, killed, steps)
  reached, inside = 0, 0
  for kill in range(kills):
    began, died_in_a_save = live(arguments, killed, rng, kill % 3 == 2)
    redone = reached - began
    assert redone <= 2 * ROUNDS_A_SAVE, f'{redone} iterations were redone'
    reached = last_logged(killed)
    inside += died_in_a_save
    print(
      f'death {kill + 1:2}: from iteration {began:5}, died after {reached:5}'
      + (', inside a save' if died_in_a_save else ''),
      flush=True,
    )
  subprocess.run(
    arguments, cwd=ROOT, env=environment(), check=True, capture_output=True
  )
  compare(straight, killed)
  return inside


def compare(straight, killed):
  """Every array of every checkpoint, the metrics, and TensorBoard."""
  sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
  from runs import everything, logged_steps, metrics

  from gan_jax.training import checkpoint

  steps = checkpoint.steps(straight)
  assert steps == checkpoint.steps(killed)
  for step in steps:
    assert everything(straight, step) == everything(killed, step), step
  assert metrics(straight) == metrics(killed)
  assert logged_steps(straight) == logged_steps(killed)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--experiment', default='vanilla_mnist')
  parser.add_argument('--kills', type=int, default=24)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    inside = soak(Path(folder), args.experiment, args.kills, args.seed)
  print(
    f'{args.kills} deaths, {inside} of them inside a save: bit for bit the run '
    'that was never killed'
  )


if __name__ == '__main__':
  main()
