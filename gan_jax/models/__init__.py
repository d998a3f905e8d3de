"""The networks. A new network is a file here and an entry in MODELS."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gan_jax.models import (
  biggan,
  dcgan,
  infogan,
  mlp,
  progressive,
  r3gan,
  resnet,
  style,
  style_2019,
  style_discriminator,
  super_resolution,
  translation,
)
from gan_jax.pair import Pair
from gan_jax.registry import build, choose

# The generators rrdb, srresnet, translation_* and unet map images to images;
# the others map latents to images.
MODELS: Pair[dict[str, type[nn.Module]]] = Pair(
  gen={
    'biggan': biggan.Generator,
    'dcgan': dcgan.Generator,
    'infogan': infogan.Generator,
    'mlp': mlp.Generator,
    'progressive': progressive.Generator,
    'r3gan': r3gan.Generator,
    'resnet': resnet.Generator,
    'rrdb': super_resolution.RRDB,
    'srresnet': super_resolution.SRResNet,
    'translation_mlp': mlp.Translator,
    'translation_resnet': translation.ResNet,
    'unet': translation.UNet,
    'style': style.Generator,
    'style_2019': style_2019.Generator,
  },
  disc={
    'dcgan': dcgan.Discriminator,
    'infogan': infogan.Discriminator,
    'mlp': mlp.Discriminator,
    'progressive': progressive.Discriminator,
    'r3gan': r3gan.Discriminator,
    'resnet': resnet.Discriminator,
    'patchgan': translation.PatchGAN,
    'vgg': super_resolution.VGG,
    'style': style_discriminator.Discriminator,
  },
)

PRECISIONS = {'bfloat16': jnp.bfloat16, 'float32': jnp.float32}


def make(
  blocks: Mapping[str, Mapping[str, Any]],
  *,
  resolution: int,
  channels: int,
  precision: str,
  axis_name: str | None,
  auxiliary: bool,
  **more: Any,
) -> Pair[nn.Module]:
  """Makes both networks from `config.model`.

  Args:
    blocks: `name` and the module's fields, for each player.
    resolution, channels: Those of the images.
    precision: A key of PRECISIONS.
    axis_name: The device axis under pmap.
    auxiliary: Whether D has an auxiliary classifier (AC-GAN).
    **more: Further fields of the networks that have them.

  Raises:
    UserError: A name or a field is unknown.
  """
  given = {
    'resolution': resolution,
    'channels': channels,
    'dtype': choose('config.precision', precision, PRECISIONS),
    'axis_name': axis_name,
    'auxiliary': auxiliary,
    **more,
  }
  return Pair(
    gen=build('config.model.gen', MODELS.gen, blocks['gen'], **given),
    disc=build('config.model.disc', MODELS.disc, blocks['disc'], **given),
  )
