"""DCGAN on a folder of few images, with adaptive augmentation.

The settings are those of dcgan_folder.py with three changes. Reals and fakes
are augmented in front of D with a probability that rises while D overfits:
Karras et al. 2020, "Training generative adversarial networks with limited
data". D has no BatchNorm and is regularized by R1, as the D of the paper.

  python launch.py --config=experiments/ada_folder.py \
    --config.data.source=folder:/path/to/images --config.data.resolution=64

`disc/ada_p` in metrics.jsonl is the probability, and `disc/ada_sign` the mean
sign of D's logits of reals that drives it.
"""

from ml_collections import ConfigDict

from experiments import dcgan_folder


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = dcgan_folder.get_config(arg)
  config.model.disc.normalized = False
  config.game.penalties = ConfigDict({'r1': {'weight': 1.0}})
  config.game.ada = ConfigDict(
    {
      'pipeline': 'bgc',
      'p': 0.0,  # at the start
      'target': 0.6,
      'adjust_images': 500_000,  # p changes by 1 in as many
      'every': 4,
    }
  )
  if arg == 'tiny':
    config.game.ada.adjust_images = 200
    config.game.ada.every = 3
  return config
