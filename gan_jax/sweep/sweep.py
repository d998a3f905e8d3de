"""Drives a sweep: one process plans the trials, watches them, and reports.

`driver.py` runs the trials, `trial.py` one of them; `study.py` keeps their
states. The driver itself keeps nothing: the same command replaces a driver that
was killed.
"""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from ml_collections import ConfigDict

from gan_jax.errors import Preempted, UserError
from gan_jax.files import held, is_remote, local
from gan_jax.sweep import executors, report
from gan_jax.sweep import plan as plans
from gan_jax.sweep import study as studies
from gan_jax.sweep.driver import Driver
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
    **executor_options: Arguments of `executors.make`; None: the default.

  Raises:
    UserError: The sweep cannot run, or all its trials have failed.
    KeyboardInterrupt: The user pressed Ctrl-C; the trials are saved.
    Preempted: SIGTERM came; the trials are saved.
  """
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  workdir = workdir.rstrip('/')
  options = {k: v for k, v in executor_options.items() if v is not None}
  remote_trials = options.get('executor', 'local') != 'local'
  plan = plans.make(experiment, config, overrides, sweep, trials, remote_trials)
  executor = executors.make(launcher, **options)
  if remote_trials and not (is_remote(workdir) or Path(workdir).is_absolute()):
    raise UserError(
      f'--workdir={workdir} is a folder of this machine: name a folder that '
      'all nodes can reach, gs://BUCKET/... or /SHARED/...'
    )
  if dry_run:
    report.print_plan(plan, workdir, executor)
    report.print_commands(plan, workdir, executor)
    return
  report.check_workdir(plan, workdir)
  executor.connect()
  report.print_plan(plan, workdir, executor)
  report.write_description(plan, workdir)
  with held(local(workdir), lambda: _refuse(workdir)):
    study = studies.open_study(plan, workdir)
    studies.enqueue(study, plan, workdir, retry_failed=True)
    _run(Driver(plan, workdir, study, executor))
    report.print_results(workdir, report.write_plot(study, plan, workdir))


def _refuse(workdir: str) -> None:
  """Refuses a second driver."""
  raise UserError(f'{workdir} is in use by a sweep that is still running')


def _run(driver: Driver) -> None:
  """Runs the trials; raises an exception if a signal stopped them."""
  with stop_on_signals(driver.stop) as received:
    driver.drive()
  if received:
    state = 'saved' if len(received) == 1 else 'killed'
    is_preempted = received[0] == signal.SIGTERM
    exception = Preempted if is_preempted else KeyboardInterrupt
    raise exception(f'the running trials were {state}')
  driver.check()


@contextmanager
def stop_on_signals(stop: StopRequest) -> Iterator[list[signal.Signals]]:
  """Makes Ctrl-C and SIGTERM stop the trials; the second signal kills them.

  Yields:
    The signals received so far.
  """
  received: list[signal.Signals] = []

  def handle(number: int, _: Any) -> None:
    received.append(signal.Signals(number))
    stop.at_once = len(received) > 1
    if not stop.at_once:
      print(
        '\nStopping: the trials save their state and exit (repeat to kill them '
        'at once)',
        flush=True,
      )
    stop.asked = True

  with handling((signal.SIGINT, signal.SIGTERM), handle):
    yield received
