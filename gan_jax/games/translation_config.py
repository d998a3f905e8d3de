"""Games from images to images, made from a config."""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn

from gan_jax.errors import UserError
from gan_jax.games import cut as cut_games
from gan_jax.games import losses
from gan_jax.games.config_parts import both_networks
from gan_jax.games.cyclegan import cyclegan_game
from gan_jax.games.game import Game
from gan_jax.games.pix2pix import pix2pix_game
from gan_jax.games.super_resolution import (
  PIXEL_LOSSES,
  Weights,
  super_resolution_game,
)
from gan_jax.models import perceptual
from gan_jax.pair import Pair
from gan_jax.registry import accepts, build, check_keys, choose


def cyclegan(config: Any, axis_name: str | None) -> Game:
  """Makes the game `cyclegan`."""
  block = config.game
  keys = ('name', 'loss', 'cycle_a', 'cycle_b', 'identity', 'pool_size')
  networks = _networks(config, axis_name, keys)
  return cyclegan_game(
    **networks._asdict(),
    loss=_loss(config),
    cycle={'a': block.cycle_a, 'b': block.cycle_b},
    identity=block.identity,
    pool_size=block.pool_size,
    axis_name=axis_name,
  )


def pix2pix(config: Any, axis_name: str | None) -> Game:
  """Makes the game `pix2pix`."""
  keys = ('name', 'loss', 'pixel', 'direction')
  networks = _networks(config, axis_name, keys)
  return pix2pix_game(
    **networks._asdict(),
    loss=_loss(config),
    pixel=config.game.pixel,
    direction=config.game.direction,
    axis_name=axis_name,
  )


def cut(config: Any, axis_name: str | None) -> Game:
  """Makes the game `cut`."""
  block = config.game
  keys = (
    'name', 'loss', 'direction', 'nce', 'identity', 'temperature', 'patches',
  )  # fmt: skip
  networks = _networks(config, axis_name, keys)
  return cut_games.cut_game(
    **networks._asdict(),
    loss=_loss(config),
    weights=cut_games.Weights(
      block.nce, block.identity, block.temperature, block.patches
    ),
    direction=block.direction,
    axis_name=axis_name,
  )


def super_resolution(config: Any, axis_name: str | None) -> Game:
  """Makes the game `super_resolution`."""
  block = config.game
  keys = (
    'name', 'loss', 'scale', 'pixel_loss', 'pixel', 'feature', 'features',
    'adversarial',
  )  # fmt: skip
  networks = _networks(config, axis_name, keys, scale=block.scale)
  choose('config.game.pixel_loss', block.pixel_loss, PIXEL_LOSSES)
  weights = Weights(block.pixel, block.feature, block.adversarial)
  if not any(weights):
    raise UserError(
      'config.game: pixel, feature and adversarial are all 0, so G has no '
      'loss: set --config.game.pixel=1'
    )
  return super_resolution_game(
    **networks._asdict(),
    scale=block.scale,
    loss=_loss(config),
    pixel_loss=block.pixel_loss,
    weights=weights,
    features=perceptual.make(block.features) if block.feature else None,
    axis_name=axis_name,
  )


def _networks(
  config: Any, axis_name: str | None, keys: Sequence[str], **more: Any
) -> Pair[nn.Module]:
  """Checks the keys of `config.game`, and makes both networks.

  Raises:
    UserError: A key is unknown or missing, or G does not take images.
  """
  check_keys('config.game', config.game, sorted(keys))
  for key in keys:
    if key not in config.game:
      raise UserError(f'the config has no key game.{key}: add it to get_config')
  networks = both_networks(config, axis_name, **more)
  first = accepts(type(networks.gen).__call__)[1]
  if first == 'z':
    raise UserError(
      f'{config.model.gen.name} maps latents to images, but the generator of '
      f'{config.game.name} maps images to images: choose another '
      'config.model.gen.name'
    )
  return networks


def _loss(config: Any) -> losses.GANLoss:
  block = config.game.loss.to_dict()
  return build('config.game.loss', losses.LOSSES, block)
