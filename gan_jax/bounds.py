"""The table of valid types and bounds of each key of a config."""

import fnmatch
import functools
import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

from gan_jax.errors import UserError

Number = float | int


class Bound(NamedTuple):
  """The valid values of a key.

  Attributes:
    kind: The type of the value, or of each item of a tuple.
    low, high: The range of a number, both ends included.
    above: Whether to exclude `low`.
    below: Whether to exclude `high`.
    none: Whether None is valid, also as a flag: `--config.data.crop=None`.
    several: Whether the value must be a tuple; None: it may be one.
  """

  kind: type
  low: Number = -math.inf
  high: Number = math.inf
  above: bool = False
  below: bool = False
  none: bool = False
  several: bool | None = False

  def problem(self, value: Any) -> str:
    """Returns what is wrong with a value: `must be positive`; `` if valid."""
    if value is None:
      return '' if self.none else f'must be {self._noun()}'
    if isinstance(value, tuple) and self.several is not False:
      problems = [self._item_problem(item) for item in value]
      return next(filter(None, problems), '')
    if self.several:
      return f'must be a tuple whose items are each {self._noun()}'
    return self._item_problem(value)

  def _item_problem(self, value: Any) -> str:
    is_number = not isinstance(value, bool) and isinstance(value, int | float)
    has_type = is_number if self.kind is float else isinstance(value, self.kind)
    if not has_type or (self.kind is int and isinstance(value, bool)):
      return f'must be {self._noun()}'
    if self.kind not in (int, float):
      return ''
    if not (value > self.low if self.above else value >= self.low):
      return self._range(short=True)  # NaN too
    is_below = value < self.high if self.below else value <= self.high
    return '' if is_below else self._range()

  def _noun(self) -> str:
    nouns = {bool: 'True or False', float: 'a number', int: 'an integer'}
    return nouns.get(self.kind, 'a string') + (' or None' if self.none else '')

  def _range(self, short: bool = False) -> str:
    if short and (self.kind, self.low, self.above) in POSITIVE:
      return 'must be positive' + (' or None' if self.none else '')
    if short and (self.low, self.above) == (0, False):
      return 'must be 0 or more'
    low, high = _format(self.low), _format(self.high)
    if not (self.above or self.below):
      return f'must be from {low} to {high}'
    above = 'greater than' if self.above else 'at least'
    below = 'less than' if self.below else 'at most'
    return f'must be {above} {low} and {below} {high}'


# (kind, low, above) of the ranges of positive integers and positive numbers.
POSITIVE = (int, 1, False), (float, 0, True)


def _format(end: Number) -> str:
  return f'{end:,}' if isinstance(end, int) else f'{end:g}'


# The largest number of images or bytes: exact as a float, without overflow.
MAX_COUNT = 2**50


def _number(low: Number, high: Number, **more: Any) -> Bound:
  return Bound(float, low, high, **more)


def _integer(low: int, high: int, **more: Any) -> Bound:
  return Bound(int, low, high, **more)


_TEXT, _FLAG = Bound(str), Bound(bool)
_IMAGES = _integer(1, MAX_COUNT)
_WIDTH = _integer(1, 2**16)
_MOMENTUM = _number(0, 1, below=True)

# Keys, or patterns of keys. The first pattern that matches applies.
BOUNDS: dict[str, Bound] = {
  'batch_size': _integer(1, 2**20),
  'checkpoint_every_images': _IMAGES,
  'checkpoints_to_keep': _integer(1, 10_000),
  'data.a': _TEXT._replace(none=True),
  'data.b': _TEXT._replace(none=True),
  'data.cache_gb': _number(0, 1e6, above=True, none=True),
  'data.channels': _integer(1, 64),
  'data.classes': _integer(0, 2**20),
  'data.crop': _integer(1, 2**16, none=True),
  'data.dir': _TEXT._replace(none=True),
  'data.files': _TEXT._replace(none=True),
  'data.flip': _FLAG,
  'data.load_resolution': _integer(1, 4096, none=True),
  'data.max_device_bytes': _integer(0, MAX_COUNT),
  'data.pyramid': _FLAG,
  'data.resolution': _integer(1, 4096),
  'data.rotate': _FLAG,
  'data.shards': _TEXT,
  'data.shuffle_window': _IMAGES._replace(none=True),
  'data.size': _integer(1, MAX_COUNT, several=None),
  'data.source': _TEXT._replace(none=True),
  'data.split': _TEXT,
  'data.workers': _integer(0, 256, none=True),
  'disc_steps': _integer(1, 10_000),
  'ema_halflife_images': _number(0, MAX_COUNT),
  'ema_rampup': _number(0, 1, above=True, none=True),
  'evaluation.every_images': _IMAGES._replace(none=True),
  'evaluation.features': _TEXT._replace(none=True),
  'evaluation.held_out': _TEXT._replace(none=True),
  'evaluation.labels': _TEXT._replace(none=True),
  'evaluation.metrics': _TEXT._replace(several=True),
  'evaluation.num_samples': _integer(2, 10_000_000),
  'evaluation.protocol': _TEXT._replace(none=True),
  'evaluation.seeds': _integer(1, 1000),
  'evaluation.standing_batches': _integer(1, 10_000, none=True),
  'game.ada.adjust_images': _IMAGES,
  'game.ada.every': _integer(1, 10_000),
  'game.ada.p': _number(0, 1),
  'game.ada.pipeline': _TEXT,
  'game.ada.target': _number(-1, 1, none=True),
  'game.augment': _TEXT._replace(several=True),
  'game.adversarial': _number(0, 1e6),
  'game.auxiliary.*': _number(0, 1e6),
  'game.cycle_?': _number(0, 1e6),
  'game.clip': _number(0, 1e6, above=True, none=True),
  'game.direction': _TEXT,
  'game.feature': _number(0, 1e6),
  'game.features': _TEXT,
  'game.identity': _number(0, 1e6),
  'game.categories': _integer(2, 2**16),
  'game.class_weight': _number(0, 1e6),
  'game.code_weight': _number(0, 1e6),
  'game.codes': _integer(0, 2**16),
  'game.freeze_disc': _integer(0, 10_000),
  'game.instance_noise': _number(0, 1e6),
  'game.latent': _TEXT,
  'game.latent_dim': _WIDTH,
  'game.loss.*_label': _number(-1e3, 1e3),
  'game.nce': _number(0, 1e6),
  'game.pack': _integer(1, 256),
  'game.patches': _integer(2, 2**16),
  'game.pixel': _number(0, 1e6),
  'game.pixel_loss': _TEXT,
  'game.pool_size': _integer(0, 10_000),
  'game.scale': _integer(2, 8),
  'game.temperature': _number(0, 1e6, above=True),
  'game.penalties.*.std': _number(0, 1e6),
  'game.gen_penalties.*.batch_shrink': _integer(1, 2**16),
  'game.*penalties.*.decay': _number(0, 1, above=True),
  'game.*penalties.*.every': _integer(1, 10_000),
  'game.penalties.*.one_sided': _FLAG,
  'game.penalties.*.target': _number(0, 1e6, above=True),
  'game.*penalties.*.weight': _number(0, 1e9),
  'gen_batch_size': _integer(1, 2**20, none=True),
  'growth.*.batch_size': _integer(1, 2**20),
  'growth.*.learning_rate_factor': _number(0, 1e3),
  'growth.*_images': _IMAGES,
  'init.digest': _TEXT,
  'init.players': _TEXT._replace(several=True),
  'init.source': _TEXT._replace(none=True),
  'init.state': _FLAG,
  'log_every_steps': _integer(1, MAX_COUNT),
  'model.*.activation': _TEXT,
  'model.*.architecture': _TEXT,
  'model.*.clamp': _number(0, 1e9, above=True, none=True),
  'model.*.attention': _integer(2, 4096, several=True),
  'model.*.dropout': _number(0, 1, below=True),
  'model.*.fused': _FLAG,
  'model.*.features': _WIDTH._replace(several=None),
  'model.*.expansion': _integer(1, 16),
  'model.*.growth': _WIDTH,
  'model.*.group': _WIDTH,
  'model.*.groups': _WIDTH._replace(several=True),
  'model.*.num_downsamples': _integer(0, 16),
  'model.*.hidden': _WIDTH._replace(several=True),
  'model.*.lowprec': _integer(0, 16),
  'model.*.mapping_layers': _integer(1, 64),
  'model.*.mixing': _number(0, 1),
  'model.*.initializer': _TEXT,
  'model.*.most_features': _WIDTH,
  'model.*.negative_slope': _number(-1, 1),
  'model.*.norm': _TEXT,
  'model.*.num_blocks': _integer(0, 1000),
  'model.*.normalized': _FLAG,
  'model.*.output': _TEXT,
  'model.*.outputs': _integer(0, 2**16),
  'model.*.pool': _TEXT,
  'model.*.remat': _FLAG,
  'model.*.shared_dim': _WIDTH,
  'model.*.spectral': _FLAG,
  'model.*.stddev_channels': _integer(0, 2**10),
  'model.*.stddev_group': _integer(0, 2**16),
  'model.*.w_decay': _MOMENTUM,
  'model.*.w_dim': _WIDTH,
  'model.*.wide': _FLAG,
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
  # (Parts that users add may have further keys.)
  '*.name': _TEXT,
}


@functools.cache
def bound_of(key: str) -> Bound | None:
  """Returns the bound of a key of a config; None: the table has none."""
  if key in BOUNDS:
    return BOUNDS[key]
  matching = (
    bound
    for pattern, bound in BOUNDS.items()
    if fnmatch.fnmatchcase(key, pattern)
  )
  return next(matching, None)


def check_values(flat: Mapping[str, Any]) -> None:
  """Refuses a flat config that has a value out of its bounds."""
  for key, value in flat.items():
    bound = bound_of(key)
    problem = bound.problem(value) if bound else ''
    if problem:
      raise UserError(f'config.{key}={value!r} {problem}')
    if bound is None and isinstance(value, float) and not math.isfinite(value):
      raise UserError(f'config.{key}={value} must be finite')


def check_counts(**counts: Any) -> None:
  """Raises a UserError if an argument is not a positive integer."""
  _check_integers(counts, 1)


def check_seed(seed: Any) -> None:
  """Raises a UserError unless `seed` is an integer, 0 or more."""
  _check_integers({'seed': seed}, 0)


def _check_integers(arguments: Mapping[str, Any], least: int) -> None:
  for name, value in arguments.items():
    is_integer = isinstance(value, numbers.Integral)
    if not is_integer or isinstance(value, bool):
      raise UserError(f'{name}={value!r} must be an integer')
    if value < least:
      raise UserError(f'{name}={value} must be {least} or more')
