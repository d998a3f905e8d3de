"""Directions in latent space along which samples change in one respect."""

import numbers
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree
from PIL import Image

from gan_jax.bounds import check_counts
from gan_jax.errors import UserError
from gan_jax.metrics.features import make as make_features
from gan_jax.plots.grid import show
from gan_jax.registry import choose

if TYPE_CHECKING:
  from gan_jax.runs.run import Labels, Run

# Samples whose features are extracted together.
BATCH = 250

Vectors = Float[np.ndarray, 'n d']


class Directions(NamedTuple):
  """Directions in latent space, the most effective first.

  Attributes:
    vectors: Unit vectors.
    names: The name of each: its number, or its class.
  """

  vectors: Vectors
  names: tuple[str, ...]


def directions(
  run: 'Run',
  n: int = 8,
  method: str = 'sefa',
  labels: str | Int[np.ndarray, ' m'] | None = None,
  samples: int = 2000,
  seed: int = 0,
) -> Directions:
  """Finds `n` directions in the space of z.

  Args:
    run: The run.
    n: The number of directions.
    method: 'sefa': the eigenvectors of A^T A, where A are G's first weights,
      by decreasing eigenvalues (Shen & Zhou 2021, SeFa, equation 5). 'pca': the
      principal components of the activations of G's middle layer over samples,
      mapped to z by least squares (Harkonen et al. 2020, GANSpace, equation 2).
      'labels': for each class, the normal of the plane that separates its
      latents from the others: S^-1 (mean of the class - mean), where S is the
      covariance of the latents (linear discriminant; Shen et al. 2020,
      InterfaceGAN, use an SVM).
    labels: For 'labels': the class of each of `run.sample(samples, seed)`, or
      the name of features that classify: digits or cifar10.
    samples: The number of samples, for 'pca' and 'labels'.
    seed: Their seed.

  Raises:
    UserError: An argument is invalid, or the generator has no latents.
  """
  if run._game.interpolate is None:
    raise UserError('run.directions needs latents, and this game has none')
  check_counts(n=n, samples=samples)
  if (labels is not None) != (method == 'labels'):
    raise UserError(
      "labels= goes with method='labels': name a classifier, labels='digits', "
      'or pass the class of each sample'
    )
  if method == 'labels':
    return _of_labels(run, n, labels, samples, seed)
  find = choose('method', method, METHODS, or_else=', labels')
  vectors = find(run, samples, seed)
  if n > len(vectors):
    raise UserError(
      f'n={n} is more than the {len(vectors)} directions of this run'
    )
  return Directions(vectors[:n], tuple(map(str, range(n))))


def walk(
  run: 'Run',
  directions: Directions | Vectors,
  extent: float | int = 4,
  steps: int = 7,
  seed: int = 0,
  labels: 'Labels | None' = None,
) -> Image.Image:
  """Shows a sample moved along each direction, one in a row.

  The sample itself is in the middle: z + t v, with t from -extent to extent.

  Args:
    run: The run.
    directions: Of `run.directions`, or unit vectors [n, d].
    extent: The largest t.
    steps: The number of samples in a row.
    seed: The seed of the sample.
    labels: Of a conditional run: its class.
  """
  vectors = np.asarray(getattr(directions, 'vectors', directions))
  inputs = run.inputs(1, seed, labels=labels)
  if vectors.shape[1:] != inputs['z'].shape[1:]:
    raise UserError(
      f'directions of this run have the shape [n, {inputs["z"].shape[1]}], not '
      f'{list(vectors.shape)}'
    )
  check_counts(steps=steps)
  if not isinstance(extent, numbers.Real):
    raise UserError(f'extent={extent!r} must be a number')
  moves = np.linspace(-extent, extent, steps, dtype=np.float32)
  offsets = moves[None, :, None] * np.asarray(vectors, np.float32)[:, None]
  offsets = jnp.asarray(offsets.reshape(-1, vectors.shape[1]))
  repeated = jax.tree.map(lambda x: jnp.repeat(x, len(offsets), 0), inputs)
  moved = {**repeated, 'z': repeated['z'] + offsets}
  return show(run.generate(moved), columns=steps)


def _sefa(run: 'Run', samples: int, seed: int) -> Vectors:
  del samples, seed
  dim = run.inputs(1)['z'].shape[1]
  weights = first_weights(run.params['params'], dim, run._classes)
  _, vectors = np.linalg.eigh(np.float64(weights) @ np.float64(weights).T)
  return np.float32(vectors.T[::-1])


def first_weights(
  params: PyTree, dim: int, classes: int
) -> Float[np.ndarray, 'd e']:
  """Returns the weights of G's first layer that multiply z: [d, units].

  Raises:
    UserError: No dense layer has the width of the latents.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  # Flax numbers layers in the order in which they are called.
  padded = lambda path: [
    re.sub(r'\d+', lambda number: number[0].zfill(4), str(key.key))
    for key in path
  ]
  for _, x in sorted(leaves, key=lambda leaf: padded(leaf[0])):
    if x.ndim == 2 and x.shape[0] in (dim, dim + classes):
      return np.asarray(x)[:dim]  # labels follow the latents
  raise UserError(
    "this generator has no dense first layer: use method='pca' or 'labels'"
  )


def _pca(run: 'Run', samples: int, seed: int) -> Vectors:
  inputs = run.inputs(samples, seed)
  z = np.asarray(inputs['z'], np.float64)
  features = _activations(run, inputs)
  features -= features.mean(0)
  # The coordinates of the samples, each of unit variance, are the eigenvectors
  # of their inner products.
  squares, x = np.linalg.eigh(features @ features.T)
  count = min(z.shape[1], int((squares > 1e-10 * squares[-1]).sum()))
  x = x[:, ::-1][:, :count]
  vectors, *_ = np.linalg.lstsq(x, z - z.mean(0), rcond=None)
  return np.float32(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _activations(run: 'Run', inputs: PyTree) -> Float[np.ndarray, 'n d']:
  """Returns the activations of G's middle layer."""

  def extract(params: PyTree, inputs: PyTree) -> Array:
    outputs = []

    def record(call: Callable, args: tuple, kwargs: Mapping, context):
      output = call(*args, **kwargs)
      if context.method_name == '__call__' and isinstance(output, jax.Array):
        outputs.append(output.reshape(len(output), -1))
      return output

    with nn.intercept_methods(record):
      run.generator(params, inputs)
    return outputs[(len(outputs) - 1) // 2]

  extract, n = jax.jit(extract), len(inputs['z'])
  parts = [
    extract(run.params, jax.tree.map(lambda x, i=i: x[i : i + BATCH], inputs))
    for i in range(0, n, BATCH)
  ]
  return np.concatenate([np.float64(part) for part in parts])


def _of_labels(
  run: 'Run',
  n: int,
  labels: str | Int[np.ndarray, ' m'],
  samples: int,
  seed: int,
) -> Directions:
  """Returns the directions towards the `n` first classes."""
  inputs = run.inputs(samples, seed)
  if isinstance(labels, str):
    labels = _classify(labels, run.generate(inputs))
  labels = np.asarray(labels)
  if labels.shape != (samples,):
    raise UserError(
      f'pass {samples} labels, one for each of run.sample({samples}, '
      f'seed={seed}), not {list(labels.shape)}'
    )
  classes = np.unique(labels)
  if len(classes) < 2:
    raise UserError('labels must have at least two classes')
  z = np.asarray(inputs['z'], np.float64)
  means = np.stack([z[labels == c].mean(0) for c in classes[:n]])
  vectors = np.linalg.solve(np.cov(z.T), (means - z.mean(0)).T).T
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  return Directions(np.float32(vectors), tuple(map(str, classes[:n])))


def _classify(name: str, images: np.ndarray) -> Int[np.ndarray, ' n']:
  network = make_features(name)
  weights = jax.tree.map(jnp.asarray, network.weights)
  extract = jax.jit(network.extract)
  parts = []
  for i in range(0, len(images), BATCH):
    output = extract(weights, images[i : i + BATCH])
    if 'probabilities' not in output:
      raise UserError(f'labels={name!r} are features that do not classify')
    parts.append(np.asarray(output['probabilities']).argmax(-1))
  return np.concatenate(parts)


METHODS: dict[str, Callable[['Run', int, int], Vectors]] = {
  'pca': _pca,
  'sefa': _sefa,
}
