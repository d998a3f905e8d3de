"""A folder with a static page that samples a generator in the browser."""

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gan_jax.errors import UserError
from gan_jax.files import cache_folder, write_whole

if TYPE_CHECKING:
  from gan_jax.runs.run import Run

# The version of ONNX Runtime for browsers, and its files that a page needs.
VERSION = '1.30.0'
RUNTIME = (
  'ort.wasm.min.js',
  'ort-wasm-simd-threaded.mjs',
  'ort-wasm-simd-threaded.wasm',
)
# Sliders, and the largest change along a direction.
DIRECTIONS, EXTENT = 6, 6


def write_page(
  run: 'Run',
  folder: Path,
  content: bytes,
  shapes: Mapping[str, tuple[int, ...]],
) -> None:
  """Writes the page: HTML, the generator, and ONNX Runtime for browsers.

  Args:
    run: The run.
    folder: The folder, which exists.
    content: The generator as an ONNX file.
    shapes: The shape of one row of each of its inputs.

  Raises:
    UserError: An input is an image, or the runtime cannot be downloaded.
  """
  if any(len(shape) != 1 for shape in shapes.values()) or 'z' not in shapes:
    raise UserError(
      'a page samples latents, but this generator reads images: export to .onnx'
    )
  for file in runtime_files():
    shutil.copyfile(file, folder / file.name)
  settings = {
    'title': f'Samples of {Path(run.workdir).name}',
    'inputs': shapes,
    'latent': run.config.game.get('latent', 'gaussian'),
    'directions': _directions(run),
    'extent': EXTENT,
  }
  write_whole(folder / 'settings.json', json.dumps(settings))
  write_whole(folder / 'generator.onnx', content)
  page = Path(__file__).with_name('page.html').read_text()
  write_whole(folder / 'index.html', page)


def _directions(run: 'Run') -> list[list[float]]:
  count = min(DIRECTIONS, run.inputs(1)['z'].shape[1])
  try:
    found = run.directions(count)
  except UserError:  # G has no dense first layer
    found = run.directions(count, 'pca', samples=500)
  return found.vectors.round(5).tolist()


def runtime_files() -> list[Path]:
  """Returns ONNX Runtime's files; npm downloads them once, to the user's cache.

  Raises:
    UserError: npm is missing, or the download failed.
  """
  folder = cache_folder() / f'onnxruntime-web-{VERSION}'
  files = [folder / name for name in RUNTIME]
  if all(file.is_file() for file in files):
    return files
  package = f'onnxruntime-web@{VERSION}'
  by_hand = (
    f'or put {", ".join(RUNTIME)} of the npm package {package} into {folder}'
  )
  if shutil.which('npm') is None:
    raise UserError(
      f'a page needs ONNX Runtime for browsers, which npm downloads: install '
      f'npm, {by_hand}'
    )
  with tempfile.TemporaryDirectory() as temporary:
    done = subprocess.run(
      ['npm', 'pack', '--silent', package],
      cwd=temporary,
      capture_output=True,
      text=True,
    )
    packed = sorted(Path(temporary).glob('*.tgz'))
    if done.returncode or not packed:
      line = ' '.join(done.stderr.split())[:200]
      raise UserError(f'npm cannot download {package} ({line}): {by_hand}')
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(packed[0]) as archive:
      for file in files:
        member = archive.extractfile(f'package/dist/{file.name}')
        write_whole(file, member.read())
  return files
