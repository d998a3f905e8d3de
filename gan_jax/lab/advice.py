"""Warnings about a running game: what is wrong, and what to try."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gan_jax.data.toys import Toy
from gan_jax.lab.settings import PENALTY_KEYS, Settings

# Rows of the history that a warning is based on, iterations before any, and
# iterations after which G should produce more than a quarter of the modes.
WINDOW, QUIET_STEPS, MODES_STEPS = 8, 100, 500
# D has won if it recognizes this share of both the reals and the fakes.
WON = 0.97
# A gradient of G below this norm trains nothing.
VANISHED = 1e-2
# The Jensen-Shannon divergence (at most log 2) of clearly different densities.
DIFFERENT = 0.5
# Penalties that bound the gradients of D.
BOUNDING = tuple(
  key
  for key in PENALTY_KEYS
  if key.startswith('game.penalties.') and '.drift.' not in key
)


class Advice(NamedTuple):
  """One warning.

  Attributes:
    text: What is wrong, and what to try.
    tries: The label of a button, and the settings that it changes.
  """

  text: str
  tries: tuple[tuple[str, Settings], ...] = ()


R1 = ('add R1', {'game.penalties.r1.weight': 1.0})
NOISE = ('add instance noise', {'game.instance_noise': 0.3})
RATES = 'optimizer.gen.learning_rate', 'optimizer.disc.learning_rate'


def advise(
  settings: Settings,
  history: Sequence[Mapping[str, Any]],
  toy: Toy,
  only: str = 'both',
) -> list[Advice]:
  """Returns the warnings about a game.

  Args:
    settings: Those of the game.
    history: Its metrics, one row for each view, the newest last.
    toy: Its distribution.
    only: Which players are trained: a key of `program.ONLY`.
  """
  found = _unbounded_critic(settings)
  if history and _diverged(history[-1]):
    slower = {key: settings[key] / 5 for key in RATES}
    return [
      *found,
      Advice(
        'A loss is not finite: training has diverged. Lower the learning rates '
        'and reset.',
        (('divide both rates by 5', slower),),
      ),
    ]
  if not history or history[-1]['step'] < QUIET_STEPS:
    return found
  recent = history[-WINDOW:]
  if only == 'disc':  # a D that wins against a frozen G is no problem
    return found
  if only == 'gen':
    return [*found, *_unopposed(recent)]
  won = _won(settings, recent)
  return [*found, *won, *_collapsed(settings, recent, toy)] + (
    [] if won else _blind(settings, recent)
  )


def _diverged(row: Mapping[str, Any]) -> bool:
  return any(
    name.endswith('loss') and value is None for name, value in row.items()
  )


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
  values = [row[name] for row in rows if row.get(name) is not None]
  return sum(values) / len(values) if values else None


def _unbounded_critic(settings: Settings) -> list[Advice]:
  bounded = settings['game.clip'] or any(settings[key] for key in BOUNDING)
  if settings['game.loss.name'] != 'wasserstein' or bounded:
    return []
  return [
    Advice(
      'Nothing bounds the critic of the Wasserstein loss, so its values grow '
      'without a limit. Add a gradient penalty, or clip its weights.',
      (
        (
          'add a gradient penalty',
          {'game.penalties.gradient_penalty.weight': 0.1},
        ),
        ('clip the weights', {'game.clip': 0.1}),
      ),
    )
  ]


def _unopposed(recent: Sequence[Mapping[str, Any]]) -> list[Advice]:
  distance = _mean(recent, 'js')
  if distance is None or distance < DIFFERENT:
    return []
  return [
    Advice(
      'Only G is trained, so that D does not answer: G leaves the data for '
      'where this D says real. Set Train to both.'
    )
  ]


def _with_cures(
  problem: str, cures: Sequence[tuple[str, tuple[str, Settings]]]
) -> list[Advice]:
  """Returns one warning: the problem, and (what to try, its button) of each."""
  text = ', or '.join(dict.fromkeys(text for text, _ in cures))
  text = text or 'train longer, or lower the learning rates'
  return [Advice(f'{problem}. Try this: {text}.', tuple(x for _, x in cures))]


def _won(
  settings: Settings, recent: Sequence[Mapping[str, Any]]
) -> list[Advice]:
  real, fake = (_mean(recent, f'{side}_accuracy') for side in ('real', 'fake'))
  if real is None or min(real, fake) < WON:
    return []
  norm = _mean(recent, 'gen_grad_norm')
  what, cures = 'it separates reals and fakes almost perfectly', []
  if settings['game.loss.name'] == 'minimax':
    what = 'the surer D is, the smaller the gradients of the minimax G'
    if norm is not None and norm < VANISHED:
      what = 'the gradients of the minimax G vanish'
    button = 'use the non-saturating loss', {'game.loss.name': 'non_saturating'}
    cures.append(
      ('use the non-saturating loss, which is steep where D is sure', button)
    )
  elif not settings['game.penalties.r1.weight']:
    what += ', and its gradient may no longer point to the data'
    cures.append(('flatten D by R1', R1))
  if not settings['game.instance_noise']:
    cures.append(('blur the difference by instance noise', NOISE))
  return _with_cures(f'D has won: {what}', cures)


def _collapsed(
  settings: Settings, recent: Sequence[Mapping[str, Any]], toy: Toy
) -> list[Advice]:
  modes = _mean(recent, 'modes')
  spread = _mean(recent, 'spread')
  if modes is None:
    return []
  narrow = modes <= len(toy.modes) / 2 and spread is not None and spread < 0.25
  late = recent[-1]['step'] >= MODES_STEPS and modes <= len(toy.modes) / 4
  if not (narrow or late):
    return []
  cures, several = [], 'let D see several points at once'
  if not settings['game.penalties.r1.weight']:
    cures.append(('flatten D by R1', R1))
  if settings['game.pack'] == 1:
    cures.append((several, ('pack 4 points', {'game.pack': 4})))
  if not settings['model.disc.stddev_group']:
    button = 'show D the minibatch stddev', {'model.disc.stddev_group': 4}
    cures.append((several, button))
  problem = f'G produces {modes:.0f} of {len(toy.modes)} modes'
  return _with_cures(f'Mode collapse: {problem}', cures)


def _blind(settings: Settings, recent: Sequence[Mapping[str, Any]]):
  real, fake = (_mean(recent, f'{side}_accuracy') for side in ('real', 'fake'))
  distance = _mean(recent, 'js')
  if real is None or distance is None:
    return []
  if (real + fake) / 2 > 0.58 or distance < DIFFERENT:
    return []
  rate = settings['optimizer.disc.learning_rate']
  return [
    Advice(
      'D cannot tell the reals and the fakes apart, although they differ: it '
      'gives G no direction. Let D learn faster, or update it more often.',
      (
        (
          "double D's rate",
          {'optimizer.disc.learning_rate': min(2 * rate, 1.0)},
        ),
        (
          'one more D step',
          {'disc_steps': min(settings['disc_steps'] + 1, 10)},
        ),
      ),
    )
  ]
