"""The parameters of R3GAN's reference code, by its names, and golden numbers.

The numbers are those of github.com/brownvc/R3GAN at its published networks, run
in PyTorch 2.14 in float64 on a CPU, with the parameters and inputs that this
file makes: widths 8 and 6 at 4x4 and 8x8, groups 2 and 3, three classes.
"""

import zlib

import numpy as np

WIDTHS, GROUPS, CLASSES, LATENT_DIM = (8, 6), (2, 3), 3, 5
LABELS = np.array([2, 0, 1])


def block(prefix, width, groups):
  wide = 2 * width
  return {
    f'{prefix}.LinearLayer1.Layer.weight': (wide, width, 1, 1),
    f'{prefix}.LinearLayer2.Layer.weight': (wide, wide // groups, 3, 3),
    f'{prefix}.LinearLayer3.Layer.weight': (width, wide, 1, 1),
    f'{prefix}.NonLinearity1.Bias': (wide,),
    f'{prefix}.NonLinearity2.Bias': (wide,),
  }


def gen_shapes(classes=CLASSES, widths=WIDTHS, groups=GROUPS, z=LATENT_DIM):
  """Returns the shapes of the generator's parameters, without fixed buffers."""
  layers, shapes = 'Model.MainLayers', {}
  for stage, (width, group) in enumerate(zip(widths, groups, strict=True)):
    first = f'{layers}.{stage}.Layers.0'
    if stage == 0:
      shapes[f'{first}.Basis'] = (width, 4, 4)
      shapes[f'{first}.LinearLayer.weight'] = (width, z * (2 if classes else 1))
    elif width != widths[stage - 1]:
      shapes[f'{first}.LinearLayer.Layer.weight'] = (
        width, widths[stage - 1], 1, 1,
      )  # fmt: skip
    for index in (1, 2):
      shapes |= block(f'{layers}.{stage}.Layers.{index}', width, group)
  shapes['Model.AggregationLayer.Layer.weight'] = (3, widths[-1], 1, 1)
  if classes:
    shapes['Model.EmbeddingLayer.weight'] = (z, classes)
  return shapes


def disc_shapes(classes=CLASSES, widths=WIDTHS, groups=GROUPS):
  """Returns the shapes of the discriminator's parameters."""
  layers, widths, groups = 'Model.MainLayers', widths[::-1], groups[::-1]
  shapes = {'Model.ExtractionLayer.Layer.weight': (widths[0], 3, 1, 1)}
  for stage, (width, group) in enumerate(zip(widths, groups, strict=True)):
    for index in (0, 1):
      shapes |= block(f'{layers}.{stage}.Layers.{index}', width, group)
    last = f'{layers}.{stage}.Layers.2'
    if stage + 1 == len(widths):
      shapes[f'{last}.Basis.weight'] = (width, 1, 4, 4)
      outputs = width if classes else 1
      shapes[f'{last}.LinearLayer.weight'] = (outputs, width)
    elif width != widths[stage + 1]:
      shapes[f'{last}.LinearLayer.Layer.weight'] = (
        widths[stage + 1], width, 1, 1,
      )  # fmt: skip
  if classes:
    shapes['Model.EmbeddingLayer.weight'] = (widths[-1], classes)
  return shapes


def values(name, shape, dtype=np.float64):
  """Returns normal values that depend on the name."""
  fan_in = max(int(np.prod(shape[1:])), 1)
  scale = 0.3 if len(shape) == 1 else fan_in**-0.5
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  return (scale * rng.standard_normal(shape)).astype(dtype)


def arrays(shapes, dtype=np.float64):
  return {name: values(name, shape, dtype) for name, shape in shapes.items()}
