"""Stands in for launch.py in sweeps: takes milliseconds and trains nothing.

It logs metrics, saves every 5 of its 30 iterations, resumes, locks its workdir,
and exits with 75 on SIGTERM. Its score is a function of its flags. It records
its start and its end in the file EVENTS. MANNERS, {trial: manner}, makes a
trial misbehave.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

STEPS, SAVE_EVERY = 30, 5
PAUSE = float(os.environ.get('PAUSE', 0.01))
# Host 0 of a slice does the work.
HOST = int(os.environ.get('TPU_WORKER_ID', 0))


def flag(name, default):
  given = dict(arg[2:].split('=', 1) for arg in sys.argv[1:] if '=' in arg)
  return type(default)(given.get(name, default))


WORKDIR = Path(flag('workdir', ''))
TRIAL_ID = int(WORKDIR.name)
RATE = flag('config.optimizer.gen.learning_rate', 0.0)
SEED = flag('config.seed', 0)


def score(step):
  """Falls with each iteration, to 1000 * rate + seed after the last."""
  return 1000 * RATE + SEED + (STEPS - step) / 10


def note(what, **more):
  line = {'what': what, 'trial_id': TRIAL_ID, 'time': time.time(), **more}
  with open(os.environ['EVENTS'], 'a') as file:
    file.write(json.dumps({**line, 'pid': os.getpid()}) + '\n')


def leave(code, line=''):
  if line:
    print(line, file=sys.stderr, flush=True)
  note('end', code=code)
  (WORKDIR / 'ended').touch()
  os._exit(code)


def follow():
  """Acts as another host of a slice: ends when host 0 has ended."""
  note('follow')
  (WORKDIR / 'followed').touch()
  while not (WORKDIR / 'ended').exists():
    time.sleep(0.02)
  os._exit(0)


def main():
  stop = []
  signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
  manner = json.loads(os.environ.get('MANNERS', '{}')).get(f'{TRIAL_ID}', '')
  WORKDIR.mkdir(parents=True, exist_ok=True)
  if HOST:
    follow()
  with (WORKDIR / '.lock').open('w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      leave(2, 'launch.py: the workdir is in use')
    # As JAX does, host 0 waits for the other host of its slice.
    while 'TPU_NAME' in os.environ and not (WORKDIR / 'followed').exists():
      time.sleep(0.02)
    run(manner, stop)


def run(manner, stop):
  saved, metrics = (
    WORKDIR / 'checkpoints' / 'iteration',
    WORKDIR / 'metrics.jsonl',
  )
  saved.parent.mkdir(exist_ok=True)
  begin = int(saved.read_text()) if saved.exists() else 0
  lines = metrics.read_text().splitlines() if metrics.exists() else []
  metrics.write_text(''.join(f'{line}\n' for line in lines[:begin]))
  if begin == STEPS:
    os._exit(0)  # the run was complete
  note('begin', step=begin, argv=sys.argv)
  if manner == 'fail':
    leave(1, "Traceback:\nValueError: it's the config")
  for step in range(begin + 1, STEPS + 1):
    time.sleep(PAUSE)
    with metrics.open('a') as file:
      line = {
        'step': step,
        'images': 16 * step,
        'gen/diversity': score(step),
      }
      file.write(json.dumps(line) + '\n')
    if step % SAVE_EVERY == 0 or stop:
      saved.write_text(f'{step}')
    if stop and manner != 'deaf':
      leave(75, f'Preempted, saved at iteration {step}')
    if step == 12 and manner == 'diverge':
      leave(3, 'launch.py: gen/loss not finite at iteration 12')
    if (step == 12 and manner == 'die once' and not begin) or manner == 'die':
      note('end', code=-9)
      os.kill(os.getpid(), signal.SIGKILL)
  leave(0)


if __name__ == '__main__':
  main()
