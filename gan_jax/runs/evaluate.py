"""Measures a run, or any images, in a notebook."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from gan_jax import data, devices
from gan_jax.data.folder import folder, images_below
from gan_jax.data.source import DataSpec, Source, in_memory
from gan_jax.errors import UserError, suggest
from gan_jax.metrics.evaluator import Evaluator
from gan_jax.metrics.protocols import (
  check_settings,
  protocol_of,
  with_protocol,
)
from gan_jax.metrics.scores import Score
from gan_jax.runs.run import Run
from gan_jax.training.evaluations import (
  labels_for,
  make_evaluators,
  make_measure,
)

# The settings of `gan_jax.evaluate`, and their defaults.
DEFAULTS = {
  'metrics': (),
  'features': None,
  'num_samples': 10_000,
  'seeds': 1,
  'held_out': None,
  'labels': None,
  'protocol': None,
  'standing_batches': None,
}


def evaluate_here(
  run_or_images: Any, reference: Any = None, **settings: Any
) -> dict[str, Score]:
  """Measures a run or images; see `gan_jax.evaluate`."""
  is_run = isinstance(run_or_images, Run)
  if reference is None:
    if not is_run:
      raise UserError(
        'images need a reference: pass a run, images or a folder as the second '
        'argument'
      )
    reference = run_or_images
  truncation = settings.pop('truncation', None)
  block = _merge_settings([run_or_images, reference], settings)
  shape = _common_shape(run_or_images, reference)
  classes = 0
  if is_run:
    classes = run_or_images.config.data.get('classes', 0)
  else:
    images = _source(run_or_images, shape)
    block.num_samples, block.seeds = images.size, 1
    block.labels = settings.get('labels')
  if isinstance(reference, Run):
    config = reference.config.copy_and_resolve_references()
    config.evaluation = block
    evaluators = make_evaluators(config, data.make(config), classes)
  else:
    resolution, channels = shape
    described = {'resolution': resolution, 'channels': channels}
    source = _source(reference, shape)
    protocol = protocol_of(block)
    block = with_protocol(block, source.size, classes)
    labels = labels_for(block, classes, source)
    inputs = None
    if is_run and run_or_images.reads:
      inputs = data.make(run_or_images.config)
    evaluators = (
      Evaluator(
        block,
        source,
        described,
        labels=labels,
        inputs=inputs,
        max_reals=protocol and protocol.max_reals,
      ),
    )
  if is_run:
    run = run_or_images
    measure = make_measure(evaluators, run.config, truncation)
    gen_vars = devices.replicate(jax.tree.map(np.asarray, run.params))
    listed = measure(gen_vars, run.step)
  else:
    evaluator = evaluators[0]
    if evaluator.num_samples != images.size:
      raise UserError(
        f'protocol={block.protocol!r} takes {evaluator.num_samples:,} fakes, '
        f'not {images.size:,}: remove protocol, or pass as many images'
      )
    listed = evaluator.list_scores(evaluator.evaluate_images(images), {})
  return {score.name: score for score in listed}


def _merge_settings(
  measured: list[Any], settings: Mapping[str, Any]
) -> ConfigDict:
  """Merges the settings with those of the run, and with the defaults."""
  for key in settings:
    if key not in DEFAULTS:
      raise UserError(
        f'gan_jax.evaluate takes no {key!r}{suggest(key, DEFAULTS)} (valid: '
        f'{", ".join(DEFAULTS)}, truncation)'
      )
  runs = [x for x in measured if isinstance(x, Run)]
  block = runs[0].config.get('evaluation', {}) if runs else {}
  of_run = {key: block[key] for key in DEFAULTS if key in block}
  if runs and 'features' not in settings:
    of_run['features'] = runs[0].features_of_config()
  check_settings(settings.get('protocol'), settings)
  block = {**DEFAULTS, **of_run, **settings}
  if isinstance(block['metrics'], str):
    block['metrics'] = (block['metrics'],)
  block['metrics'] = tuple(block['metrics'])
  return ConfigDict(block)


def _common_shape(*measured: Any) -> tuple[int, int]:
  """Returns the resolution and the channels, which must all be equal."""
  shapes = {
    (x.config.data.resolution, x.config.data.channels)
    if isinstance(x, Run)
    else (x.shape[1], x.shape[-1])
    for x in measured
    if isinstance(x, Run) or _is_array(x)
  }
  if len(shapes) > 1:
    (one, other), *_ = itertools.combinations(sorted(shapes), 2)
    raise UserError(
      f'images of {one[0]}x{one[0]}x{one[1]} cannot be compared with images '
      f'of {other[0]}x{other[0]}x{other[1]}'
    )
  return next(iter(shapes)) if shapes else (_size_of(measured[0]), 3)


def _source(images: Any, shape: tuple[int, int]) -> Source:
  """Makes a source from an array or a folder of images."""
  resolution, channels = shape
  if _is_array(images):
    if images.dtype != np.uint8 or images.shape[1:] != (resolution, *shape):
      raise UserError(
        f'images must be uint8 [n, {resolution}, {resolution}, {channels}], '
        f'not {images.dtype} {list(images.shape)}'
      )
    return in_memory({'images': np.asarray(images)})
  if (size := _size_of(images)) != resolution:
    raise UserError(
      f'{images} has images of {size} pixels, but the others have '
      f'{resolution}: resize one of the sets'
    )
  return folder(DataSpec(str(images), resolution, channels))


def _is_array(x: Any) -> bool:
  return isinstance(x, np.ndarray | jax.Array)


def _size_of(images: str | Path) -> int:
  """Returns the shorter side of the first image in a folder."""
  first = min(images_below(Path(images).expanduser()), default=None)
  if first is None:
    raise UserError(f'there are no images below {str(images)!r}')
  with Image.open(first) as opened:
    return min(opened.size)
