"""Kills a run repeatedly and compares it with an undisturbed run.

  python tests/soak.py [--experiment=vanilla_mnist] [--kills=24] [--seed=0]

The script ends the run by SIGKILL at random moments, every third time during
the save of a checkpoint, and repeats the command. At the end all arrays of all
kept checkpoints, and the metrics, must equal those of an undisturbed run. No
attempt may repeat more than one interval between checkpoints, plus the save in
progress.
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
STEPS_PER_SAVE, STEPS_PER_LINE = 96, 8
BATCH = 16


def command(experiment, workdir, steps):
  """Returns a command: it saves every 96 iterations and logs every 8."""
  return [
    sys.executable,
    str(ROOT / 'launch.py'),
    f'--config=experiments/{experiment}.py:tiny',
    f'--workdir={workdir}',
    f'--config.total_images={steps * BATCH}',
    f'--config.checkpoint_every_images={STEPS_PER_SAVE * BATCH}',
    f'--config.sample_every_images={10 * STEPS_PER_SAVE * BATCH}',
    f'--config.log_every_steps={STEPS_PER_LINE}',
  ]


def environment():
  """Returns an environment with one device instead of the tests' several."""
  removed = ('XLA_FLAGS', 'NPROC')
  return {k: v for k, v in os.environ.items() if k not in removed}


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
  """Returns whether a checkpoint is being written."""
  return any('tmp' in path.name for path in workdir.glob('checkpoints/*'))


def last_logged(workdir):
  """Returns the last iteration in the complete lines of the metrics."""
  file = workdir / 'metrics.jsonl'
  lines = file.read_text().splitlines(keepends=True) if file.exists() else []
  complete = [json.loads(line) for line in lines if line.endswith('\n')]
  return complete[-1]['step'] if complete else 0


def run_and_kill(arguments, workdir, rng, inside_a_save):
  """Runs and kills an attempt.

  Returns:
    The iteration at which it began; whether it was killed during a save.
  """
  with start(arguments) as process:
    began, lines, num_lines = 0, 0, rng.randint(1, 30)
    for line in process.stdout:
      if line.startswith('Resuming at iteration'):
        began = int(line.split()[3].rstrip(',').replace(',', ''))
      lines += line.startswith('iteration')
      if lines >= num_lines:
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
    killed_in_a_save = saving(workdir)
  assert process.returncode == -9, f'the run ended early: {process.returncode}'
  return began, killed_in_a_save


def soak(folder, experiment='vanilla_mnist', kills=24, seed=0, steps=None):
  """Compares a killed with a straight run; returns the kills during a save."""
  # Long enough that no killed attempt reaches the end.
  steps = steps or (kills + 4) * 4 * STEPS_PER_SAVE
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
    began, killed_in_a_save = run_and_kill(
      arguments, killed, rng, kill % 3 == 2
    )
    redone = reached - began
    assert redone <= 2 * STEPS_PER_SAVE, f'{redone} iterations were repeated'
    reached = last_logged(killed)
    inside += killed_in_a_save
    print(
      f'kill {kill + 1:2}: from iteration {began:5}, killed after {reached:5}'
      + (', during a save' if killed_in_a_save else ''),
      flush=True,
    )
  subprocess.run(
    arguments, cwd=ROOT, env=environment(), check=True, capture_output=True
  )
  compare(straight, killed)
  return inside


def compare(straight, killed):
  """Compares all arrays of all checkpoints, the metrics, and TensorBoard."""
  sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
  from runs import logged_steps, metrics, state_arrays

  from gan_jax.training import checkpoint

  steps = checkpoint.steps(straight)
  assert steps == checkpoint.steps(killed)
  for step in steps:
    assert state_arrays(straight, step) == state_arrays(killed, step), step
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
    f'{args.kills} kills, {inside} of them during a save: the run equals the '
    'undisturbed run bit for bit'
  )


if __name__ == '__main__':
  main()
