"""The evaluator: applies the same metrics and protocol to every generator."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key, PyTree
from ml_collections import ConfigDict

from gan_jax import devices
from gan_jax.data.on_device import read_unflipped
from gan_jax.data.preprocess import VERSION
from gan_jax.data.source import Fingerprint, Source
from gan_jax.errors import UserError
from gan_jax.files import cache_folder
from gan_jax.games.game import Game, Phase, main_output, truncated
from gan_jax.keys import Purpose, example_keys
from gan_jax.metrics import features as networks
from gan_jax.metrics import input_cache
from gan_jax.metrics.choice import choose_metrics, needs_of
from gan_jax.metrics.conditional import (
  check_conditional,
  check_labels,
  requested_labels,
)
from gan_jax.metrics.extractor import (
  Batches,
  CheckStop,
  Extractor,
  fetched,
)
from gan_jax.metrics.fingerprint import (
  describe,
  fingerprint,
  label_digest,
)
from gan_jax.metrics.measure import Reference, get_metric
from gan_jax.metrics.metric_inputs import MetricInputs, collect
from gan_jax.metrics.path_length import (
  PATHS,
  check_game,
  distance_features,
  path_lengths,
  sample_paths,
)
from gan_jax.metrics.scores import Score, comparison_digest, protocol_digest
from gan_jax.ops.pixels import quantize

# Metric -> score -> the values of all seeds.
Values = dict[str, dict[str, list[float]]]


class Evaluator:
  """Evaluates generators, and images, by one protocol.

  Args:
    block: The settings, as in `config.evaluation`.
    source: The reference data, all of it.
    description: Describes the data in the protocol.
    held_out: Data that `source` does not contain, if a metric needs it.
    labels: The labels of the fakes of a conditional G: 'data', drawn from the
      labels of `source`; 'uniform', all classes equally. None: G is not
      conditional.
    inputs: The real examples that the game's `sample_inputs` reads; None:
      `source`.
    output: The evaluated output of a game with several; None: the main one.
    paired: Whether the output has targets, for paired metrics.
    max_reals: The largest number of real images; None: all of `source`.

  Raises:
    UserError: A metric is unknown, or its requirements are missing.
  """

  def __init__(
    self,
    block: ConfigDict,
    source: Source,
    description: Mapping[str, Any],
    held_out: Source | None = None,
    labels: str | None = None,
    inputs: Source | None = None,
    output: str | None = None,
    paired: bool = False,
    max_reals: int | None = None,
  ):
    self.choice = choose_metrics(
      block.metrics, block.features, source.toy, paired
    )
    self.metrics = self.choice.metrics
    self.features = None
    if self.choice.features is not None:
      self.features = networks.make(self.choice.features)
    self._toy, self.labels = source.toy, labels
    self._inputs, self._output = inputs or source, output
    self.num_samples, self.seeds = block.num_samples, block.seeds
    for name, value in (('num_samples', 2), ('seeds', 1)):
      if block[name] < value:
        raise UserError(
          f'config.evaluation.{name}={block[name]} must be at least {value}'
        )
    if inputs is not None:  # each real example once
      self.num_samples = min(self.num_samples, inputs.size)
    needs = needs_of(self.metrics, held_out)
    self._paths = sorted(needs & PATHS.keys())
    self._needs = needs.difference(self._paths)
    self._source, self._held_out = source, held_out
    example = source.fetch(np.arange(1))
    self._extractor = Extractor(
      self._needs, self.features, self.num_samples, example['images']
    )
    predicted = self._extractor.check(self.metrics, bool(self._paths))
    if 'label_accuracy' not in self.metrics:
      predicted = None
    if 'labels' in self._needs:
      check_labels(example.get('labels'), len(source.classes), predicted)
    self._description = {**description, 'preprocessing': VERSION}
    self._named_protocol = block.get('protocol')
    self.standing_batches = block.get('standing_batches')
    self._max_reals = max_reals
    self._fingerprint = fingerprint(source)
    self._held_out_fingerprint = held_out and fingerprint(held_out)
    self._reference: Reference | None = None

  @property
  def main(self) -> str | None:
    """The score that ranks checkpoints; None: no metric ranks them."""
    metrics = [get_metric(name) for name in self.metrics]
    main = next((metric.main for metric in metrics if metric.ranks), None)
    return main and self._named(main)

  def _named(self, score: str) -> str:
    """Prefixes the name of a score with that of the output."""
    return score if self._output is None else f'{self._output}/{score}'

  @property
  def comparison_digest(self) -> str:
    """The digest of the protocol of the score that ranks checkpoints.

    If no score ranks checkpoints, that of the first metric.
    """
    ranking = [m for m in self.metrics if get_metric(m).ranks]
    first = ranking[0] if ranking else self.metrics[0]
    fakes = {'labels': self.labels, 'standing_batches': self.standing_batches}
    return comparison_digest(self._protocol(first, fakes))

  def _protocol(self, metric: str, fakes: Mapping[str, Any]) -> dict[str, Any]:
    """Describes all that a score depends on, except the generator."""
    spec = get_metric(metric)
    pixels = spec.needs in ('images', 'pairs')
    network = None if pixels else self.features.identity
    output = {} if self._output is None else {'output': self._output}
    held_out = None
    if spec.needs_held_out:
      held_out = describe(self._held_out, self._held_out_fingerprint)
    if self._named_protocol is not None:
      output['protocol'] = self._named_protocol
    reals = {}
    if self._max_reals is not None and self._max_reals < self._source.size:
      reals['used'] = self._max_reals
    return {
      'metric': {'name': metric, 'version': spec.version},
      'features': network,
      'reference': {
        **self._description,
        **describe(self._source, self._fingerprint),
        **reals,
      },
      'held_out': held_out,
      **output,
      'fakes': {'images': self.num_samples, 'seeds': self.seeds, **fakes},
    }

  def make_evaluate_fn(
    self,
    game: Game,
    truncation: float | None = None,
    exact: Game | None = None,
  ) -> Callable[..., Values]:
    """Makes a function (variables of G, on every device; phase) -> values.

    Its optional third argument is a `CheckStop`.

    Args:
      game: The game that samples inputs and generates images.
      truncation: As in `Run.inputs`.
      exact: The game in float32, for path lengths. None: `game`.
    """
    check_game(self._paths, game)
    if 'labels' in self._needs:
      check_conditional(self.labels)
    size = self._extractor.batch_size(self.num_samples)
    output = main_output(game)
    if self._output is not None:
      output = game.outputs[self._output]
    labels = None
    if self.labels == 'data':
      labels = devices.replicate(self._source.labels())

    @devices.jit_over_rows
    def generate_and_extract(rows, gen_vars, weights, labels, phase, key):
      keys, batch = _keys_and_batch(rows, labels, key)
      inputs = truncated(
        game, game.sample_inputs(keys, batch, phase), truncation
      )
      images = self._quantize(output.sample(gen_vars, inputs, phase))
      asked = requested_labels(inputs) if 'labels' in self._needs else None
      extracted = self._extractor.extract(weights, images, asked)
      if 'pairs' in self._needs:
        extracted['given'] = self._quantize(output.given(batch))
        extracted['targets'] = self._quantize(output.target(batch))
      return extracted

    measure_paths = self._make_path_fn(exact or game, truncation)

    def evaluate(
      gen_vars: PyTree, phase: Phase, check_stop: CheckStop = lambda: None
    ) -> Values:
      def batches(seed: int) -> Batches:
        key = jax.random.key(seed)
        for first in range(0, self.num_samples, size):
          rows = self._real_rows(game.reads, first, size)
          rows['example'] = jnp.arange(first, first + size)
          args = rows, gen_vars, self._extractor.weights, labels, phase, key
          yield generate_and_extract(*args) | measure_paths(*args)

      return self._compute_values(batches, self.num_samples, check_stop)

    return evaluate

  def _make_path_fn(
    self, game: Game, truncation: float | None
  ) -> Callable[..., dict[str, Array]]:
    """Makes a function that measures the path lengths of a batch.

    Its arguments are those of `generate_and_extract`.
    """

    @devices.jit_over_rows
    def measure(rows, gen_vars, weights, labels, phase, key):
      keys, batch = _keys_and_batch(rows, labels, key)
      unit = partial(distance_features, self.features, weights)
      sample = partial(sample_paths, game, keys, batch, phase, truncation)
      return path_lengths(self._paths, game, gen_vars, sample, phase, unit)

    def measure_exactly(*args: PyTree) -> dict[str, Array]:
      if not self._paths:
        return {}
      # By default, accelerators round products by more than the images of two
      # cuts differ.
      with jax.default_matmul_precision('highest'):
        return measure(*args)

    return measure_exactly

  def _quantize(self, images: Array) -> Array:
    """Quantizes images to uint8, but not points."""
    return quantize(images) if self._toy is None else images

  def evaluate_images(self, source: Source) -> Values:
    """Computes the metrics of the first `num_samples` images of a source."""
    if self._paths:
      raise UserError(
        f'the metric {self._paths[0]} measures a generator, not images: pass a '
        'run, or another metric'
      )
    if 'labels' in self._needs:
      check_labels(source.fetch(np.arange(1)).get('labels'))
    batches = lambda seed: self._extractor.batches(source, self.num_samples)
    return self._compute_values(batches, self.num_samples)

  def list_scores(
    self,
    values: Values,
    fakes: Mapping[str, Any],
    step: int | None = None,
    images: int | None = None,
  ) -> list[Score]:
    """Makes a score of each value.

    Args:
      values: The values of an evaluation.
      fakes: Describes the fakes in the protocol.
      step, images: The progress of the generator; None: there is no generator.
    """
    scores = []
    for metric in self.metrics:
      protocol = self._protocol(metric, fakes)
      for name, per_seed in values[metric].items():
        one = len(per_seed) == 1
        std = None if one else float(np.std(per_seed, ddof=1))
        mean = float(np.mean(per_seed))
        ranks = self._named(name) == self.main
        best = get_metric(metric).best(name)
        scores.append(
          Score(
            self._named(name), mean, std, step, images, protocol, ranks, best
          )
        )
    return scores

  def _compute_values(
    self,
    batches: Callable[[int], Batches],
    count: int,
    check_stop: CheckStop = lambda: None,
  ) -> Values:
    """Computes all metrics for each seed."""
    values: Values = {metric: {} for metric in self.metrics}
    for seed in range(self.seeds):
      batches_of_seed = fetched(batches(seed), check_stop)
      needs = self._needs.union(self._paths)
      fake = collect(batches_of_seed, needs, count, self.num_samples)
      reference = self._load_or_compute_reference(check_stop)
      for metric in self.metrics:
        check_stop()
        computed = get_metric(metric).compute(reference, fake)
        for name, value in computed.items():
          values[metric].setdefault(name, []).append(float(value))
    return values

  def _load_or_compute_reference(self, check_stop: CheckStop) -> Reference:
    """Returns the metric inputs of the data: computed once, and cached."""
    if self._reference is None:
      of = partial(self._load_or_compute, check_stop)
      held_out = self._held_out
      self._reference = Reference(
        of(self._source, self._fingerprint),
        held_out and of(held_out, self._held_out_fingerprint),
        self._toy,
      )
    return self._reference

  def _load_or_compute(
    self, check_stop: CheckStop, source: Source, digests: Fingerprint
  ) -> MetricInputs:
    """Loads the metric inputs of a source from the cache, or computes them."""
    needs = self._needs - {'pairs'}
    if not needs:
      return MetricInputs(0)
    count = min(source.size, self._max_reals or source.size)
    if needs <= {'features', 'images', 'labels'}:
      count = min(count, self.num_samples)
    cache_key = {
      'description': self._description,
      'images': source.size,
      'data': digests,
      'labels': label_digest(source) if 'labels' in self._needs else None,
      'features': self.features and self.features.identity,
      'needs': {need: self._versions(need) for need in sorted(needs)},
      'most': self.num_samples,
      **({} if count == source.size else {'count': count}),
      'process': devices.process_rows().args,
    }
    file = cache_folder() / 'references' / f'{protocol_digest(cache_key)}.npz'
    # A custom function may depend on more than its hashed file.
    is_cacheable = not networks.is_custom(self.choice.features)
    inputs = input_cache.read(file) if is_cacheable else None
    if not devices.true_on_all(inputs is not None):
      if devices.is_main():
        print(f'Computing reference statistics of {count:,} images', flush=True)
      batches = fetched(self._extractor.batches(source, count), check_stop)
      inputs = collect(batches, needs, count, self.num_samples)
      if is_cacheable:
        input_cache.write(file, inputs)
    return inputs

  def _versions(self, need: str) -> list[int]:
    """Lists the versions of the metrics with a need."""
    rows = [get_metric(name) for name in self.metrics]
    return sorted({row.version for row in rows if row.needs == need})

  def _real_rows(
    self, reads: Sequence[str], first: int, size: int
  ) -> dict[str, Array]:
    """Reads the entries of real examples that a game's outputs need."""
    if not reads:
      return {}
    own = np.arange(first, first + size)[devices.process_rows()(size)]
    batch = read_unflipped(self._inputs, own % self._inputs.size, own)
    rows = {name: np.asarray(batch[name]) for name in reads}
    return devices.shard_rows(rows)


def _keys_and_batch(
  rows: Mapping[str, Array], labels: Array | None, key: Key[Array, '']
) -> tuple[Key[Array, ' n'], dict[str, Array]]:
  """Returns the keys of examples, and the batch that G's inputs follow.

  Without labels, a conditional game samples the classes equally.
  """
  batch = dict(rows)
  examples = batch.pop('example')
  if labels is not None:
    label_keys = example_keys(key, Purpose.LABELS, examples)
    batch['labels'] = _draw_labels(labels, label_keys)
  return example_keys(key, Purpose.EVALUATE, examples), batch


def _draw_labels(
  labels: Int32[Array, 'n ...'], keys: Key[Array, ' m']
) -> Int32[Array, 'm ...']:
  """Draws a label for each key, with the frequencies of the labels."""
  index = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(labels)))
  return labels[index(keys)]
