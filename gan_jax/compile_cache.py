"""The persistent cache of compiled programs, for a fast second start."""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

from gan_jax.files import cache_folder

# Programs that compile faster than this are not kept.
MIN_COMPILE_SECONDS = 0.1


def enable() -> None:
  """Enables the cache for this process.

  JAX_COMPILATION_CACHE_DIR names its folder; default: ~/.cache/gan_jax. If the
  folder is full or not writable, programs are compiled without the cache.
  """
  warnings.filterwarnings(
    'ignore', 'Error (reading|writing) persistent compilation cache'
  )
  folder = jax.config.jax_compilation_cache_dir
  _use_folder(folder or str(cache_folder() / 'compiled'))


@contextlib.contextmanager
def temporary() -> Iterator[None]:
  """Uses an empty cache, which is deleted at the end."""
  before = jax.config.jax_compilation_cache_dir
  with tempfile.TemporaryDirectory() as folder:
    compilation_cache.reset_cache()
    _use_folder(folder)
    try:
      yield
    finally:
      compilation_cache.reset_cache()
      jax.config.update('jax_compilation_cache_dir', before)


def _use_folder(folder: str) -> None:
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update(
    'jax_persistent_cache_min_compile_time_secs', MIN_COMPILE_SECONDS
  )
