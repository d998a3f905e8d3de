"""One page of the lab: its games, what it does with them, and its messages."""

import collections
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from ml_collections import ConfigDict

from gan_jax.errors import UserError
from gan_jax.lab.advice import advise
from gan_jax.lab.measures import describe
from gan_jax.lab.presets import PRESETS
from gan_jax.lab.program import CHUNK, ONLY, Program, adopt
from gan_jax.lab.settings import Settings, check
from gan_jax.lab.slow_motion import PICTURES, draw
from gan_jax.lab.trained_game import MEASURE_EVERY, TrainedGame
from gan_jax.registry import choose

# The choices of iterations for each frame.
SPEEDS = (1, 2, 5, 10, 20, 50)
# Frames that were sent and are not yet drawn; then training waits for the page.
IN_FLIGHT = 2
# Seconds between two pictures of slow motion, and between two status messages.
SLOW_SECONDS, STATUS_SECONDS = 1.2, 0.5
# (settings) -> the compiled program and its config, as soon as they are ready.
Compile = Callable[[Settings], Future]
Send = Callable[[str | bytes], None]


class Session:
  """The games of one page, and its inbox of commands.

  The thread of the engine calls `tick`; other threads only call `post`.
  """

  def __init__(self, compile_settings: Compile, save: Callable, base: Settings):
    self._compile, self._save = compile_settings, save
    self.settings, self.other = base, None
    self.games = {'a': TrainedGame(base)}
    self.playing, self.only, self.speed = False, 'both', 10
    self.inbox: collections.deque[dict[str, Any]] = collections.deque()
    self.send: Send | None = None
    self.used = time.monotonic()
    self._wanted: dict[str, Settings] = {'a': base}
    self._pending: dict[str, Future] = {}
    self._restart, self._failed = True, False
    self._number = 0  # of the next frame
    self._drawn = 0  # frames that the page has drawn
    self._once = False
    self._dirty = True
    self._slow, self._picture, self._slow_due = False, 0, 0.0
    self._clock = (time.monotonic(), 0, 0)

  def post(self, command: dict[str, Any]) -> None:
    """Adds a command; the engine carries it out."""
    self.inbox.append(command)

  def tick(self) -> bool:
    """Carries out commands and makes the next frame; returns if it did work."""
    worked = bool(self.inbox)
    while self.inbox:
      command = self.inbox.popleft()
      try:
        self._do(command)
      except UserError as error:
        self._send('error', text=str(error))
      except (KeyError, TypeError, ValueError, AttributeError) as error:
        self._send('error', text=f'invalid command: {type(error).__name__}')
    if self.send is None:
      return worked
    worked |= self._finish_compiling()
    if any(game.state is None for game in self.games.values()):
      return worked
    if self._number - self._drawn >= IN_FLIGHT:
      return worked
    return self._advance() or worked

  def fail(self, error: Exception) -> None:
    """Pauses after an unexpected error, and reports it."""
    self.playing = self._once = self._dirty = False
    line = ' '.join(str(error).split())[:200]
    self._send('error', text=f'the lab failed: {type(error).__name__}: {line}')
    self._status()

  # Commands.

  def _do(self, command: dict[str, Any]) -> None:
    name = command.get('do')
    handlers = {
      'attach': lambda command: self.attach(command['send']),
      'detach': lambda command: self.detach(command['send']),
      'ack': self._do_ack,
      'compare': self._do_compare,
      'load': self._do_load,
      'only': self._do_only,
      'pause': self._do_pause,
      'play': self._do_play,
      'preset': self._do_preset,
      'reset': self._do_reset,
      'save': lambda _: self._send('saved', **self._save(self.settings)),
      'set': lambda command: self._set(command['settings'], self.other),
      'slow': self._do_slow,
      'speed': self._do_speed,
      'step': self._do_step,
    }
    choose('command', str(name), handlers)(command)
    if name != 'ack':
      self._status()

  def _do_ack(self, command) -> None:
    self._drawn = min(max(self._drawn, int(command['number'])), self._number)

  def _do_play(self, command) -> None:
    self.playing, self._slow = True, False

  def _do_pause(self, command) -> None:
    self.playing = False

  def _do_step(self, command) -> None:
    self.playing, self._slow, self._once = False, False, True

  def _do_slow(self, command) -> None:
    if not self._slow:
      self._picture = 0
    self.playing = bool(command.get('play', False))
    self._slow, self._once, self._slow_due = True, True, 0.0

  def _do_only(self, command) -> None:
    choose('player', str(command['player']), ONLY)
    if self.only != command['player']:
      self.only, self._picture = command['player'], 0

  def _do_speed(self, command) -> None:
    if command['value'] not in SPEEDS:
      raise UserError(f'speed must be one of {", ".join(map(str, SPEEDS))}')
    self.speed = command['value']

  def _do_reset(self, command) -> None:
    self._restart_all()

  def _do_compare(self, command) -> None:
    other = command['settings']
    if other is not None:
      check({**self.settings, **other})
    self._restart = True
    self._set({}, other)

  def _do_load(self, command) -> None:
    self._restart = True
    self._set(command['settings'], command['compare'], replace=True)

  def _do_preset(self, command) -> None:
    preset = choose('preset', str(command['name']), PRESETS)
    self.playing, self.only = False, 'both'
    self._restart = True
    self._set(preset.settings, preset.compare, replace=True)

  def _set(
    self,
    changes: Mapping[str, Any],
    other: Mapping[str, Any] | None,
    replace: bool = False,
  ) -> None:
    """Changes settings; the games follow as soon as they are compiled."""
    before = self.settings
    settings = check({**({} if replace else before), **changes})
    if other is not None:
      compared = check({**settings, **other})
      if compared == settings:
        raise UserError('change one setting of the second game')
    for key in ('seed', 'data.source'):
      self._restart |= settings[key] != before[key]
    self.settings, self.other = settings, dict(other) if other else None
    self._wanted = {'a': settings}
    if self.other is not None:
      self._wanted['b'] = check({**settings, **self.other})
    self._pending, self._failed = {}, False
    self._send_settings()

  # Programs.

  def _finish_compiling(self) -> bool:
    """Requests missing programs; uses them when all are ready."""
    same = self._wanted.keys() == self.games.keys() and all(
      self.games[name].program is not None
      and self.games[name].settings == settings
      for name, settings in self._wanted.items()
    )
    if (same and not self._restart) or self._failed:
      return False
    if not self._pending:
      self._pending = {
        name: self._compile(settings) for name, settings in self._wanted.items()
      }
      self._status()
    if not all(future.done() for future in self._pending.values()):
      return False
    pending, self._pending = self._pending, {}
    try:
      programs = {name: future.result() for name, future in pending.items()}
    except UserError as error:
      self._revert(str(error))
      return True
    except Exception as error:  # such as too little memory
      line = ' '.join(str(error).split())[:200]
      self._revert(f'cannot compile: {type(error).__name__}: {line}')
      return True
    self._use(programs)
    return True

  def _revert(self, text: str) -> None:
    """Returns to the settings that run."""
    self._send('error', text=text)
    running = self.games['a']
    self.settings, self.other = running.settings, None
    self._wanted, self._restart = {'a': self.settings}, False
    self.games = {'a': running}
    self._failed = running.program is None  # until the settings change
    self._send_settings()

  def _use(self, programs: dict[str, tuple[Program, ConfigDict]]) -> None:
    """Continues the games with new programs; restarts what cannot continue."""
    restart = self._restart or programs.keys() != self.games.keys()
    began = any(game.state is not None for game in self.games.values())
    states, changed = {}, False
    for name, (program, _) in programs.items():
      game = self.games.get(name)
      if not restart and game is not None and game.state is not None:
        states[name] = adopt(program, game.state)
      restart |= states.get(name) is None
      changed |= game is None or game.program is not program
    games = {}
    for name, (program, config) in programs.items():
      games[name] = self.games.get(name, TrainedGame(self._wanted[name]))
      games[name].use(self._wanted[name], program, config)
      if not restart:
        games[name].state = states[name]
    self.games = games
    if restart:
      self._restart_all()
      if began:
        self._send('note', text='Training starts again with these settings.')
    if restart or changed:
      self._send_scene()
    self._dirty = True
    self._status()

  def _restart_all(self) -> None:
    self._restart = False
    if any(game.program is None for game in self.games.values()):
      self._restart = True
      return
    for game in self.games.values():
      game.restart()
    self._number = self._drawn = 0
    self._picture, self._dirty = 0, True
    self._send('restarted')

  # Frames.

  def _advance(self) -> bool:
    """Makes one frame if one is due."""
    now = time.monotonic()
    if self._slow:
      if not self._once and not (self.playing and now >= self._slow_due):
        return False
      self._once, self._slow_due = False, now + SLOW_SECONDS
      self._slow_frame()
      return True
    if not (self.playing or self._once or self._dirty):
      return False
    n = (
      0
      if not (self.playing or self._once)
      else (1 if self._once else self.speed)
    )
    self._once = self._dirty = False
    for name, game in self.games.items():
      for start in range(0, n, CHUNK):
        game.train(min(CHUNK, n - start), self.only)
      self._emit(game.frame(name, self._number))
    self._number += 1
    self._stop_if_diverged()
    self._report(now)
    return True

  def _slow_frame(self) -> None:
    """Shows one picture of an iteration; the last one trains."""
    for name, game in self.games.items():
      self._emit(draw(game, name, self._number, self.only, self._picture))
    self._number += 1
    self._picture = (self._picture + 1) % len(PICTURES[self.only])
    self._report(time.monotonic())

  def _stop_if_diverged(self) -> None:
    rows = [game.history[-1] for game in self.games.values() if game.history]
    losses = [
      row.get(k, 0.0) for row in rows for k in ('gen_loss', 'disc_loss')
    ]
    if self.playing and any(loss is None for loss in losses):
      self.playing = False
      self._status()

  def _report(self, now: float) -> None:
    """Sends the speed and the warnings, a few times a second."""
    since, step, number = self._clock
    current = self.games['a'].step
    restarted = current < step or self._number < number
    if not restarted and self.playing and now - since < STATUS_SECONDS:
      return
    speeds = {}
    if self.playing and not restarted:
      seconds = max(now - since, 1e-3)
      speeds = {
        'iterations_per_second': round((current - step) / seconds),
        'frames_per_second': round((self._number - number) / seconds, 1),
      }
    self._clock = (now, current, self._number)
    self._status(**speeds)
    self._advise()

  def _advise(self) -> None:
    items = []
    for name, game in self.games.items():
      toy = game.program.toy
      for advice in advise(game.settings, game.history, toy, self.only):
        tries = [{'label': x, 'settings': y} for x, y in advice.tries]
        items.append({'game': name, 'text': advice.text, 'tries': tries})
    rows = self.games['a'].history
    known = {k: v for row in rows[-MEASURE_EVERY:] for k, v in row.items()}
    text = describe(known, self.games['a'].program.toy)
    self._send('advice', items=items, summary=text)

  # Messages.

  def attach(self, send: Send) -> None:
    """Connects a page: sends it the settings, the games and the status."""
    if self.send is not None:
      self.send('')  # an older copy of the page, which closes
    self.send, self._dirty = send, True
    self._drawn = self._number
    self._send_settings()
    self._status()
    if all(game.state is not None for game in self.games.values()):
      self._send_scene()

  def detach(self, send: Send) -> None:
    """Forgets a page that has closed; the games wait for it."""
    if self.send is send:
      self.send, self.used = None, time.monotonic()

  def _emit(self, message: str | bytes) -> None:
    if self.send is not None:
      self.send(message)

  def _send(self, kind: str, **fields: Any) -> None:
    self._emit(json.dumps({'type': kind, **fields}))

  def _send_settings(self) -> None:
    self._send('settings', settings=self.settings, compare=self.other)

  def _status(self, **more: Any) -> None:
    self._send(
      'status',
      playing=self.playing,
      compiling=bool(self._pending),
      only=self.only,
      slow=self._slow,
      speed=self.speed,
      **more,
    )

  def _send_scene(self) -> None:
    """Sends what stays the same during a run, and the history."""
    for name, game in self.games.items():
      self._send('scene', game=name, games=list(self.games), **game.scene())
