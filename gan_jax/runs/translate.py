"""Translation of images by a trained run: arrays, and folders of files."""

from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from gan_jax.data.decode import decode, name_some, progress
from gan_jax.data.folder import images_below
from gan_jax.data.patches import read_image
from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError, warn
from gan_jax.keys import Purpose, example_keys
from gan_jax.plots.grid import write_png
from gan_jax.runs.upscale import upscale

if TYPE_CHECKING:
  from gan_jax.runs.run import Run

BATCH = 16  # images that are translated together


def translate(
  run: 'Run',
  images: np.ndarray,
  to: str | None = None,
  seed: int = 0,
) -> UInt8[np.ndarray, 'n H W d'] | Float[np.ndarray, 'n d']:
  """Translates images to the set `to`.

  >>> run.translate(images, to='b')

  Args:
    run: A run whose generator maps images to images.
    images: uint8 [n, h, w, c], of any size that the network takes; of a toy,
      points [n, c].
    to: 'a' or 'b'. None: the main output of the run.
    seed: That of the networks' noise (pix2pix); image i has key i.

  Raises:
    UserError: The run has no such output, or the images do not fit.
  """
  name = output_to(run, to)
  x = _in_range(run, np.asarray(images))
  keys = example_keys(jax.random.key(seed), Purpose.SAMPLE, jnp.arange(len(x)))
  inputs_of = run.outputs[name].inputs_of
  made = []
  for first in range(0, len(x), BATCH):
    rows = slice(first, first + BATCH)
    inputs = inputs_of(x[rows], keys[rows])
    made.append(run.generate(inputs, name))
  return np.concatenate(made)


def _in_range(run: 'Run', images: np.ndarray) -> Float[Array, 'n h w c']:
  """Converts uint8 images to [-1, 1], and points to images of one pixel.

  Raises:
    UserError: The images have another type or shape.
  """
  channels = run.config.data.channels
  if run.has_points:
    if images.ndim != 2 or images.shape[1] != channels or not len(images):
      raise UserError(
        f'expected points [n, {channels}], not {list(images.shape)}'
      )
    return jnp.asarray(images, jnp.float32)[:, None, None]
  shaped = images.ndim == 4 and images.shape[3] == channels and len(images)
  if images.dtype != np.uint8 or not shaped:
    raise UserError(
      f'expected images uint8 [n, h, w, {channels}], not {images.dtype} '
      f'{list(images.shape)}'
    )
  return jnp.asarray(images, jnp.float32) / 127.5 - 1


def output_to(run: 'Run', to: str | None) -> str:
  """Returns the name of the output that makes images like those of `to`.

  Raises:
    UserError: The run has no such output.
  """
  names = {
    output.reference: name
    for name, output in run.outputs.items()
    if output.inputs_of is not None
  }
  if not names:
    raise UserError(
      f'the generator of {run.workdir} is not given images: only runs of '
      'cyclegan, cut, pix2pix and super_resolution translate'
    )
  if to is None:
    return next(iter(names.values()))
  if to not in names:
    valid = ' or '.join(f'to={name!r}' for name in names)
    raise UserError(f'to={to!r}: this run translates {valid}')
  return names[to]


def apply_to_folder(
  run: 'Run',
  source: str | Path,
  output: str | Path,
  to: str | None = None,
  overwrite: bool = False,
) -> Path:
  """Applies the generator to all images of a folder, and saves PNG files.

  Super-resolution enlarges each image at its own size. Other runs translate
  what they are trained on: the central square, at the run's resolution. Files
  that cannot be decoded are named and skipped.

  Args:
    run: A run whose generator maps images to images.
    source: A folder of images.
    output: A folder; it gets a PNG file of the same path for each image.
    to: See `translate`.
    overwrite: Whether to replace existing files.

  Returns:
    The output folder.

  Raises:
    UserError: A folder has no images, or an output exists.
  """
  source, output = Path(source).expanduser(), Path(output).expanduser()
  name = output_to(run, to)
  paths = sorted(images_below(source)) if source.is_dir() else []
  if not paths:
    raise UserError(f'{source} has no images: name a folder of images')
  targets = _targets(source, output, paths, overwrite)
  data, failed = run.config.data, []
  spec = DataSpec('', data.resolution, data.channels, data.crop)
  for path in progress(paths, f'Applying {run.workdir}', len(paths)):
    enlarges = run.outputs[name].scale > 1
    image = read_image(path, data.channels) if enlarges else decode(path, spec)
    if image is None:
      failed.append(path)
      continue
    if enlarges:
      made = upscale(run, image)
    else:
      made = translate(run, image[None], to)[0]
    targets[path].parent.mkdir(parents=True, exist_ok=True)
    write_png(targets[path], made)
  if failed:
    warn(
      f'{len(failed)} of {len(paths)} files cannot be decoded and are skipped: '
      f'{name_some(failed)}'
    )
  return output


def _targets(
  source: Path, output: Path, paths: list[Path], overwrite: bool
) -> dict[Path, Path]:
  """Returns the PNG file of each image, and refuses to replace files."""
  targets: dict[Path, Path] = {}
  for path in paths:
    target = output / path.relative_to(source).with_suffix('.png')
    if target in targets.values():
      raise UserError(
        f'{path} and another image have the same name without the suffix: '
        'rename one'
      )
    targets[path] = target
  existing = [target for target in targets.values() if target.exists()]
  if existing and not overwrite:
    raise UserError(
      f'{len(existing)} files exist and would be replaced: '
      f'{name_some(existing)}; name another --output, or set --overwrite'
    )
  return targets
