"""Starts the lab: `--mode=lab`."""

import importlib.util
import socket
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gan_jax import compile_cache
from gan_jax.errors import UserError
from gan_jax.files import cache_folder, is_remote

PACKAGES = ('starlette', 'uvicorn', 'websockets')
HOST, DEFAULT_PORT = '127.0.0.1', 8642


def lab(
  config: ConfigDict,
  workdir: str | Path,
  *,
  story: str | None = None,
  port: int | None = None,
) -> None:
  """Serves the lab until Ctrl-C.

  Args:
    config: A toy to begin with; unused for a run.
    workdir: A run, which is shown and never written to; or else the folder of
      drawings and saved experiments.
    story: The preset to begin with; None: the settings of `config`.
    port: The port; None: a fixed one, or any if that is taken.

  Raises:
    UserError: The packages are not installed, the port is taken, or the
      config is not that of a toy.
  """
  missing = [name for name in PACKAGES if not importlib.util.find_spec(name)]
  if missing:
    raise UserError(
      f"the lab needs {', '.join(missing)}: run pip install -e '.[lab]'"
    )
  # (They need these packages.)
  from gan_jax.lab.security import hosts_of

  opened = _listen(port)
  port, token = opened.getsockname()[1], _token()
  compile_cache.enable()
  if (Path(workdir) / 'config.json').is_file() or is_remote(workdir):
    from gan_jax.lab.viewer import open_run

    app = open_run(workdir, token, hosts_of(port))
    subject = f'the run in {workdir}'
  else:
    from gan_jax.lab.engine import Engine
    from gan_jax.lab.server import make_app

    engine = Engine(config, Path(workdir), story)
    app = make_app(engine, token, hosts_of(port))
    subject = 'toys'
  print(f'The lab shows {subject}: http://{HOST}:{port}/{token}/', flush=True)
  print('The address is secret. Ctrl-C ends the lab.', flush=True)
  serve(app, opened)


def serve(app: Any, opened: socket.socket) -> None:
  """Serves an application on an open socket until Ctrl-C."""
  import uvicorn

  config = uvicorn.Config(
    app,
    log_level='warning',
    access_log=False,
    proxy_headers=False,
    server_header=False,
    timeout_graceful_shutdown=1,
    ws_max_size=2**16,
    ws='websockets-sansio',
  )
  uvicorn.Server(config).run(sockets=[opened])


def _listen(port: int | None) -> socket.socket:
  """Opens the port on the loopback interface only."""
  for candidate in (DEFAULT_PORT, 0) if port is None else (port,):
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      opened.bind((HOST, candidate))
      opened.listen(128)
      return opened
    except (OSError, OverflowError) as error:
      opened.close()
      problem = getattr(error, 'strerror', None) or error
  raise UserError(f'--port={port} cannot be used: {problem}')


def _token() -> str:
  """Returns the user's token: it stays, so that a page finds the lab again."""
  from gan_jax.lab.security import new_token

  path = cache_folder() / 'lab' / 'token'
  try:
    token = path.read_text().strip()
    if len(token) >= 32 and path.stat().st_mode & 0o077 == 0:
      return token
  except OSError:
    pass
  token = new_token()
  try:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(token)
  except OSError:
    pass  # the token is then that of this process only
  return token
