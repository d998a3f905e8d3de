"""Draws G's gradient by both losses, while D alone learns.

  python tests/saturation.py FILE.png

G is fixed at N(-2, 0.2^2), and the data are N(1, 0.5^2): D separates them.
"""

import sys

import conftest  # noqa: F401, which configures JAX
from matplotlib.figure import Figure
from test_theory import against_a_fixed_generator, without_penalties

NAMES = {'minimax': 'E log(1 - D)', 'non_saturating': '-E log D'}


def main() -> None:
  """Trains D twice, for seconds."""
  figure = Figure((6, 2.8), layout='constrained')
  axes = figure.subplots()
  for name, label in NAMES.items():
    config = without_penalties('toy:gaussian')
    config.game.loss.name = name
    _, history = against_a_fixed_generator(config, 0.2, -2.0, 500)
    axes.semilogy(history['gen/loss_grad_norm'], label=label)
  axes.set(xlabel='iterations of D alone', ylabel="norm of G's gradient")
  axes.legend(frameon=False)
  axes.grid(alpha=0.3)
  figure.savefig(sys.argv[1], dpi=90)


if __name__ == '__main__':
  main()
