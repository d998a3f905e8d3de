"""Trains a table of experiments with several seeds, and evaluates them all.

  python -m benchmarks.table experiments/vanilla_mnist.py --seeds=0,1,2
  python -m benchmarks.table data.source=mnist \\
    experiments/vanilla_mnist.py total_images=300_000 \\
    experiments/dcgan_r1_mnist.py model.gen.features=16
  python -m benchmarks.table @benchmarks/mnist.txt
  python -m benchmarks.table --merge=other/table.json

A row is an experiment, FILE.py or FILE.py:ARGUMENT, with the KEY=VALUE behind
it; each KEY=VALUE before the first experiment is of all rows. @FILE reads
words from a file. The results are written to --output, a page with a .json
beside it. The same command continues: finished runs are not trained again.
--merge adds the rows of another machine's .json.
"""

import argparse
import ast
import hashlib
import json
import re
import shlex
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gan_jax
from benchmarks import machine, page, results
from gan_jax import config as cfg
from gan_jax import devices, games
from gan_jax.errors import UserError
from gan_jax.files import held, write_whole
from gan_jax.metrics import scores
from gan_jax.metrics.measure import get_metric
from gan_jax.metrics.protocols import PROTOCOLS
from gan_jax.registry import choose
from gan_jax.sweep import executors
from gan_jax.sweep.check import scores_of
from gan_jax.sweep.executors import Executor
from gan_jax.sweep.plan import to_json
from gan_jax.sweep.sweep import stop_on_signals
from gan_jax.sweep.trial import MetricsReader, StopRequest, Trial, TrialResult
from gan_jax.training.check import check_config

ROOT = Path(__file__).parents[1]
LOOK_SECONDS = 0.2
# Keys that do not change a trained run, and those that the protocol records.
NOT_SETTINGS = {'seed', *cfg.CHANGEABLE, *cfg.PER_MACHINE} - {'total_images'}


def parse_rows(
  words: Iterable[str], metric: str, protocol: str | None
) -> list[results.Row]:
  """Reads the rows of a command line, and checks that they can be measured.

  Raises:
    UserError: A word is neither an experiment nor KEY=VALUE, or a row cannot
      be trained or evaluated.
  """
  shared: dict[str, str] = {}
  rows: list[tuple[str, dict[str, str]]] = []
  for word in words:
    if re.match(r'[\w.]+=', word):
      key, _, value = word.partition('=')
      (rows[-1][1] if rows else shared)[key] = value
    elif re.search(r'\.py(:|$)', word):
      rows.append((word, dict(shared)))
    else:
      raise UserError(
        f'{word!r} is no row: name FILE.py or FILE.py:ARGUMENT, and KEY=VALUE '
        'behind it'
      )
  evaluation = {'evaluation.metrics': (metric,)}
  if protocol:
    evaluation['evaluation.protocol'] = protocol
  return [
    results.Row(experiment, own, _settings(experiment, own, evaluation), [])
    for experiment, own in rows
  ]


def _settings(
  experiment: str, overrides: dict[str, str], evaluation: dict[str, Any]
) -> dict[str, Any]:
  """Returns the settings of a row, after it was checked."""
  if 'seed' in overrides:
    raise UserError('seed is no key of a row: name all seeds by --seeds=0,1,2')
  typed = {key: _value(text) for key, text in overrides.items()}
  config = gan_jax.experiment(experiment, **{**typed, **evaluation})
  check_config(config)
  games.make(config)
  if protocol := config.evaluation.protocol:
    config.evaluation.features = PROTOCOLS[protocol].features
  scores_of(config)
  flat = cfg.flatten(config.to_dict())
  return to_json({k: x for k, x in flat.items() if k not in NOT_SETTINGS})


def _value(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


class Job(NamedTuple):
  """A run that is to be trained and evaluated.

  Attributes:
    row, seed: What is trained.
    workdir: The run's.
    metric, protocol: How it is evaluated.
  """

  row: results.Row
  seed: int
  workdir: str
  metric: str
  protocol: str | None

  def flags(self) -> tuple[list[str], list[str]]:
    """Returns the flags of launch.py that train, and those that evaluate."""
    overrides = {**self.row.overrides, 'seed': self.seed}
    train = [
      f'--config={self.row.experiment}',
      *(f'--config.{key}={value}' for key, value in overrides.items()),
      f'--workdir={self.workdir}',
    ]
    metrics = '--config.evaluation.metrics'
    kept = [x for x in train if not x.startswith(f'{metrics}=')]
    evaluate = [*kept, '--mode=evaluate', f'{metrics}=("{self.metric}",)']
    if self.protocol:
      evaluate.append(f'--config.evaluation.protocol={self.protocol}')
    return train, evaluate

  def measure(
    self, executor: Executor, stop: StopRequest
  ) -> Generator[None, None, TrialResult]:
    """Trains and evaluates; yields while it waits for the processes."""
    log = Path(f'{self.workdir}.log')
    for flags in self.flags():
      reader = MetricsReader(self.workdir, '')
      never = lambda points: False
      trial = Trial(flags, self.workdir, log, executor, reader, never)
      while (result := trial.step(stop)) is None:
        yield
      if result.how != 'done':
        break
    return result

  def read(
    self, about: dict[str, Any], score: scores.Score | None
  ) -> results.Run:
    """Returns the finished run; `score` None: it diverged."""
    file = Path(self.workdir) / 'metrics.jsonl'
    images, seconds = 0, 0.0
    # A run that diverged at once has no line.
    lines = file.read_text().splitlines() if file.exists() else ()
    for line in map(json.loads, lines):
      if new := line['images'] - images:
        images += new
        seconds += new / line['images_per_second']
    commands = [
      page.shown(['python', 'launch.py', *_portable(flags)])
      for flags in self.flags()
    ]
    return results.Run(
      self.seed, score and score.value, score and score.std, images,
      round(seconds / 3600, 4), **about, commands=commands,
    )  # fmt: skip


def _portable(flags: Iterable[str]) -> list[str]:
  """Returns flags without the paths of this machine."""
  names = ('--workdir=', *(f'--config.{key}=' for key in cfg.PER_MACHINE))
  return [flag for flag in flags if not flag.startswith(names)]


class Writer:
  """The table as it grows, in its files.

  Args:
    output: The page; the results are in the .json beside it.
    metric: The metric, a row of METRICS.
  """

  def __init__(self, output: Path, metric: str):
    self._output = output
    self.file = output.with_suffix('.json')
    self.main = get_metric(metric).main
    if self.file.exists():
      self.table = results.read(self.file)
    else:
      self.table = results.Table(self.main, None, {}, [])
    if self.table.score != self.main:
      raise UserError(
        f'{self.file} has scores of {self.table.score}, not {self.main}: name '
        'another --output'
      )

  def add(self, row: results.Row, run: results.Run) -> None:
    """Adds a run, and writes the files."""
    self.table = self.table.with_rows([row._replace(runs=[run])], row.title)
    self.write()

  def write(self) -> None:
    """Writes the results, the page, and the README's block if it has one."""
    self.file.parent.mkdir(parents=True, exist_ok=True)
    results.write(self.file, self.table)
    write_whole(self._output, page.page(self.table))
    readme = ROOT / 'README.md'
    if readme.exists() and self.file.resolve().is_relative_to(ROOT):
      name = self.file.resolve().relative_to(ROOT).as_posix()
      before = readme.read_text()
      after = page.with_block(before, name, self.table)
      if after != before:
        write_whole(readme, after)


def run_jobs(
  jobs: Sequence[Job], executor: Executor, stop: StopRequest, writer: Writer
) -> int:
  """Measures the jobs, as many at a time as there are shares of devices.

  Returns:
    The number of jobs that failed.
  """
  about = machine.ask()
  if executor.parallel() > 1:
    about['hardware'] += f', {executor.parallel()} runs at a time'
  waiting, running, failed = list(jobs), [], 0
  while running or (waiting and not stop.asked):
    while waiting and len(running) < executor.parallel() and not stop.asked:
      job = waiting.pop(0)
      running.append((job, job.measure(executor, stop)))
      print(f'{job.row.title}, seed {job.seed}: begins', flush=True)
    for entry in list(running):
      job, measuring = entry
      try:
        next(measuring)
      except StopIteration as ended:
        running.remove(entry)
        failed += not _end(job, ended.value, about, writer)
    time.sleep(LOOK_SECONDS)
  return failed


def _end(
  job: Job, result: TrialResult, about: dict[str, Any], writer: Writer
) -> bool:
  """Adds the run if it has a result; returns whether it did not fail."""
  status, score = result.how, None
  if status == 'done':
    score = [x for x in scores.read(job.workdir) if x.name == writer.main][-1]
    writer.table = writer.table.with_protocol(score, job.row.title)
  if status in ('done', 'diverged'):
    writer.add(job.row, job.read(about, score))
  text = {'done': str(score), 'stopped': 'saved'}.get(
    status, f'{status}, {result.line}'
  )
  print(f'{job.row.title}, seed {job.seed}: {text}', flush=True)
  return status != 'failed'


def make_jobs(
  table: results.Table, rows: Sequence[results.Row], args: argparse.Namespace
) -> list[Job]:
  """Lists the runs that the table lacks."""
  done = {(row.title, run.seed) for row in table.rows for run in row.runs}
  jobs = []
  for row in rows:
    for seed in args.seeds:
      if (row.title, seed) not in done:
        digest = hashlib.sha256(row.title.encode()).hexdigest()[:8]
        name = f'{Path(row.experiment.partition(":")[0]).stem}-{digest}-{seed}'
        workdir = f'{args.workdir or f"runs/{args.output.stem}"}/{name}'
        jobs.append(Job(row, seed, workdir, args.metric, args.protocol))
  return jobs


class _Parser(argparse.ArgumentParser):
  """Reads @FILE as a shell reads words, with comments; errors are one line."""

  def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
    return shlex.split(arg_line, comments=True)

  def error(self, message: str) -> None:
    raise UserError(f'{message} (python -m benchmarks.table --help)')


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
  """Reads the command line; a mistake is a UserError."""
  seeds = lambda text: [int(seed) for seed in text.split(',')]
  parser = _Parser(
    prog='python -m benchmarks.table',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    fromfile_prefix_chars='@',
  )
  parser.add_argument('rows', nargs='*', metavar='CONFIG')
  parser.add_argument('--seeds', type=seeds, default=[0, 1, 2])
  parser.add_argument('--metric', default='fid', help='a row of METRICS')
  parser.add_argument('--protocol', help='default: as the experiments say')
  parser.add_argument(
    '--output', type=Path, default=Path('docs/results/table.md')
  )
  parser.add_argument('--workdir', help='holds the runs; default: runs/OUTPUT')
  parser.add_argument('--parallel_trials', type=int, help='runs at a time')
  parser.add_argument('--merge', type=Path, help="another machine's .json")
  args = parser.parse_intermixed_args(argv)
  if args.protocol:
    choose('--protocol', args.protocol, PROTOCOLS)
  if not args.rows and not args.merge:
    parser.error('name an experiment: experiments/vanilla_mnist.py')
  return args


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit code."""
  try:
    args = parse_arguments(argv)
    devices.use_cpu_only()  # the runs need the accelerators
    writer = Writer(args.output, args.metric)
    rows = parse_rows(args.rows, args.metric, args.protocol)
    if args.merge:
      other = results.read(args.merge)
      writer.table = writer.table.merged(other, str(args.merge))
      writer.write()
    writer.table.with_rows(rows, 'the command')
    jobs = make_jobs(writer.table, rows, args)
    if not jobs:
      writer.write()
      print(f'All runs are in {writer.file}.')
      return 0
    executor = executors.make(
      str(ROOT / 'launch.py'), parallel_trials=args.parallel_trials
    )
    stop = StopRequest()
    busy = lambda: _refuse(args.output)
    folder = Path(jobs[0].workdir).parent
    with held(folder, busy), stop_on_signals(stop) as received:
      failed = run_jobs(jobs, executor, stop, writer)
    if received:
      print('Interrupted: repeat the command to continue.')
      return 130
    print(f'{failed} runs failed' if failed else f'Written: {args.output}')
    return int(failed > 0)
  except UserError as error:
    print(f'benchmarks.table: {error}', file=sys.stderr)
    return 2


def _refuse(output: Path) -> None:
  raise UserError(f'{output} is being written by another benchmarks.table')


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
