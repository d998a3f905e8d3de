"""Chooses a checkpoint of a run: by number, the best or the newest."""

import math
from pathlib import Path

from gan_jax.errors import UserError, suggest
from gan_jax.metrics import scores
from gan_jax.training import checkpoint


def choose_step(workdir: str | Path, step: int | None, best: str | None) -> int:
  """Returns the step of a checkpoint: the given, the best, or the newest.

  Raises:
    UserError: The checkpoint does not exist.
  """
  steps = checkpoint.steps(workdir)
  if not steps:
    raise UserError(f'{workdir} has no checkpoint yet')
  if best is not None and step is not None:
    raise UserError(f'pass step={step} or best={best!r}, not both')
  if best is not None:
    return _best(workdir, best, steps)
  if step is None:
    return steps[-1]
  if step not in steps:
    available = ', '.join(map(str, steps))
    raise UserError(
      f'{workdir} has no checkpoint at step {step} (available: {available})'
    )
  return step


def _best(workdir: str | Path, name: str, steps: list[int]) -> int:
  """Returns the step with the best score.

  Among several protocols, the one with the most checkpoints counts.
  """
  known = scores.read(workdir)
  matching = [
    score
    for score in known
    if score.name == name and score.step in steps and math.isfinite(score.value)
  ]
  if not matching:
    measured = sorted({score.name for score in known if score.step in steps})
    raise UserError(
      f'no checkpoint of {workdir} has a score {name!r}'
      f'{suggest(name, measured)} (measured: '
      f'{", ".join(measured) or "none, run --mode=evaluate"})'
    )
  if matching[0].best is None:
    raise UserError(f'{name} does not rank checkpoints: choose another score')
  by_protocol: dict[str, list[scores.Score]] = {}
  for score in matching:
    protocol = scores.protocol_digest(score.protocol)
    by_protocol.setdefault(protocol, []).append(score)
  most = max(by_protocol.values(), key=len)
  best = max if matching[0].best == 'highest' else min
  return best(most, key=lambda score: score.value).step
