"""Applies a finished run to a folder of images, from the command line."""

from pathlib import Path

from gan_jax.errors import UserError
from gan_jax.modes.open_run import open_run
from gan_jax.runs.translate import apply_to_folder


def apply(
  workdir: str | Path,
  *,
  input: str | None = None,
  output: str | None = None,
  to: str | None = None,
  overwrite: bool | None = None,
  step: str | None = None,
  trust: bool | None = None,
) -> None:
  """Translates or enlarges all images of a folder.

  See `runs.translate.apply_to_folder` for the arguments.

  Args:
    workdir: The run's.
    input, output, to, overwrite: Its arguments.
    step: The iteration of the checkpoint; None: the newest.
    trust: Whether to run code that the config names.
  """
  if input is None or output is None:
    raise UserError('--mode=apply needs --input=FOLDER and --output=FOLDER')
  run = open_run(workdir, step, trust)
  saved = apply_to_folder(run, input, output, to, bool(overwrite))
  print(f'Images of {run}: {saved}')
