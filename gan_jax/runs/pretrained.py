"""Opens published generators as runs."""

from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from gan_jax import games
from gan_jax.errors import UserError
from gan_jax.pair import Pair
from gan_jax.runs.run import Run
from gan_jax.training import network_pkl
from gan_jax.training.schedule import make_schedule


class Pretrained(Run):
  """A published generator and discriminator, without a workdir.

  Attributes:
    workdir: The path of the file.
    config: The networks; nothing of the training is known.
    step, images: 0.
    params: The variables of the moving average of the generator.
  """

  def __init__(self, path: str, networks: network_pkl.Networks):
    self.workdir, self.config = path, _config(path, networks)
    self.step = self.images = 0
    self._trust = False
    self.params = _on_device(networks.ema.variables)
    self._game = games.make(self.config)
    self._phase = make_schedule(self.config).phase(0)
    self._generate = jax.jit(self.generator, static_argnames='output')
    self.has_points, self._classes = False, networks.ema.classes
    both = networks.gen.variables, networks.disc.variables
    self._variables = Pair(*map(_on_device, both))

  def __repr__(self) -> str:
    return f'Pretrained({self.workdir!r})'

  def _needs_run(self, *_: Any, **__: Any) -> NoReturn:
    raise UserError(
      f'{self.workdir} has no metrics, checkpoints or training data: use '
      'sample, interpolate, show or discriminator'
    )

  metrics = growth = nearest = _needs_run


def load_pkl(path: str | Path) -> Pretrained:
  """Opens a `.pkl` file; see `gan_jax.load_pkl`."""
  path = Path(path).expanduser()
  return Pretrained(str(path), network_pkl.read(path))


def _on_device(tree: PyTree) -> PyTree:
  return jax.tree.map(jnp.asarray, tree)


def _config(path: str, networks: network_pkl.Networks) -> ConfigDict:
  """Returns what the networks determine, and defaults of a game."""
  gen, disc = networks.ema, networks.disc
  if (gen.resolution, gen.classes) != (disc.resolution, disc.classes):
    raise UserError(f'{path}: G and D are of different images or classes')
  is_style = gen.block['name'] == 'style'
  loss = 'non_saturating' if is_style else 'relativistic'
  return ConfigDict(
    {
      'data': {
        'source': path,
        'resolution': gen.resolution,
        'channels': gen.channels,
        'classes': gen.classes,
      },
      'game': {
        'name': 'style' if is_style else 'image',
        'latent': 'gaussian',
        'latent_dim': gen.latent_dim,
        'loss': {'name': loss},
      },
      'model': {'gen': gen.block, 'disc': disc.block},
      'optimizer': {player: {'learning_rate': 1e-3} for player in Pair._fields},
      'precision': 'float32',
      'batch_size': 1,
      'gen_batch_size': None,
      'disc_steps': 1,
      'steps_per_dispatch': 1,
      'total_images': 1,
      'ema_halflife_images': 0,
      'ema_rampup': None,
    }
  )
