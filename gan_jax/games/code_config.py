"""InfoGAN and BiGAN made from a config."""

import inspect
from typing import Any

from flax import linen as nn

from gan_jax.errors import UserError
from gan_jax.games.bigan import bigan_game
from gan_jax.games.config_parts import (
  both_networks,
  loss_and_latents,
  make_networks,
)
from gan_jax.games.game import Game
from gan_jax.games.infogan import infogan_game, q_outputs
from gan_jax.registry import check_keys

KEYS = ('latent', 'latent_dim', 'loss', 'name')
CODE_KEYS = ('categories', 'class_weight', 'code_weight', 'codes')


def infogan(config: Any, axis_name: str | None) -> Game:
  """Makes the game `infogan`."""
  game = config.game
  check_keys('config.game', game, sorted((*KEYS, *CODE_KEYS)))
  _check_unconditional(config)
  networks = both_networks(config, axis_name)
  codes = {key: game[key] for key in CODE_KEYS if key in game}
  if 'categories' not in codes:
    raise UserError('this game has codes: set config.game.categories')
  outputs = q_outputs(game.categories, game.get('codes', 0))
  disc = _with_outputs('config.model.disc', networks.disc, outputs)
  return infogan_game(networks.gen, disc, **loss_and_latents(config), **codes)


def bigan(config: Any, axis_name: str | None) -> Game:
  """Makes the game `bigan`."""
  check_keys('config.game', config.game, sorted(KEYS))
  _check_unconditional(config)
  networks = both_networks(config, axis_name)
  if 'labels' not in inspect.signature(type(networks.disc).__call__).parameters:
    raise UserError(
      'this game needs a D of images and latents, which are passed as labels: '
      'choose config.model.disc.name=mlp or resnet'
    )
  if 'name' not in config.model.get('encoder', {}):
    raise UserError(
      'this game has an encoder: set config.model.encoder.name to a network of '
      'D, such as mlp or dcgan'
    )
  blocks = {**config.model.to_dict(), 'disc': config.model.encoder.to_dict()}
  encoder = make_networks(config, blocks, axis_name).disc
  dim = config.game.latent_dim
  encoder = _with_outputs('config.model.encoder', encoder, dim)
  return bigan_game(
    networks.gen, networks.disc, encoder, **loss_and_latents(config)
  )


def _check_unconditional(config: Any) -> None:
  """Raises UserError for a conditional config."""
  if config.data.get('classes', 0):
    raise UserError(
      f'config.game.name={config.game.name} learns without labels: set '
      'config.data.classes to 0'
    )


def _with_outputs(where: str, network: nn.Module, outputs: int) -> nn.Module:
  """Adds the second head to a network of D."""
  if not hasattr(network, 'outputs'):
    raise UserError(
      f'{where} needs a network with a second head: set {where}.name to mlp, '
      'dcgan or infogan'
    )
  return network.clone(outputs=outputs)
