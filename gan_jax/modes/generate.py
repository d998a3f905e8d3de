"""Saves samples or a film of a finished run, from the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_jax.errors import UserError
from gan_jax.modes.open_run import open_run
from gan_jax.runs.film import default_file


def generate(
  workdir: str | Path,
  *,
  samples: int | None = None,
  seeds: Sequence[str] | None = None,
  labels: Sequence[str] | None = None,
  truncation: float | None = None,
  output: str | None = None,
  overwrite: bool | None = None,
  step: str | None = None,
  trust: bool | None = None,
) -> None:
  """Saves samples of the run in `workdir`; see `Run.save_samples`.

  Args:
    workdir: The run's.
    samples, seeds, labels, truncation, overwrite: The arguments of
      `save_samples`, as text; None: its defaults.
    output: None: WORKDIR/generated.
    step: The iteration of the checkpoint; None: the newest.
    trust: Whether to run code that the config names.
  """
  output = Path(output or Path(workdir) / 'generated')
  run = open_run(workdir, step, trust)
  saved = run.save_samples(
    output,
    **_given(
      n=samples,
      seeds=_numbers('seeds', seeds),
      labels=_numbers('labels', labels),
      truncation=truncation,
      overwrite=overwrite,
    ),
  )
  print(f'Samples of {run}: {saved}')


def film(
  workdir: str | Path,
  *,
  samples: int | None = None,
  seeds: Sequence[str] | None = None,
  labels: Sequence[str] | None = None,
  truncation: float | None = None,
  seconds: float | None = None,
  output: str | None = None,
  overwrite: bool | None = None,
  step: str | None = None,
  trust: bool | None = None,
) -> None:
  """Saves a film of the run in `workdir`; see `Run.film` and `generate`."""
  numbers = _numbers('seeds', seeds) or [0]
  if len(numbers) > 1:
    raise UserError(f'--seeds={",".join(seeds)}: a film has one seed')
  classes = _numbers('labels', labels)
  if classes is not None:
    n = 16 if samples is None else samples
    classes = [classes[i % len(classes)] for i in range(n)]
  run = open_run(workdir, step, trust)
  saved = run.film(
    output or default_file(workdir),
    seed=numbers[0],
    **_given(
      n=samples,
      labels=classes,
      truncation=truncation,
      seconds=seconds,
      overwrite=overwrite,
    ),
  )
  print(f'Film of {run}: {saved}')


def _given(**arguments: Any) -> dict[str, Any]:
  return {name: x for name, x in arguments.items() if x is not None}


def _numbers(flag: str, values: Sequence[str] | None) -> list[int] | None:
  """Reads a list of whole numbers."""
  if values is None:
    return None
  if not values or not all(value.strip().isdigit() for value in values):
    raise UserError(
      f'--{flag}={",".join(values)} must be whole numbers: --{flag}=0,1,2'
    )
  return [int(value) for value in values]
