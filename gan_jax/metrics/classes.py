"""What a classifier says of the samples."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from gan_jax.errors import UserError


class InceptionScore(NamedTuple):
  """Over the splits: the mean, and the standard deviation."""

  mean: float
  std: float


class ClassCoverage(NamedTuple):
  """How the fakes fall into the classes.

  Attributes:
    covered: Classes that any fake falls in.
    kl: KL(fake || real) of the histograms, in nats.
    histogram: Each class's share of the fakes.
  """

  covered: int
  kl: float
  histogram: Float[np.ndarray, ' classes']


def inception_score(
  probabilities: Float[np.ndarray, 'n classes'],
  splits: int = 10,
  seed: int = 2020,
) -> InceptionScore:
  """exp E_x KL(p(y | x) || p(y)): from 1 to the number of classes.

  Salimans et al. 2016, section 4. Customarily of 50,000 fakes in 10 splits,
  p(y) being the mean of the split. Shuffled, and split, as torch-fidelity does.

  Args:
    probabilities: p(y | x), after the softmax.
    splits: Parts whose scores are averaged.
    seed: Of the order in which the examples are split.

  Raises:
    UserError: The rows are not probabilities, or fewer than the splits.
  """
  n = len(probabilities)
  if not 1 <= splits <= n:
    raise UserError(
      f'splits={splits} must be from 1 to the {n} examples: give more examples'
    )
  p = np.asarray(probabilities, np.float64)
  if not (p.min() >= 0 and np.abs(p.sum(1) - 1).max() < 1e-3):
    raise UserError(
      'the rows are not probabilities (at least 0, with a sum of 1): take the '
      'softmax of logits first'
    )
  p = p[np.random.RandomState(seed).permutation(n)]
  scores = []
  for i in range(splits):
    part = p[i * n // splits : (i + 1) * n // splits]
    scores.append(np.exp(_kl(part, part.mean(0)).mean()))
  return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def class_coverage(
  real_labels: Integer[np.ndarray, ' n'],
  fake_labels: Integer[np.ndarray, ' m'],
  classes: int,
) -> ClassCoverage:
  """The modes that the fakes cover, and how evenly.

  KL(fake || real) = sum_c q_c log(q_c / p_c), with the shares q, p of class c

  Metz et al. 2017 (unrolled GANs), and Srivastava et al. 2017
  (VEEGAN), on Stacked MNIST: 1,000 classes, of customarily 26,000 fakes. The
  divergence is infinite where fakes fall in a class that no real is of; the
  class still counts as covered.

  Args:
    real_labels, fake_labels: 0 to classes - 1, by one and the same classifier.
    classes: How many there are.

  Raises:
    UserError: A label lies outside.
  """
  shares = []
  for kind, labels in (('real', real_labels), ('fake', fake_labels)):
    if not (labels.size and labels.min() >= 0 and labels.max() < classes):
      raise UserError(
        f'{kind} labels must be some, from 0 to {classes - 1}: are there '
        f'{classes} classes?'
      )
    shares.append(np.bincount(labels, minlength=classes) / labels.size)
  real, fake = shares
  kl = float(_kl(fake, real))
  return ClassCoverage(int((fake > 0).sum()), kl, fake)


def _kl(
  q: Float[np.ndarray, '*n classes'], p: Float[np.ndarray, ' classes']
) -> Float[np.ndarray, '*n'] | np.float64:
  """sum q log(q / p), 0 log 0 being 0."""
  with np.errstate(divide='ignore', invalid='ignore'):
    terms = q * (np.log(q) - np.log(p))
  return np.where(q > 0, terms, 0.0).sum(-1)
