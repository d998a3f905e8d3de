"""Every loss with every penalty, on the 60,000 training digits of MNIST.

The MLP pair of vanilla_mnist.py, without dropout; Adam 2e-4 (0.5, 0.9). A loss
and a penalty are a flag each:

  python launch.py --config=experiments/losses_mnist.py \\
    --config.game.loss.name=hinge --config.game.penalties.r1.weight=10

finds or downloads the digits as dcgan_mnist.py says. The README has the table
of them all.
"""

from ml_collections import ConfigDict, config_dict

from experiments import vanilla_mnist


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop, on embedded digits."""
  config = vanilla_mnist.get_config(arg)
  config.model.disc.dropout = 0.0
  adam = {'name': 'adam', 'learning_rate': 2e-4, 'b1': 0.5, 'b2': 0.9}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})
  config.game.loss = ConfigDict({'name': 'non_saturating'})
  config.game.clip = config_dict.placeholder(float)  # D's parameters; None: no
  config.game.penalties = ConfigDict(
    {
      'gradient_penalty': {'weight': 0.0, 'target': 1.0, 'one_sided': False},
      'dragan': {'weight': 0.0, 'target': 1.0, 'deviation': 0.5},
      'r1': {'weight': 0.0},
      'r2': {'weight': 0.0},
      'drift': {'weight': 0.0},
    }
  )
  if arg != 'tiny':
    config.rounds_per_dispatch = 50
    config.log_every_steps = 500
    config.data.source = 'mnist'
    config.evaluation.num_samples = 10_000
  return config
