"""Measures the speed of this code on an accelerator, in minutes.

  python -m benchmarks.accelerator
  python -m benchmarks.accelerator --experiments=experiments/dcgan_celeba.py
  python -m benchmarks.accelerator --tiny --minutes=3   # to try it, on a CPU

It writes accelerator.md and accelerator.json to --output, after each row:
device and versions; the speed of matrix products and of the memory; of each
experiment, in bfloat16 and float32, images/s, the share of the speed of
products, memory, compilation, the wait for input, and the best
steps_per_dispatch; PyTorch on the same networks; the kernels of the experiment
that is farthest from the speed of products. Each row is measured in a process
of its own. What does not fit into --minutes is skipped, and listed.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accelerator_page import in_digits, page
from benchmarks.peers.compare import reason

ROOT = Path(__file__).parents[1]
# The order of measurement; all others follow by name.
FIRST = (
  'dcgan_celeba', 'sngan_cifar10', 'stylegan2', 'r3gan', 'biggan',
  'progressive_celeba', 'wgangp_cifar10', 'cyclegan_folder', 'esrgan_folder',
)  # fmt: skip
NOT_IMAGES = 'base', 'toy', '__init__'
PRECISIONS = 'bfloat16', 'float32'
# (family, precision, batch) of the comparisons; the first is measured early.
PEERS = (
  ('dcgan64', 'bfloat16', 128), ('dcgan64', 'float32', 128),
  ('mlp', 'float32', 128),
)  # fmt: skip
AGAINST = 'torch', 'torch_tuned', 'torch_compiled', 'torch_graphs'
# A row that would have less time is not begun; the profile is left this much.
MIN_SECONDS, PROFILE_SECONDS = 20.0, 60.0
LENGTHS = '1,16'  # of steps_per_dispatch, beside the experiment's own
MEASUREMENT = '-m', 'benchmarks.measurement'


class Rows:
  """Measures rows while there is time.

  Args:
    deadline: The time, as of `time.monotonic`, at which all must have ended.
  """

  def __init__(self, deadline: float):
    self._deadline = deadline

  def measure(
    self, *command: str, reserve: float = 0.0, minimum: float = MIN_SECONDS
  ) -> dict[str, Any]:
    """Runs a command that prints lines of JSON; returns what they say.

    Args:
      *command: The words after `python`.
      reserve: The seconds that are left to what follows.
      minimum: The command is not begun with fewer seconds.

    Returns:
      The figures. 'problem' is a line that says why some or all are missing.
    """
    left = self._deadline - reserve - time.monotonic()
    if left < minimum:
      return {'problem': 'skipped: no time is left'}
    process = subprocess.Popen(
      [sys.executable, *command],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
    problem = None
    try:
      out, errors = process.communicate(timeout=left)
      if process.returncode:
        problem = reason(errors)
    except subprocess.TimeoutExpired:
      problem = f'stopped after {left:.0f} s: no time is left'
    finally:
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
    figures: dict[str, Any] = {}
    for line in out.splitlines():
      if line.startswith('{'):
        figures |= json.loads(line)
    return figures | ({'problem': problem} if problem else {})


def experiments(chosen: str | None, tiny: bool) -> list[str]:
  """Lists the experiments in the order in which they are measured."""
  if chosen:
    listed = chosen.split(',')
  else:
    names = [path.stem for path in sorted((ROOT / 'experiments').glob('*.py'))]
    others = [x for x in names if x not in (*FIRST, *NOT_IMAGES)]
    listed = [f'experiments/{name}.py' for name in (*FIRST, *others)]
  return [f'{name}:tiny' for name in listed] if tiny else listed


def measure(
  args: argparse.Namespace, rows: Rows, write: Callable[[dict], None]
) -> dict[str, Any]:
  """Measures all; `write` gets the report after each row."""
  torch, problem = torch_version(args.python) if args.peers else ('', None)
  report: dict[str, Any] = {
    'machine': rows.measure(*MEASUREMENT, 'machine', *['tiny'] * args.tiny),
    'torch': torch,
    'torch_problem': problem,
    'experiments': [], 'peers': [], 'stages': [], 'profile': None,
  }  # fmt: skip
  reserve = 0.0 if args.tiny else PROFILE_SECONDS
  chosen = PEERS[-1:] if args.tiny else PEERS
  peers = chosen if args.peers and torch else ()

  if problem:
    print(f'Not compared with PyTorch: {problem}', flush=True)

  def add(part: str, about: dict[str, Any], figures: dict[str, Any]) -> None:
    report[part].append({**about, **figures})
    text = figures.get('problem') or summary(figures)
    print(f'{" ".join(map(str, about.values()))}: {text}', flush=True)
    write(report)

  def add_peers(family: str, precision: str, batch: int) -> None:
    batch = 2 if args.tiny else batch
    about = {'family': family, 'precision': precision, 'batch_size': batch}
    figures = rows.measure(
      'benchmarks/peers/compare.py', family, f'--batch={batch}',
      f'--precision={precision}', f'--against={",".join(AGAINST)}',
      '--pairs=3', f'--python={args.python}', '--json', reserve=reserve,
    )  # fmt: skip
    add('peers', about, figures)

  for index, name in enumerate(experiments(args.experiments, args.tiny)):
    lengths = LENGTHS
    for precision in PRECISIONS:
      figures = rows.measure(
        *MEASUREMENT, 'experiment', name, precision, lengths, reserve=reserve
      )
      add('experiments', {'experiment': name, 'precision': precision}, figures)
      lengths = str(figures.get('steps_per_dispatch_best', ''))
    if index == 0 and peers:
      add_peers(*peers[0])
  for peer in peers[1:]:
    add_peers(*peer)
  for row in list(report['experiments']):
    if row.get('num_stages', 1) > 1 and row['precision'] == PRECISIONS[0]:
      about = {'experiment': row['experiment'], 'precision': row['precision']}
      figures = rows.measure(
        *MEASUREMENT, 'stages', *about.values(), reserve=reserve
      )
      add('stages', about, figures)
  report['profile'] = profile_of_slowest(report['experiments'], rows)
  write(report)
  return report


def torch_version(python: str) -> tuple[str, str | None]:
  """Returns the version of an interpreter's PyTorch, or a line: why none."""
  command = [python, '-c', 'import torch; print(torch.__version__)']
  try:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
  except OSError as error:
    return '', f'cannot start {python}: {error.strerror}'
  if done.returncode:
    return '', (
      f'{python} has no PyTorch: pip install torch, or name an '
      'interpreter that has it by --python'
    )
  return done.stdout.strip(), None


def summary(figures: dict[str, Any]) -> str:
  """Returns a few words about a row, for the terminal."""
  if 'images_per_second' in figures:
    speed, share = figures['images_per_second'], figures['share_of_matmul']
    return f'{in_digits(speed)} images/s, {share:.0%} of the roof'
  return 'measured'


def profile_of_slowest(
  measured: Sequence[dict[str, Any]], rows: Rows
) -> dict[str, Any]:
  """Profiles the experiment with the least share of the speed of products."""
  known = [row for row in measured if 'share_of_matmul' in row]
  if not known:
    return {'problem': 'skipped: no experiment was measured'}
  row = min(known, key=lambda row: row['share_of_matmul'])
  about = {'experiment': row['experiment'], 'precision': row['precision']}
  length = str(row['steps_per_dispatch_best'])
  figures = rows.measure(*MEASUREMENT, 'profile', *about.values(), length)
  return {**about, **figures}


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
  """Reads the command line."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.accelerator',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--minutes', type=float, default=9.0)
  parser.add_argument('--experiments', help='FILE.py,FILE.py; default: all')
  parser.add_argument('--output', type=Path, default=Path('runs/accelerator'))
  parser.add_argument(
    '--python', default=sys.executable, help='an interpreter with PyTorch'
  )
  parser.add_argument(
    '--no-peers', dest='peers', action='store_false', help='without PyTorch'
  )
  parser.add_argument(
    '--tiny', action='store_true', help='toy sizes, to try the script'
  )
  return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  start = time.monotonic()
  args = parse_arguments(argv)
  os.environ.setdefault('PEER_SECONDS', '0.1' if args.tiny else '1')
  command = shlex.join(['python', '-m', 'benchmarks.accelerator', *argv])
  args.output.mkdir(parents=True, exist_ok=True)

  def write(report: dict[str, Any]) -> None:
    seconds = round(time.monotonic() - start)
    report = {'command': command, 'seconds': seconds, **report}
    text = json.dumps(report, indent=1) + '\n'
    (args.output / 'accelerator.json').write_text(text)
    (args.output / 'accelerator.md').write_text(page(report))

  measure(args, Rows(start + 60 * args.minutes), write)
  print(f'Written: {args.output}/accelerator.md')


if __name__ == '__main__':
  main(sys.argv[1:])
