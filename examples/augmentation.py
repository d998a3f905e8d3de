"""Does generated data help? Digits with few labels, with and without a GAN.

For n real labelled digits of each class, trains a classifier on the digits
alone, with ordinary augmentation (shifts of up to 3 pixels), with samples of a
conditional GAN that was trained on those same digits, and with both. The
accuracy is that on the other embedded digits, or with --test=FOLDER on the
official test set, whose files are in FOLDER.

  python examples/augmentation.py --per_class 5 20 100 --seeds 5

The figure, augmentation.png, has the mean and the standard deviation over the
seeds. A run of the GAN takes half a minute on two free CPU cores.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8
from matplotlib.figure import Figure
from PIL import Image

import gan_jax
from gan_jax.data.digits import digits
from gan_jax.data.mnist import parse_idx, unpack
from gan_jax.data.source import DataSpec
from gan_jax.metrics.digits import CLASSIFIER
from gan_jax.models import classifier

EXPERIMENT = Path(__file__).parents[1] / 'experiments' / 'cgan_digits.py'
ARMS = 'real', 'augmented', 'generated', 'both'
# Updates of a classifier, of batches of 50: the same in each arm.
UPDATES, BATCH = 600, 50

Images = UInt8[np.ndarray, 'n 28 28 1']
Labels = Int32[np.ndarray, ' n']


def split(n: int, seed: int) -> tuple[Images, Labels, Images, Labels]:
  """Returns `n` digits of each class, and the others."""
  data = digits(DataSpec('', 28, 1)).fetch(np.arange(5000))
  order = np.random.default_rng(seed).permutation(5000)
  images, labels = data['images'][order], data['labels'][order]
  chosen = np.zeros(5000, bool)
  for c in range(10):
    chosen[np.flatnonzero(labels == c)[:n]] = True
  return images[chosen], labels[chosen], images[~chosen], labels[~chosen]


def read_test(folder: Path) -> tuple[Images, Labels]:
  """Reads the official test set of MNIST from its files."""
  paths = [
    folder / f't10k-{name}-ubyte.gz' for name in ('images-idx3', 'labels-idx1')
  ]
  images, labels = (parse_idx(unpack(path), path) for path in paths)
  return images.reshape(-1, 28, 28, 1), np.int32(labels)


def generate(
  images: Images, labels: Labels, count: int, seed: int, total_images: int
) -> tuple[Images, Labels]:
  """Trains a conditional GAN on labelled images; returns `count` samples."""
  with tempfile.TemporaryDirectory() as folder:
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
      path = Path(folder) / 'digits' / str(label)
      path.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image[..., 0]).save(path / f'{i}.png')
    config = gan_jax.experiment(
      str(EXPERIMENT),
      seed=seed,
      total_images=total_images,
      **{
        'data.source': f'folder:{folder}/digits',
        'data.split': 'all',
        'evaluation.every_images': None,
        'model.gen.hidden': (128, 256),
        'model.disc.hidden': (256, 128),
        'ema_halflife_images': 10_000,
        'sample_every_images': total_images,
        'checkpoint_every_images': total_images,
      },
    )
    run = gan_jax.train(config, Path(folder) / 'run')
    classes = np.int32(np.arange(count) % 10)
    return run.sample(count, labels=classes), classes


def accuracy(
  images: Images, labels: Labels, test: tuple[Images, Labels], shift: int
) -> float:
  """Trains the classifier of the digit features; returns its accuracy."""
  epochs = max(1, UPDATES * min(BATCH, len(images)) // len(images))
  params = classifier.train(
    CLASSIFIER.network, CLASSIFIER.create(), images, labels,
    epochs=epochs, batch=min(BATCH, len(images)), learning_rate=2e-3,
    shift=shift, flip=False,
  )  # fmt: skip
  found = [
    np.asarray(CLASSIFIER.extract(params, part)['probabilities']).argmax(-1)
    for part in np.array_split(test[0], max(1, len(test[0]) // 500))
  ]
  return float((np.concatenate(found) == test[1]).mean())


def trial(
  n: int,
  seed: int,
  total_images: int = 100_000,
  official: tuple[Images, Labels] | None = None,
) -> dict[str, float]:
  """Returns the accuracy of each arm for one seed."""
  images, labels, *rest = split(n, seed)
  test = official or (rest[0], rest[1])
  # As many samples as reals, at least 200: half of what the classifier sees.
  count = max(200, len(images))
  samples, classes = generate(images, labels, count, seed, total_images)
  repeats = -(-count // len(images))
  with_samples = (
    np.concatenate([*[images] * repeats, samples]),
    np.concatenate([*[labels] * repeats, classes]),
  )
  return {
    'real': accuracy(images, labels, test, 0),
    'augmented': accuracy(images, labels, test, 3),
    'generated': accuracy(*with_samples, test, 0),
    'both': accuracy(*with_samples, test, 3),
  }


def plot(results: dict[int, list[dict[str, float]]]) -> Figure:
  """Plots the mean of each arm, and the standard deviation over seeds."""
  figure = Figure((6, 4), layout='constrained')
  axes = figure.subplots()
  for index, arm in enumerate(ARMS):
    values = [[trial[arm] for trial in trials] for trials in results.values()]
    means, stds = ([f(row) for row in values] for f in (np.mean, np.std))
    shifted = [n * 1.04 ** (index - 1.5) for n in results]
    axes.errorbar(shifted, means, stds, fmt='o-', capsize=3, label=arm)
  axes.set(
    xscale='log', xlabel='real digits of each class', ylabel='test accuracy'
  )
  axes.set_xticks(list(results), list(map(str, results)))
  axes.legend()
  return figure


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--per_class', type=int, nargs='+', default=[5, 20, 100])
  parser.add_argument('--seeds', type=int, default=5)
  parser.add_argument('--total_images', type=int, default=100_000)
  parser.add_argument('--test')
  parser.add_argument('--output', default='augmentation.png')
  arguments = parser.parse_args()
  official = None
  if arguments.test:
    official = read_test(Path(arguments.test))
  results: dict[int, list[dict[str, float]]] = {}
  for n in arguments.per_class:
    results[n] = []
    for seed in range(arguments.seeds):
      found = trial(n, seed, arguments.total_images, official)
      results[n].append(found)
      listed = ', '.join(f'{arm} {value:.3f}' for arm, value in found.items())
      print(f'{n} of each class, seed {seed}: {listed}', flush=True)
    for arm in ARMS:
      values = [found[arm] for found in results[n]]
      print(f'{n}: {arm} {np.mean(values):.3f} +- {np.std(values):.3f}')
  plot(results).savefig(arguments.output)
  print(f'Figure: {arguments.output}')


if __name__ == '__main__':
  main()
