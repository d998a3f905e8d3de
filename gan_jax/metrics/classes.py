"""Metrics of the classes of samples, as a classifier predicts them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from gan_jax.errors import UserError


class InceptionScore(NamedTuple):
  """The mean and the standard deviation over the splits."""

  mean: float
  std: float


class ClassCoverage(NamedTuple):
  """How the fakes are distributed over the classes.

  Attributes:
    covered: The number of classes with at least one fake.
    kl: KL(fake || real) of the class histograms, in nats.
    histogram: The share of the fakes in each class.
  """

  covered: int
  kl: float
  histogram: Float[np.ndarray, ' classes']


def inception_score(
  probabilities: Float[np.ndarray, 'n classes'],
  splits: int = 10,
  seed: int = 2020,
) -> InceptionScore:
  """Computes the Inception Score: exp E_x KL(p(y | x) || p(y)).

  The score lies between 1 and the number of classes. p(y) is the mean of the
  split. Salimans et al. 2016, section 4, customarily with 50,000 fakes in 10
  splits. Examples are shuffled and split as in torch-fidelity.

  Args:
    probabilities: p(y | x), after the softmax.
    splits: The number of splits whose scores are averaged.
    seed: The seed of the shuffling.

  Raises:
    UserError: The rows are not probabilities, or fewer than the splits.
  """
  n = len(probabilities)
  if not 1 <= splits <= n:
    raise UserError(
      f'splits={splits} must be between 1 and the number of examples: pass '
      f'more than {n} examples, or reduce it'
    )
  p = np.asarray(probabilities, np.float64)
  if not (p.min() >= 0 and np.abs(p.sum(1) - 1).max() < 1e-3):
    raise UserError(
      'the rows must be probabilities (at least 0, with a sum of 1): apply '
      'softmax to logits first'
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
  """Counts the classes (modes) that the fakes cover, and compares histograms.

  KL(fake || real) = sum_c q_c log(q_c / p_c), with the shares q, p of class c

  Metz et al. 2017 (unrolled GANs) and Srivastava et al. 2017 (VEEGAN), on
  Stacked MNIST: 1,000 classes, customarily with 26,000 fakes. The divergence is
  infinite if a fake falls in a class without reals; that class counts too.

  Args:
    real_labels, fake_labels: 0 to classes - 1, from the same classifier.
    classes: The number of classes.

  Raises:
    UserError: A label is out of range, or there are none.
  """
  shares = []
  for kind, labels in (('real', real_labels), ('fake', fake_labels)):
    if not (labels.size and labels.min() >= 0 and labels.max() < classes):
      raise UserError(
        f'{kind} labels must be in 0..{classes - 1}, and at least one is '
        f'needed: check that there are {classes} classes'
      )
    shares.append(np.bincount(labels, minlength=classes) / labels.size)
  real, fake = shares
  kl = float(_kl(fake, real))
  return ClassCoverage(int((fake > 0).sum()), kl, fake)


def _kl(
  q: Float[np.ndarray, '*n classes'], p: Float[np.ndarray, ' classes']
) -> Float[np.ndarray, '*n'] | np.float64:
  """Computes sum q log(q / p), where 0 log 0 is 0."""
  with np.errstate(divide='ignore', invalid='ignore'):
    terms = q * (np.log(q) - np.log(p))
  return np.where(q > 0, terms, 0.0).sum(-1)
