"""Opens the run that a mode of the command line works on."""

from pathlib import Path

from gan_jax.errors import UserError
from gan_jax.runs.run import Run, load


def open_run(workdir: str | Path, step: str | None, trust: bool | None) -> Run:
  """Opens a run at the checkpoint of `--step`; None: the newest."""
  if step is not None and not step.isdigit():
    raise UserError(f'--step={step} must be a number of iterations')
  return load(workdir, step and int(step), trust=bool(trust))
