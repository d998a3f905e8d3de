"""What each key of a config may be: one table of types and bounds."""

import fnmatch
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from gan_jax.errors import UserError

Number = float | int


class Bound(NamedTuple):
  """The values that a key may have.

  Attributes:
    kind: Of the value; of each item, where it is a tuple.
    low, high: Ends of the range of a number, both allowed.
    above: Whether `low` itself is not allowed.
    below: Whether `high` itself is not allowed.
    none: Whether it may be None, also by a flag: `--config.data.crop=None`.
    several: Whether it is a tuple; None: it may be one.
  """

  kind: type
  low: Number = -math.inf
  high: Number = math.inf
  above: bool = False
  below: bool = False
  none: bool = False
  several: bool | None = False

  def problem(self, value: Any) -> str:
    """What is wrong with a value: `must be positive`; `` if nothing is."""
    if value is None:
      return '' if self.none else f'must be {self._noun()}'
    if isinstance(value, tuple) and self.several is not False:
      problems = [self._of_one(item) for item in value]
      return next(filter(None, problems), '')
    if self.several:
      return f'must be a tuple, each item of it {self._noun()}'
    return self._of_one(value)

  def _of_one(self, value: Any) -> str:
    number = not isinstance(value, bool) and isinstance(value, int | float)
    fits = number if self.kind is float else isinstance(value, self.kind)
    if not fits or (self.kind is int and isinstance(value, bool)):
      return f'must be {self._noun()}'
    if self.kind not in (int, float):
      return ''
    if not (value > self.low if self.above else value >= self.low):
      return self._range(short=True)  # NaN too
    under = value < self.high if self.below else value <= self.high
    return '' if under else self._range()

  def _noun(self) -> str:
    nouns = {bool: 'True or False', float: 'a number', int: 'an integer'}
    return nouns.get(self.kind, 'a text') + (' or None' if self.none else '')

  def _range(self, short: bool = False) -> str:
    if short and (self.kind, self.low, self.above) in POSITIVE:
      return 'must be positive'
    if short and (self.low, self.above) == (0, False):
      return 'must be 0 or more'
    low = f'{"above" if self.above else "from"} {_written(self.low)}'
    high = f'{"below " if self.below else ""}{_written(self.high)}'
    return f'must be {low} to {high}'


# As the ends of a range: of the integers, and of all numbers.
POSITIVE = (int, 1, False), (float, 0, True)


def _written(end: Number) -> str:
  return f'{end:,}' if isinstance(end, int) else f'{end:g}'


# So that what is counted in images, or in bytes, is exact and cannot overflow.
MOST = 2**50


def _number(low: Number, high: Number, **more: Any) -> Bound:
  return Bound(float, low, high, **more)


def _integer(low: int, high: int, **more: Any) -> Bound:
  return Bound(int, low, high, **more)


_TEXT, _FLAG = Bound(str), Bound(bool)
_IMAGES = _integer(1, MOST)
_WIDTH = _integer(1, 2**16)
_MOMENTUM = _number(0, 1, below=True)

# Keys, or patterns of keys; of several that match the first counts.
BOUNDS: dict[str, Bound] = {
  'batch_size': _integer(1, 2**20),
  'checkpoint_every_images': _IMAGES,
  'checkpoints_to_keep': _integer(1, 10_000),
  'data.channels': _integer(1, 64),
  'data.classes': _integer(0, 2**20),
  'data.crop': _integer(1, 2**16, none=True),
  'data.dir': _TEXT._replace(none=True),
  'data.files': _TEXT._replace(none=True),
  'data.flip': _FLAG,
  'data.max_device_bytes': _integer(0, MOST),
  'data.resolution': _integer(1, 4096),
  'data.size': _integer(1, MOST),
  'data.source': _TEXT,
  'data.split': _TEXT,
  'data.workers': _integer(0, 256, none=True),
  'disc_steps': _integer(1, 10_000),
  'ema_halflife_images': _number(0, MOST, above=True),
  'ema_rampup': _number(0, 1, above=True, none=True),
  'evaluation.every_images': _IMAGES._replace(none=True),
  'evaluation.features': _TEXT._replace(none=True),
  'evaluation.held_out': _TEXT._replace(none=True),
  'evaluation.labels': _TEXT._replace(none=True),
  'evaluation.metrics': _TEXT._replace(several=True),
  'evaluation.num_samples': _integer(2, 10_000_000),
  'evaluation.seeds': _integer(1, 1000),
  'game.augment': _TEXT._replace(several=True),
  'game.auxiliary.*': _number(0, 1e6),
  'game.clip': _number(0, 1e6, above=True, none=True),
  'game.instance_noise': _number(0, 1e6),
  'game.latent': _TEXT,
  'game.latent_dim': _WIDTH,
  'game.loss.*_label': _number(-1e3, 1e3),
  'game.pack': _integer(1, 256),
  'game.penalties.*.std': _number(0, 1e6),
  'game.*penalties.*.decay': _number(0, 1, above=True),
  'game.*penalties.*.every': _integer(1, 10_000),
  'game.penalties.*.one_sided': _FLAG,
  'game.penalties.*.target': _number(0, 1e6, above=True),
  'game.*penalties.*.weight': _number(0, 1e9),
  'gen_batch_size': _integer(1, 2**20, none=True),
  'growth.*.batch_size': _integer(1, 2**20),
  'growth.*.learning_rate_factor': _number(0, 1e3),
  'growth.*_images': _IMAGES,
  'log_every_steps': _integer(1, MOST),
  'model.*.activation': _TEXT,
  'model.*.dropout': _number(0, 1, below=True),
  'model.*.features': _WIDTH._replace(several=None),
  'model.*.group': _WIDTH,
  'model.*.num_downsamples': _integer(0, 16),
  'model.*.hidden': _WIDTH._replace(several=True),
  'model.*.most_features': _WIDTH,
  'model.*.negative_slope': _number(-1, 1),
  'model.*.normalized': _FLAG,
  'model.*.output': _TEXT,
  'model.*.pool': _TEXT,
  'model.*.remat': _FLAG,
  'model.*.spectral': _FLAG,
  'model.*.stddev_group': _integer(0, 2**16),
  'on_divergence': _TEXT,
  'optimizer.*.b1': _MOMENTUM,
  'optimizer.*.b2': _MOMENTUM,
  'optimizer.*.decay': _MOMENTUM,
  'optimizer.*.eps': _number(0, 1),
  'optimizer.*.lazy_interval': _integer(1, 10_000, none=True),
  'optimizer.*.learning_rate': _number(0, 10, above=True),
  'optimizer.*.momentum': _MOMENTUM,
  'parallel': _TEXT,
  'precision': _TEXT,
  'steps_per_dispatch': _integer(1, 10_000),
  'sample_every_images': _IMAGES,
  'seed': _integer(0, 2**32 - 1),
  'total_images': _IMAGES._replace(none=True),
  'wandb': _FLAG,
  # Parts of a user's own may have keys that are not here.
  '*.name': _TEXT,
}


def bound_of(key: str) -> Bound | None:
  """The row of the table for a key of a config; None: it has none."""
  if key in BOUNDS:
    return BOUNDS[key]
  rows = (row for x, row in BOUNDS.items() if fnmatch.fnmatchcase(key, x))
  return next(rows, None)


def check_values(flat: Mapping[str, Any]) -> None:
  """Refuses a value of a config, flat, that is out of its bounds."""
  for key, value in flat.items():
    bound = bound_of(key)
    problem = bound.problem(value) if bound else ''
    if problem:
      raise UserError(f'config.{key}={value!r} {problem}')
    if bound is None and isinstance(value, float) and not math.isfinite(value):
      raise UserError(f'config.{key}={value} must be finite')
