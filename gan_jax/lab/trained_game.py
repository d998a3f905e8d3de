"""A game that a page of the lab trains: its program, state and history."""

import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from gan_jax.games.game import Phase
from gan_jax.lab.frames import pack
from gan_jax.lab.measures import finite, measure
from gan_jax.lab.program import NUM_DRAWN, Program, stack_phases
from gan_jax.lab.settings import Settings
from gan_jax.training.schedule import make_schedule
from gan_jax.training.state import State

# The number of frames from one measurement of the game to the next.
MEASURE_EVERY = 5
# Rows of the history that are kept; then every second row is dropped.
MAX_HISTORY = 1200
# The metrics of training in the history, by their names in the step.
METRICS = {
  'gen/loss': 'gen_loss',
  'disc/loss': 'disc_loss',
  'disc/real_accuracy': 'real_accuracy',
  'disc/fake_accuracy': 'fake_accuracy',
  'gen/loss_grad_norm': 'gen_grad_norm',
  'disc/loss_grad_norm': 'disc_grad_norm',
}


class TrainedGame:
  """One game of a page: its program, its state and its history."""

  def __init__(self, settings: Settings):
    self.settings = settings
    self.program: Program | None = None
    self.state: State | None = None
    self.history: list[dict[str, Any]] = []

  def use(
    self, settings: Settings, program: Program, config: ConfigDict
  ) -> None:
    """Continues with other settings and their program."""
    self.settings, self.program = settings, program
    self.schedule = make_schedule(config)

  def restart(self) -> None:
    """Goes back to before the first iteration."""
    self.state = self.program.create(np.int32(self.settings['seed']))
    self.history = []

  @property
  def step(self) -> int:
    return int(self.state.step)

  @property
  def phase(self) -> Phase:
    return self.schedule.phase(self.step)

  def train(self, n: int, only: str) -> None:
    """Runs `n` iterations and adds their metrics to the history."""
    phases = stack_phases(self.schedule, self.step, n)
    train = self.program.function(only)
    self.state, means = train(self.state, phases, np.int32(n))
    row = {'step': self.step}
    for name, short in METRICS.items():
      if name in means:
        row[short] = finite(means[name])
    self.history.append(row)
    if len(self.history) > MAX_HISTORY:
      self.history = self.history[1::2]

  def look(self, function: str, state: State) -> dict[str, np.ndarray]:
    """Calls `view` or `inspect` of the program."""
    found = self.program.function(function)(state, self.phase)
    return {name: np.asarray(array) for name, array in found.items()}

  def frame(self, name: str, number: int, **header: Any) -> bytes:
    """Packs what the page shows of the state."""
    view = self.look('view', self.state)
    row = self.history[-1] if self.history else {'step': self.step}
    if number % MEASURE_EVERY == 0:
      row |= measure(self.program.real, view['fake'], self.program.toy)
    view['fake'] = view['fake'][:NUM_DRAWN]
    scores = view.pop('scores')
    return pack(
      {'game': name, 'number': number, 'row': row, **header}
      | score_range(scores),
      {**view, 'map': shown_scores(scores, self.program)},
    )

  def scene(self) -> dict[str, Any]:
    """Returns what stays the same during a run, and the history."""
    toy, loss = self.program.toy, self.program.loss
    return {
      'dim': toy.dim,
      'limit': round(toy.limit, 6),
      'num_modes': len(toy.modes) if len(toy.modes) > 1 else 0,
      'probability': loss.probability,
      'critic': loss.real_score is None,
      'optimum': _optimum(self.settings['game.loss.name']),
      'real': np.round(self.program.real[:NUM_DRAWN], 4).tolist(),
      'history': self.history,
    }


def score_range(scores: np.ndarray) -> dict[str, Any]:
  return {'low': finite(scores.min()), 'high': finite(scores.max())}


def shown_scores(scores: np.ndarray, program: Program) -> np.ndarray:
  """Maps D's outputs to [0, 1]; 1/2 is D's decision, except of a critic."""
  scores = np.nan_to_num(scores.astype(np.float32))
  if program.loss.probability:
    return scores
  if program.loss.real_score is None:
    low, high = scores.min(), scores.max()
    return (scores - low) / max(high - low, 1e-6)
  return 0.5 + 0.5 * scores / max(np.abs(scores).max(), 1e-6)


def _optimum(loss: str) -> dict[str, float]:
  """Returns the losses at D = 1/2, where they are known."""
  four, two = math.log(4), math.log(2)
  return {
    'minimax': {'disc': four, 'gen': -two},
    'non_saturating': {'disc': four, 'gen': two},
    'non_saturating_fake_is_one': {'disc': four, 'gen': two},
    'non_saturating_half': {'disc': two, 'gen': two},
    'relativistic': {'disc': two, 'gen': two},
  }.get(loss, {})
