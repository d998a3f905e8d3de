"""The log ratio of p_data and p_G for given data, as D estimates it."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from gan_jax.bounds import check_counts
from gan_jax.errors import UserError
from gan_jax.games.losses import LOSSES
from gan_jax.registry import build

if TYPE_CHECKING:
  from gan_jax.runs.run import Labels, Run

Examples = Shaped[np.ndarray, '...']


class Comparison(NamedTuple):
  """D's log ratios, log p_data(x) - log p_G(x), of two sets of data.

  Attributes:
    a, b: The log ratio of each of `a` and of `b`.
    probability: The probability that D gives one of `a` a larger ratio than one
      of `b`, both drawn at random; a tie counts half. It is the area under the
      ROC curve (AUROC) of D as a detector of `a`.
  """

  a: Float[np.ndarray, ' n']
  b: Float[np.ndarray, ' m']
  probability: float

  def __repr__(self) -> str:
    """Formats the means and the probability."""
    return (
      f'Comparison(mean log ratios: a {self.a.mean():.3g}, b '
      f'{self.b.mean():.3g}; '
      f'a is more likely than b with probability {self.probability:.3f})'
    )


class Calibration(NamedTuple):
  """D(x) against the frequency of reals among equally many reals and fakes.

  Attributes:
    probability: The mean of D(x) in each bin of D(x); NaN: the bin is empty.
    frequency: The share of reals in each bin.
    count: The number of examples in each bin.
    error: The mean of |probability - frequency| over examples (the expected
      calibration error, Guo et al. 2017, equation 3); 0 for the optimal D.
  """

  probability: Float[np.ndarray, ' bins']
  frequency: Float[np.ndarray, ' bins']
  count: Shaped[np.ndarray, ' bins']
  error: float


def more_likely(
  run: 'Run', a: Examples, b: Examples, labels: 'Labels | None' = None
) -> Comparison:
  """Compares two sets of data by D's log density ratio.

  For the optimal D, sigmoid(logit) = p_data / (p_data + p_G) (Goodfellow et al.
  2014, proposition 1), so that the logit is log p_data(x) - log p_G(x). That is
  no likelihood: where both densities are low, as for images unlike any that D
  has seen, the ratio is arbitrary. `calibration` measures how far D is from
  the optimal one on data that it may be asked about.

  Args:
    run: The run.
    a, b: Images, uint8 or floats in [-1, 1], or points of a toy.
    labels: Of a conditional run: the class of each of `a` and of `b` (which
      have then equal lengths), or one for all.

  Raises:
    UserError: D's loss has no probabilities, or the data have another shape.
  """
  a, b = (np.asarray(x) for x in (a, b))
  for name, x in (('a', a), ('b', b)):
    if not x.ndim or not len(x):
      raise UserError(f'{name} of run.more_likely is empty')
  ratios = log_ratios(run, a, labels), log_ratios(run, b, labels)
  return Comparison(*ratios, auroc(*ratios))


def calibration(
  run: 'Run', reals: Examples, seed: int = 0, bins: int = 10
) -> Calibration:
  """Checks D(x) against the truth on reals and as many samples.

  Among the examples with D(x) near p, a share p is real if D is optimal.

  Args:
    run: The run, unconditional.
    reals: Real examples, best held out from training.
    seed: The seed of the samples.
    bins: The number of bins of D(x), of equal width.
  """
  check_counts(bins=bins)
  reals = np.asarray(reals)
  if not reals.ndim or not len(reals):
    raise UserError('reals of run.calibration is empty')
  fakes = run.sample(len(reals), seed)
  logits = np.concatenate([log_ratios(run, x) for x in (reals, fakes)])
  real = np.repeat([1.0, 0.0], len(reals))
  disc = 1 / (1 + np.exp(-np.float64(logits)))
  index = np.minimum((disc * bins).astype(int), bins - 1)
  count = np.bincount(index, minlength=bins)
  with np.errstate(invalid='ignore'):
    probability = np.bincount(index, disc, bins) / count
    frequency = np.bincount(index, real, bins) / count
  gaps = np.nan_to_num(np.abs(probability - frequency))
  return Calibration(
    probability, frequency, count, float((gaps * count).sum() / count.sum())
  )


def log_ratios(
  run: 'Run', x: Examples, labels: 'Labels | None' = None
) -> Float[np.ndarray, ' n']:
  """Returns D's log density ratio of each example.

  Raises:
    UserError: D's loss has no probabilities.
  """
  ratios = run.discriminator(x, labels)
  block = run.config.game.loss.to_dict()
  if not build('config.game.loss', LOSSES, block).probability:
    raise UserError(
      f'the loss {block["name"]!r} has no probabilities, so its D has no '
      'density ratio: use a cross-entropy loss, as non_saturating'
    )
  return ratios


def auroc(a: Float[np.ndarray, ' n'], b: Float[np.ndarray, ' m']) -> float:
  """Computes P(a > b) + P(a = b) / 2, the Mann-Whitney statistic."""
  ordered = np.sort(b)
  below = np.searchsorted(ordered, a, 'left')
  not_above = np.searchsorted(ordered, a, 'right')
  return float((below + not_above).mean() / (2 * len(b)))
