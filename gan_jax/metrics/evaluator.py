"""Measures generators, all of them in one way."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key, PyTree, Shaped
from ml_collections import ConfigDict

from gan_jax import devices
from gan_jax.data.order import Stream
from gan_jax.data.preprocess import VERSION
from gan_jax.data.source import Fingerprint, Source
from gan_jax.data.toys import Toy
from gan_jax.errors import UserError, warn
from gan_jax.files import cache_folder, write_whole
from gan_jax.games.game import Game, Phase, truncated
from gan_jax.keys import Purpose, example_keys
from gan_jax.metrics import features as networks
from gan_jax.metrics.choice import choose_metrics
from gan_jax.metrics.measure import (
  METRICS,
  UNRANKED,
  MetricInputs,
  Reference,
  collect,
)
from gan_jax.metrics.moments import Moments
from gan_jax.metrics.scores import Score, comparison_digest, protocol_digest
from gan_jax.ops.pixels import quantize

# Images that are made, or looked at, in one go: so many, and of so many pixels
# together.
BATCH, PIXELS = 250, 2**22
# A set up to so many bytes is told from another by all its pixels; a larger one
# by its files.
SMALL_BYTES = 2**26
# A distribution is known by so many of its examples.
DRAWN = 256
# Images that are fetched at a time where all are.
CHUNK = 4096

# Metric to its scores, each of every seed.
Values = dict[str, dict[str, list[float]]]
Batches = Iterable[dict[str, jax.Array]]


class Evaluator:
  """One way to measure generators.

  Args:
    block: As `config.evaluation`.
    source: The data that fakes are compared with, all of it.
    described: What it is, for the stamp.
    held_out: Data that is not in it, where a metric asks for that.
    toy: Of whose points it is, if it is not of images.
    labels: Of the fakes of a conditional G: 'data', drawn from the labels of
      `source`; 'uniform', each class as often. None: G is not conditional.

  Raises:
    UserError: A metric is unknown, or what it needs is not there.
  """

  def __init__(
    self,
    block: ConfigDict,
    source: Source,
    described: Mapping[str, Any],
    held_out: Source | None = None,
    toy: Toy | None = None,
    labels: str | None = None,
  ):
    self.choice = choose_metrics(block.metrics, block.features, toy)
    self.metrics = self.choice.metrics
    self.features = None
    if self.choice.features is not None:
      self.features = networks.make(self.choice.features)
    self._toy, self.labels = toy, labels
    self.num_samples, self.seeds = block.num_samples, block.seeds
    for name, value in (('num_samples', 2), ('seeds', 1)):
      if block[name] < value:
        raise UserError(f'evaluation.{name}={block[name]}: at least {value}')
    if 'memorisation' in self.metrics and held_out is None:
      raise UserError(
        'memorisation is measured against data that was held out: '
        '--config.evaluation.held_out=SPLIT'
      )
    self._needs = {METRICS[name].needs for name in self.metrics}
    self._source, self._held_out = source, held_out
    self._weights = ()
    if self.features:
      self._weights = devices.replicate(self.features.weights)
    self._look = devices.by_rows(self._seen)
    self._image = source.fetch(np.arange(1))['images']
    self._check_network()
    self._described = {**described, 'preprocessing': VERSION}
    self._fingerprint = _fingerprint(source)
    self._held_out_fingerprint = held_out and _fingerprint(held_out)
    self._reference: Reference | None = None

  @property
  def main(self) -> str | None:
    """The score by which a checkpoint is the best; None: none tells that."""
    names = [METRICS[metric].main for metric in self.metrics]
    return next((name for name in names if name not in UNRANKED), None)

  @property
  def comparison_digest(self) -> str:
    """In short, how the score is obtained by which a checkpoint is the best.

    Where none tells that, how the first one is.
    """
    ranking = [m for m in self.metrics if METRICS[m].main == self.main]
    first = ranking[0] if ranking else self.metrics[0]
    return comparison_digest(self._protocol(first, {'labels': self.labels}))

  def _protocol(self, metric: str, fakes: Mapping[str, Any]) -> dict[str, Any]:
    """What a score of the metric depends on beside the generator."""
    row = METRICS[metric]
    network = None if row.needs == 'images' else self.features.identity
    held_out = None
    if metric == 'memorisation':
      held_out = _describe_source(self._held_out, self._held_out_fingerprint)
    return {
      'metric': {'name': metric, 'version': row.version},
      'features': network,
      'reference': {
        **self._described,
        **_describe_source(self._source, self._fingerprint),
      },
      'held_out': held_out,
      'fakes': {'images': self.num_samples, 'seeds': self.seeds, **fakes},
    }

  def make_evaluate_fn(
    self, game: Game, truncation: float | None = None
  ) -> Callable[[PyTree, Phase], Values]:
    """What measures G: (its variables, on every device; the phase) -> values.

    Args:
      game: Whose `draw` and `sample` it is.
      truncation: As of `Run.inputs`.
    """
    size = self._size(self.num_samples)
    labels = None
    if self.labels == 'data':
      labels = devices.replicate(self._source.labels())

    @devices.by_rows
    def play(examples, gen_vars, weights, labels, phase, key):
      keys = example_keys(key, Purpose.EVALUATE, examples)
      batch = {}  # of which the game draws each class as often
      if labels is not None:
        own = example_keys(key, Purpose.LABELS, examples)
        batch['labels'] = _drawn(labels, own)
      inputs = truncated(
        game, game.sample_inputs(keys, batch, phase), truncation
      )
      images = game.sample(gen_vars, inputs, phase)
      if self._toy is None:
        images = quantize(images)
      return self._seen(images, weights)

    def measure(gen_vars: PyTree, phase: Phase) -> Values:
      def batches(seed: int) -> Batches:
        key = jax.random.key(seed)
        for first in range(0, self.num_samples, size):
          examples = jnp.arange(first, first + size)
          yield play(examples, gen_vars, self._weights, labels, phase, key)

      return self._values(batches, self.num_samples)

    return measure

  def evaluate_images(self, source: Source) -> Values:
    """Measures images from anywhere: the first `num_samples` of a source."""
    batches = lambda seed: self._batches(source, self.num_samples)
    return self._values(batches, self.num_samples)

  def list_scores(
    self,
    values: Values,
    fakes: Mapping[str, Any],
    step: int | None = None,
    images: int | None = None,
  ) -> list[Score]:
    """Each value with its stamp; `fakes`: what that says of them."""
    listed = []
    for metric in self.metrics:
      protocol = self._protocol(metric, fakes)
      for name, several in values[metric].items():
        one = len(several) == 1
        std = None if one else float(np.std(several, ddof=1))
        mean = float(np.mean(several))
        ranks = name == self.main
        listed.append(Score(name, mean, std, step, images, protocol, ranks))
    return listed

  def _values(self, batches: Callable[[int], Batches], count: int) -> Values:
    values: Values = {metric: {} for metric in self.metrics}
    for seed in range(self.seeds):
      made = _fetched(batches(seed))
      fake = collect(made, self._needs, count, self.num_samples)
      for metric in self.metrics:
        for name, value in (
          METRICS[metric].compute(self.reference, fake).items()
        ):
          values[metric].setdefault(name, []).append(float(value))
    return values

  @property
  def reference(self) -> Reference:
    """What the data looks like: seen once, and kept on disk."""
    if self._reference is None:
      held_out = self._held_out
      self._reference = Reference(
        self._kept(self._source, self._fingerprint),
        held_out and self._kept(held_out, self._held_out_fingerprint),
        self._toy,
      )
    return self._reference

  def _kept(self, source: Source, fingerprint: Fingerprint) -> MetricInputs:
    count = source.size
    if self._needs <= {'features', 'images'}:
      count = min(count, self.num_samples)
    told = {
      'described': self._described,
      'images': source.size,
      'data': fingerprint,
      'features': self.features and self.features.identity,
      'needs': {need: self._versions(need) for need in sorted(self._needs)},
      'most': self.num_samples,
      'process': devices.process_rows().args,
    }
    file = cache_folder() / 'references' / f'{protocol_digest(told)}.npz'
    # Of what a function of the user's depends on, nothing is known.
    kept = not networks.is_custom(self.choice.features)
    seen = _read(file) if kept else None
    if not devices.all_agree(seen is not None):
      if devices.is_main():
        print(f'Looking at {count:,} images of the data', flush=True)
      batches = _fetched(self._batches(source, count))
      seen = collect(batches, self._needs, count, self.num_samples)
      if kept:
        _write(file, seen)
    return seen

  def _versions(self, need: str) -> list[int]:
    """Of the metrics that need it."""
    rows = [METRICS[name] for name in self.metrics]
    return sorted({row.version for row in rows if row.needs == need})

  def _batches(self, source: Source, count: int) -> Batches:
    """Of so many images of a source, chosen as by chance."""
    order = Stream(0, source.size).indices(np.arange(source.size))
    size = self._size(count)
    mine = devices.process_rows()(size)
    for first in range(0, count, size):
      positions = np.arange(first, first + size) % source.size
      images = source.fetch(order[positions[mine]])['images']
      yield self._look(devices.share_out(images), self._weights)

  def _size(self, count: int) -> int:
    """Of a batch, of so many images in all."""
    pixels = self._image.shape[1] * self._image.shape[2]
    return devices.rows_at_a_time(max(1, min(BATCH, count, PIXELS // pixels)))

  def _seen(
    self, images: Shaped[Array, 'n h w c'], weights: PyTree
  ) -> dict[str, Array]:
    """Of a batch: what the metrics need."""
    seen = {'images': images} if 'images' in self._needs else {}
    if self._needs - {'images'}:
      looked = self.features.extract(weights, images)
      if self._needs & {'moments', 'features', 'all_features'}:
        seen['features'] = looked['features']
      if 'probabilities' in self._needs:
        seen['probabilities'] = looked['probabilities']
    return seen

  def _check_network(self) -> None:
    """Before anything is trained."""
    shape = list(self._image.shape[1:])
    try:
      seen = jax.eval_shape(self._seen, self._image, self._weights)
    except UserError:
      raise
    except KeyError as error:
      raise UserError(
        f'{self.features.name} gives no {error}, which one of '
        f'{", ".join(self.metrics)} needs: it is no classifier'
      ) from error
    except Exception as error:  # of a function of the user's
      line = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
      raise UserError(
        f'{self.features.name} does not take uint8 images [n, '
        f'{", ".join(map(str, shape))}]: {line}'
      ) from error
    if 'features' in seen and seen['features'].ndim != 2:
      raise UserError(
        f'{self.features.name} is to give features [n, d], not '
        f'[n, {", ".join(map(str, seen["features"].shape[1:]))}]'
      )


def _drawn(
  labels: Int32[Array, 'n ...'], keys: Key[Array, ' m']
) -> Int32[Array, 'm ...']:
  """A label for each key, as likely as it is among all."""
  index = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(labels)))
  return labels[index(keys)]


def _describe_source(
  source: Source, fingerprint: Fingerprint
) -> dict[str, Any]:
  """What a stamp says of a set of images."""
  return {'images': source.size, 'content': fingerprint.content}


def _fingerprint(source: Source) -> Fingerprint:
  """What tells a set of images from another."""
  small = source.size * source.example_bytes <= SMALL_BYTES
  if source.draw is not None:  # machines differ in the last bit
    images = source.fetch(np.arange(min(DRAWN, source.size)))['images']
    content = hashlib.sha256(images.round(3).tobytes()).hexdigest()[:16]
    return Fingerprint(content, content)
  if source.fingerprint is not None and not small:
    whole = source.fingerprint()
    return Fingerprint(*(digest[:16] for digest in whole))
  pixels = hashlib.sha256()
  for first in range(0, source.size, CHUNK):
    rows = np.arange(first, min(first + CHUNK, source.size))
    pixels.update(source.fetch(rows)['images'].tobytes())
  return Fingerprint(*2 * [pixels.hexdigest()[:16]])


def _fetched(batches: Batches) -> Iterator[dict[str, np.ndarray]]:
  """To the host; the devices work on the next one meanwhile."""
  waiting = None
  for batch in batches:
    if waiting is not None:
      yield devices.fetch(waiting)
    waiting = batch
  if waiting is not None:
    yield devices.fetch(waiting)


def _write(file: Path, seen: MetricInputs) -> None:
  arrays = {k: v for k, v in seen._asdict().items() if v is not None}
  if (moments := arrays.pop('moments', None)) is not None:
    arrays.update({f'moments_{k}': v for k, v in moments._asdict().items()})
  written = io.BytesIO()
  np.savez(written, **arrays)
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, written.getvalue())
  except OSError as error:
    warn(f'{file} cannot be written: {error.strerror}')


def _read(file: Path) -> MetricInputs | None:
  """What was written; None: nothing, or it is damaged."""
  try:
    with file.open('rb') as opened:
      arrays = dict(np.load(opened))
  except (OSError, ValueError, EOFError, zipfile.BadZipFile):
    return None
  parts = {k: arrays.pop(f'moments_{k}', None) for k in Moments._fields}
  moments = None
  if parts['count'] is not None:
    moments = Moments(**{**parts, 'count': int(parts['count'])})
  count = int(arrays.pop('count'))
  return MetricInputs(count, moments, **arrays)
