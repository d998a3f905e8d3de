"""How well do representations learned without labels serve a classifier?

Compares encodings and discriminator features of runs with raw pixels, PCA and a
small VAE: the accuracy of a linear probe and of nearest neighbours, from few
labels to all.

  python examples/representations.py runs/bigan_digits runs/infogan_digits

The labelled digits are those on which the runs were trained (without labels).
Accuracy is measured on the 1,000 last of them, or on the official test set with
--test=FOLDER, which holds the files of MNIST. --output=FILE.png saves a plot.
Needs scikit-learn: pip install -e '.[examples]'.
"""

import argparse
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import gan_jax
from gan_jax.data.digits import digits
from gan_jax.data.mnist import parse_idx, unpack
from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError

COUNTS = 10, 100, 1000, 4000  # labels
DIM = 64  # of PCA and the VAE: that of the latents of vanilla_mnist.py

Encoder = Callable[[np.ndarray], np.ndarray]


def linear_probe(
  x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray
) -> float:
  """Returns the accuracy of a logistic regression on standardized features."""
  scaler = StandardScaler().fit(x)
  probe = LogisticRegression(C=0.1, max_iter=200, tol=1e-3)
  probe.fit(scaler.transform(x), y)
  return float(probe.score(scaler.transform(test_x), test_y))


def nearest_neighbors(
  x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray
) -> float:
  """Returns the accuracy of the 5 nearest neighbours (1 of ten or fewer)."""
  neighbors = KNeighborsClassifier(5 if len(x) > 10 else 1).fit(x, y)
  return float(neighbors.score(test_x, test_y))


def agreement(codes: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
  """Returns the NMI of codes and labels, and the accuracy after matching.

  The matching of codes to classes is the best that is one to one.
  """
  count = 1 + max(codes.max(), labels.max())
  table = np.zeros((count, count), int)
  np.add.at(table, (codes, labels), 1)
  rows, columns = linear_sum_assignment(-table)
  accuracy = table[rows, columns].sum() / len(labels)
  return float(normalized_mutual_info_score(labels, codes)), float(accuracy)


class VAE(nn.Module):
  """A variational autoencoder of dense layers (Kingma & Welling 2014)."""

  pixels: int
  hidden: int = 256

  def setup(self):
    self.encoder = nn.Sequential([nn.Dense(self.hidden), nn.relu])
    self.mean, self.log_std = nn.Dense(DIM), nn.Dense(DIM)
    self.decoder = nn.Sequential(
      [nn.Dense(self.hidden), nn.relu, nn.Dense(self.pixels)]
    )

  def encode(self, x):
    return self.mean(self.encoder(x))

  def __call__(self, x, key):
    """Returns the negative evidence lower bound of x in [0, 1]."""
    h = self.encoder(x)
    mean, log_std = self.mean(h), self.log_std(h)
    z = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
    logits = self.decoder(z)
    error = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
    kl = (jnp.exp(2 * log_std) + mean**2 - 1) / 2 - log_std
    return (error + kl.sum(-1)).mean()


def train_vae(images: np.ndarray, steps: int = 3000) -> Encoder:
  """Trains the VAE on uint8 images; returns its encoder."""
  flatten = lambda x: np.float32(x).reshape(len(x), -1) / 255
  data, vae = flatten(images), VAE(images[0].size)
  params = vae.init(jax.random.key(0), data[:1], jax.random.key(1))
  tx = optax.adam(1e-3)

  @jax.jit
  def step(carry, x, key):
    params, state = carry
    grads = jax.grad(vae.apply)(params, x, key)
    updates, state = tx.update(grads, state)
    return optax.apply_updates(params, updates), state

  rng, carry = np.random.default_rng(0), (params, tx.init(params))
  for i in range(steps):
    batch = data[rng.integers(0, len(data), 100)]
    carry = step(carry, batch, jax.random.fold_in(jax.random.key(2), i))
  encode = jax.jit(functools.partial(vae.apply, carry[0], method='encode'))
  return lambda x: np.asarray(encode(flatten(x)))


def encoders_of(workdir: str) -> dict[str, Encoder]:
  """Returns the representations that a run has, by name."""
  run = gan_jax.load(workdir)
  name, found = run.config.game.name, {}
  try:
    run.encode(run.sample(1))
  except UserError:
    pass
  else:
    found[f'{name}: encoding'] = lambda x: np.concatenate(
      list(run.encode(x).values()), axis=1
    )
  try:
    run.features(run.sample(1))
  except UserError:
    pass
  else:
    found[f'{name}: D'] = run.features
  return found


def compare(
  encoders: Mapping[str, Encoder],
  train: Mapping[str, np.ndarray],
  test: Mapping[str, np.ndarray],
) -> dict[str, dict[str, list[float]]]:
  """Returns the accuracies {name: {probe: [for each of COUNTS]}}."""
  results: dict[str, dict[str, list[float]]] = {}
  for name, encode in encoders.items():
    x, test_x = encode(train['images']), encode(test['images'])
    results[name] = {'linear': [], 'neighbours': []}
    for count in COUNTS:
      some = slice(0, count)
      data = x[some], train['labels'][some], test_x, test['labels']
      results[name]['linear'].append(linear_probe(*data))
      results[name]['neighbours'].append(nearest_neighbors(*data))
    print(
      f'{name:20}',
      *(
        f'{probe} ' + ' '.join(f'{value:.3f}' for value in values)
        for probe, values in results[name].items()
      ),
      flush=True,
    )
  return results


def plot(results: Mapping[str, Mapping[str, list[float]]]) -> Figure:
  """Plots accuracy against the number of labels."""
  figure = Figure((9, 4), layout='constrained')
  for axes, probe in zip(
    figure.subplots(1, 2, sharey=True), ('linear', 'neighbours'), strict=True
  ):
    for name, values in results.items():
      axes.plot(COUNTS, values[probe], 'o-', label=name)
    axes.set(xscale='log', xlabel='labels', title=probe)
  figure.axes[0].set_ylabel('accuracy')
  figure.axes[1].legend(fontsize='small')
  return figure


def read(test: str | None) -> tuple[dict, dict]:
  """Returns labelled digits to fit and to test, as many of each class."""
  source = digits(DataSpec('', 28, 1))
  order = np.random.default_rng(0).permutation(source.size)
  labels = source.fetch(order)['labels']
  # Balanced: the first ten digits have each class once.
  turns = np.array([(labels[:i] == c).sum() for i, c in enumerate(labels)])
  data = source.fetch(order[np.lexsort((labels, turns))])
  train = {name: x[:4000] for name, x in data.items()}
  if test is None:
    return train, {name: x[4000:] for name, x in data.items()}
  return train, read_test(test)


def read_test(folder: str) -> dict[str, np.ndarray]:
  """Reads the official test set of MNIST from its files."""
  names = {'images': 'images-idx3', 'labels': 'labels-idx1'}
  paths = {k: Path(folder) / f't10k-{x}-ubyte.gz' for k, x in names.items()}
  found = {name: parse_idx(unpack(path), path) for name, path in paths.items()}
  images = found['images'].reshape(-1, 28, 28, 1)
  return {'images': images, 'labels': np.int32(found['labels'])}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('workdirs', nargs='*')
  parser.add_argument('--test')
  parser.add_argument('--output')
  arguments = parser.parse_args()
  train, test = read(arguments.test)
  flat = lambda x: np.float32(x).reshape(len(x), -1) / 255
  pca = PCA(DIM, random_state=0).fit(flat(train['images']))
  encoders = {
    'pixels': flat,
    f'PCA {DIM}': lambda x: pca.transform(flat(x)),
    f'VAE {DIM}': train_vae(train['images']),
  }
  for workdir in arguments.workdirs:
    encoders |= encoders_of(workdir)
  print(f'Accuracy from {COUNTS} labels, on {len(test["labels"]):,} digits')
  results = compare(encoders, train, test)
  for workdir in arguments.workdirs:
    run = gan_jax.load(workdir)
    if run.config.game.name == 'infogan':
      codes = run.encode(test['images'])['class'].argmax(-1)
      nmi, accuracy = agreement(codes, test['labels'])
      print(f'{workdir}: NMI {nmi:.3f}, accuracy after matching {accuracy:.3f}')
  if arguments.output:
    plot(results).savefig(arguments.output)


if __name__ == '__main__':
  main()
