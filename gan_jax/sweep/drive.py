"""Drives a sweep: one process plans the trials, watches them, and reports.

`driver.py` runs the trials, `trial.py` one of them; `study.py` keeps their
states. The driver itself keeps nothing: the same command replaces a driver that
was killed.
"""

import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gan_jax.errors import Preempted, UserError, warn
from gan_jax.files import held, is_remote, local
from gan_jax.sweep import plan as plans
from gan_jax.sweep import report
from gan_jax.sweep import study as studies
from gan_jax.sweep.driver import Driver
from gan_jax.sweep.executors import ExecutorOptions
from gan_jax.sweep.plan import Plan
from gan_jax.sweep.process import Worker
from gan_jax.sweep.trial import StopRequest
from gan_jax.training.stopping import handling


def sweep(
  config: ConfigDict,
  workdir: str,
  *,
  launcher: str,
  experiment: str,
  overrides: Mapping[str, Any],
  sweep: str | None = None,
  trials: int | None = None,
  dry_run: bool | None = None,
  storage: str | None = None,
  **executor_options: Any,
) -> None:
  """Runs a sweep of an experiment; resumes it if it was begun.

  Args:
    config: The experiment's, with the overrides.
    workdir: Holds the whole sweep: its study, its table, its trials.
    launcher: The path of `launch.py`.
    experiment: FILE.py or FILE.py:ARGUMENT.
    overrides: The overrides that the user typed, by key.
    sweep: The name of one of the experiment's sweeps; None: its only sweep.
    trials: The number of settings of a search; None: the description's.
    dry_run: Whether to print only the commands of the trials.
    storage: The URL of a database; None: a file in `workdir`.
    **executor_options: Fields of `ExecutorOptions`; None: the default.

  Raises:
    UserError: The sweep cannot run, or all its trials have failed.
    KeyboardInterrupt: The user pressed Ctrl-C; the trials are saved.
    Preempted: SIGTERM came; the trials are saved.
  """
  studies.silence_optuna()
  workdir = workdir.rstrip('/')
  options = {k: v for k, v in executor_options.items() if v is not None}
  remote_trials = options.get('executor', 'local') != 'local'
  plan = plans.make(experiment, config, overrides, sweep, trials, remote_trials)
  workers = ExecutorOptions(**options).workers(launcher)
  if remote_trials:
    _check_shared(workdir)
  if dry_run:
    report.print_plan(plan, workdir, workers)
    report.print_commands(plan, workdir, workers)
    return
  _run_sweep(plan, workdir, workers, storage)


def _check_shared(workdir: str) -> None:
  """Refuses a folder that other machines cannot reach."""
  if not (is_remote(workdir) or Path(workdir).is_absolute()):
    raise UserError(
      f'--workdir={workdir} is a folder of this machine: name a folder that '
      'the driver and all hosts can reach, gs://BUCKET/... or /SHARED/...'
    )


def _run_sweep(
  plan: Plan, workdir: str, workers: list[Worker], storage: str | None
) -> None:
  """Opens the study, runs the trials that it lacks, and prints the results."""
  if storage is None and is_remote(workdir):
    raise UserError(
      f'{workdir} cannot hold a database: add --storage=sqlite:///FILE, on '
      'this machine, or the URL of a database that several drivers can reach'
    )
  report.check_workdir(plan, workdir)
  # An unreachable database is reported before anything is written.
  study = storage and studies.open_study(
    plan, storage, workdir, only_driver=False
  )
  report.print_plan(plan, workdir, workers)
  report.write_description(plan, workdir)
  with nullcontext() if storage else _lock_sweep(workdir):
    if not storage:
      url = f'sqlite:///{Path(workdir, "sweep.db").absolute()}'
      study = studies.open_study(plan, url, 'sweep', only_driver=True)
    studies.requeue_lost(study, only_driver=storage is None)
    workers = _usable(workers)
    with held(local(workdir), lambda: None, '.entering.lock'):
      studies.enqueue(study, plan, workdir, retry_failed=True)
    _run(Driver(plan, workdir, study, workers))
    report.print_results(workdir, report.write_plot(study, plan, workdir))


@contextmanager
def _lock_sweep(workdir: str) -> Iterator[None]:
  """Locks the sweep: each of two drivers would use the whole machine."""

  def busy() -> None:
    raise UserError(
      f'{workdir} is in use by a sweep that is still running: stop that sweep '
      'first, or give both the same --storage=URL'
    )

  with held(workdir, busy):
    yield


def _run(driver: Driver) -> None:
  """Runs the trials; raises an exception if a signal stopped them."""
  with driver.progress, _stop_on_signals(driver.stop) as received:
    driver.drive()
  if received:
    once = len(received) == 1
    state = 'saved' if once else 'killed'
    is_preempted = received[0] == signal.SIGTERM
    exception = Preempted if is_preempted else KeyboardInterrupt
    raise exception(f'the running trials were {state}')
  driver.check()


def _usable(workers: list[Worker]) -> list[Worker]:
  """Returns the workers on which trials can run.

  When this returns, trials that a lost driver left running there have ended.
  """
  with ThreadPoolExecutor(len(workers)) as pool:
    problems = list(pool.map(lambda worker: worker.problem(), workers))
  usable = []
  for worker, problem in zip(workers, problems, strict=True):
    if problem:
      warn(f'{worker.name} is not used: {problem}')
    else:
      usable.append(worker)
  if not usable:
    raise UserError(f'no trial can run on {workers[0].name}: {problems[0]}')
  return usable


@contextmanager
def _stop_on_signals(stop: StopRequest) -> Iterator[list[signal.Signals]]:
  """Makes Ctrl-C and SIGTERM stop the trials; the second signal kills them.

  Yields:
    The signals received so far.
  """
  received: list[signal.Signals] = []

  def handle(number: int, _: Any) -> None:
    received.append(signal.Signals(number))
    if len(received) > 1:
      stop.at_once.set()
    else:
      print(
        '\nStopping: the trials save their state and exit (repeat to kill them '
        'at once)',
        flush=True,
      )
    stop.asked.set()

  with handling((signal.SIGINT, signal.SIGTERM), handle):
    yield received
