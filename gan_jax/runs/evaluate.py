"""Measures a run, or images from anywhere, in a notebook."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from gan_jax import data
from gan_jax.data.folder import folder, images_below
from gan_jax.data.source import DataSpec, Source, in_memory
from gan_jax.errors import UserError, suggest
from gan_jax.metrics.evaluator import Evaluator
from gan_jax.metrics.scores import Score
from gan_jax.runs.run import Run
from gan_jax.training.evaluations import (
  labels_for,
  make_evaluator,
  make_measure,
)

# What a notebook may say, and what holds where nobody does.
BLOCK = {
  'metrics': (),
  'features': None,
  'num_samples': 10_000,
  'seeds': 1,
  'held_out': None,
  'labels': None,
}


def evaluate_here(
  run_or_images: Any, reference: Any = None, **how: Any
) -> dict[str, Score]:
  """See `gan_jax.evaluate`."""
  of_run = isinstance(run_or_images, Run)
  if reference is None:
    if not of_run:
      raise UserError('images are compared with something: name a reference')
    reference = run_or_images
  truncation = how.pop('truncation', None)
  block = _block([run_or_images, reference], how)
  shape = _shape(run_or_images, reference)
  classes = 0
  if of_run:
    classes = run_or_images.config.data.get('classes', 0)
  else:
    images = _source(run_or_images, shape)
    block.num_samples, block.seeds = images.size, 1
    block.labels = how.get('labels')
  if isinstance(reference, Run):
    config = reference.config.copy_and_resolve_references()
    config.evaluation = block
    evaluator = make_evaluator(config, data.make(config), classes)
  else:
    resolution, channels = shape
    described = {'resolution': resolution, 'channels': channels}
    source = _source(reference, shape)
    labels = labels_for(block, classes, source)
    evaluator = Evaluator(block, source, described, labels=labels)
  if of_run:
    run = run_or_images
    measure = make_measure(evaluator, run.config, truncation)
    listed = measure(run.params, run.step)
  else:
    listed = evaluator.list_scores(evaluator.evaluate_images(images), {})
  return {score.name: score for score in listed}


def _block(given: list[Any], how: Mapping[str, Any]) -> ConfigDict:
  """The settings: what is said, else what the run has, else the usual."""
  for key in how:
    if key not in BLOCK:
      raise UserError(
        f'gan_jax.evaluate takes no {key!r}{suggest(key, BLOCK)} (valid: '
        f'{", ".join(BLOCK)}, truncation)'
      )
  runs = [x for x in given if isinstance(x, Run)]
  settings = runs[0].config.get('evaluation', {}) if runs else {}
  known = {key: settings[key] for key in BLOCK if key in settings}
  if runs and 'features' not in how:
    known['features'] = runs[0].features_of_config()
  block = {**BLOCK, **known, **how}
  if isinstance(block['metrics'], str):
    block['metrics'] = (block['metrics'],)
  block['metrics'] = tuple(block['metrics'])
  return ConfigDict(block)


def _shape(*given: Any) -> tuple[int, int]:
  """Resolution and channels, of which all that is given must be."""
  shapes = {
    (x.config.data.resolution, x.config.data.channels)
    if isinstance(x, Run)
    else (x.shape[1], x.shape[-1])
    for x in given
    if isinstance(x, Run) or _is_array(x)
  }
  if len(shapes) > 1:
    (one, other), *_ = itertools.combinations(sorted(shapes), 2)
    raise UserError(
      f'{one[0]}x{one[0]}x{one[1]} is not compared with '
      f'{other[0]}x{other[0]}x{other[1]}: they are other images'
    )
  return next(iter(shapes)) if shapes else (_size_of(given[0]), 3)


def _source(images: Any, shape: tuple[int, int]) -> Source:
  """Images from anywhere, as a source: an array, or a folder."""
  resolution, channels = shape
  if _is_array(images):
    if images.dtype != np.uint8 or images.shape[1:] != (resolution, *shape):
      raise UserError(
        f'images are uint8 [n, {resolution}, {resolution}, {channels}], not '
        f'{images.dtype} {list(images.shape)}'
      )
    return in_memory({'images': np.asarray(images)})
  if (size := _size_of(images)) != resolution:
    raise UserError(
      f'{images} has images of {size} pixels, to be compared with '
      f'{resolution}: resize one of them, in the way that you choose'
    )
  return folder(DataSpec(str(images), resolution, channels))


def _is_array(x: Any) -> bool:
  return isinstance(x, np.ndarray | jax.Array)


def _size_of(images: str | Path) -> int:
  """The shorter side of the first image of a folder."""
  first = min(images_below(Path(images).expanduser()), default=None)
  if first is None:
    raise UserError(f'there are no images below {str(images)!r}')
  with Image.open(first) as opened:
    return min(opened.size)
