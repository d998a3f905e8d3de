"""Slow motion: the pictures of one iteration, in the order of its parts."""

import jax
import numpy as np

from gan_jax.lab.frames import pack
from gan_jax.lab.program import NUM_DRAWN, stack_phases
from gan_jax.lab.trained_game import TrainedGame, score_range, shown_scores

BEGINNING = (
  ('points', 'The step takes real points, and G generates fakes from latents.'),
  ('answers', 'D answers for each point how real it looks: blue is real.'),
)
ENDING = (
  (
    'forces',
    "D is frozen. G's loss falls fastest along the arrow of each fake.",
  ),
  ('gen', 'G follows the arrows as far as its weights can: its points move.'),
)
DISC_MOVES = (
  "D's weights follow D's loss; G is frozen. The map changes a little."
)
# The kinds of the pictures and their texts, by the players that are trained;
# the last picture trains.
PICTURES = {
  'both': (*BEGINNING, ('disc', DISC_MOVES), *ENDING),
  'disc': (*BEGINNING, ('gen', DISC_MOVES)),
  'gen': (*BEGINNING, *ENDING),
}


def draw(
  game: TrainedGame, name: str, number: int, only: str, picture: int
) -> bytes:
  """Packs one picture of an iteration; trains at the last one.

  Args:
    game: The game.
    name, number: The game's name and the frame's number, for the page.
    only: The players that are trained, a key of PICTURES.
    picture: The index of the picture.
  """
  kind, text = PICTURES[only][picture]
  header = {'picture': picture, 'text': text, 'kind': kind}
  if kind == 'gen':
    game.train(1, only)
    return game.frame(name, number, **header)
  program, state = game.program, game.state
  if kind in ('disc', 'forces') and only == 'both':
    copy = jax.tree.map(lambda x: x.copy(), state)  # training donates it
    phases = stack_phases(game.schedule, game.step, 1)
    after, _ = program.function('disc')(copy, phases, np.int32(1))
    state = state._replace(variables=after.variables)
  view, found = game.look('view', state), game.look('inspect', state)
  for key in ('real_scores', 'fake_scores'):
    found[key] = shown_scores(found[key], program)
  view['fake'] = view['fake'][:NUM_DRAWN]
  scores = view.pop('scores')
  row = {'step': game.step}
  return pack(
    {'game': name, 'number': number, 'row': row, **header}
    | score_range(scores),
    {**view, **found, 'map': shown_scores(scores, program)},
  )
