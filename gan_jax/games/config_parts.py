"""Parts of a game, made from a config: networks, loss, latents, schedule."""

from typing import Any

from flax import linen as nn

from gan_jax import models
from gan_jax.errors import UserError
from gan_jax.games import latents, losses
from gan_jax.pair import Pair
from gan_jax.registry import build, choose_or_import

# Scheduled values that training reads, not the game.
TRAINING_VALUES = ('optimizer.', 'ema_halflife_images')


def loss_and_latents(config: Any) -> dict[str, Any]:
  """Makes the arguments of games that map latents to images."""
  game = config.game
  return {
    'loss': build('config.game.loss', losses.LOSSES, game.loss.to_dict()),
    'latent': choose_or_import(
      'config.game.latent', game.latent, latents.LATENTS
    ),
    'latent_dim': game.latent_dim,
  }


def both_networks(
  config: Any, axis_name: str | None, **more: Any
) -> Pair[nn.Module]:
  """Makes both networks of `config.model`; `more` as in `make_networks`."""
  for player in Pair._fields:
    if 'name' not in config.get('model', {}).get(player, {}):
      raise UserError(
        f'the config has no key model.{player}.name: add it to get_config'
      )
  return make_networks(config, config.model.to_dict(), axis_name, **more)


def make_networks(
  config: Any, blocks: dict[str, Any], axis_name: str | None, **more: Any
) -> Pair[nn.Module]:
  """Makes the networks of `blocks`; `more` has further arguments of theirs."""
  return models.make(
    blocks,
    resolution=config.data.resolution,
    channels=config.data.channels,
    precision=config.precision,
    axis_name=axis_name,
    auxiliary='auxiliary' in config.game,
    **more,
  )


def scheduled_values(config: Any) -> set[str]:
  """Names of the values in the schedule, except those of training."""
  segments = config.get('schedule', ())
  names = {name for segment in segments for name in segment.get('values', {})}
  return {name for name in names if not name.startswith(TRAINING_VALUES)}
