"""The web application of the lab: a page, a websocket and uploads."""

import asyncio
import contextlib
import json
import mimetypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gan_jax.data.toys import TOYS
from gan_jax.errors import UserError
from gan_jax.lab.engine import Engine
from gan_jax.lab.presets import PRESETS
from gan_jax.lab.security import Guard
from gan_jax.lab.session import SPEEDS
from gan_jax.lab.settings import IN_1D, controls
from gan_jax.lab.uploads import MAX_BYTES, add_drawing

STATIC = Path(__file__).parent / 'static'
# Types that the machine may not know, or may know differently.
TYPES = {'.js': 'text/javascript', '.css': 'text/css', '.html': 'text/html'}
# The code with which a page is closed whose games another page shows.
TAKEN = 4001
# Bytes of one message of a page.
MAX_MESSAGE = 2**16


def static_files() -> dict[str, tuple[bytes, str]]:
  """Reads the files of the page once: no request opens a file by its name."""
  files = {}
  for path in sorted(STATIC.iterdir()):
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    files[path.name] = (path.read_bytes(), kind or 'application/octet-stream')
  return files


def _static(files: dict[str, tuple[bytes, str]], page: str) -> Callable:
  async def serve(request: Request) -> Response:
    name = request.path_params.get('name', page)
    if name not in files:
      return JSONResponse({'error': 'there is no such file'}, 404)
    content, kind = files[name]
    return Response(content, media_type=kind)

  return serve


def static_routes(page: str) -> list[Route]:
  """Returns the routes of the page and its files."""
  serve = _static(static_files(), page)
  return [Route('/', serve), Route('/static/{name}', serve)]


def make_app(engine: Engine, token: str, hosts: list[str]) -> Guard:
  """Makes the application of the lab that trains toys."""

  @contextlib.asynccontextmanager
  async def lifespan(app: Starlette):
    yield
    engine.close()

  async def describe(request: Request) -> Response:
    return JSONResponse(description() | {'story': engine.story})

  async def upload(request: Request) -> Response:
    try:
      raw = await read_body(request, MAX_BYTES)
      name = await asyncio.to_thread(add_drawing, engine.folder, raw)
    except UserError as error:
      return JSONResponse({'error': str(error)}, 400)
    return JSONResponse({'source': f'drawing:{name}'})

  async def guarded_upload(request: Request) -> Response:
    try:
      return await upload(request)
    except TooLarge:
      limit = f'uploads have at most {MAX_BYTES // 2**20} MiB'
      return JSONResponse({'error': limit}, 413)

  async def socket(websocket: WebSocket) -> None:
    await _connect(engine, websocket)

  app = Starlette(
    routes=[
      *static_routes('lab.html'),
      Route('/describe', describe),
      Route('/upload', guarded_upload, methods=['POST']),
      WebSocketRoute('/socket', socket),
    ],
    lifespan=lifespan,
  )
  return Guard(app, token, hosts)


class TooLarge(Exception):
  """A request has a larger body than is allowed."""


async def read_body(request: Request, most: int) -> bytes:
  """Reads the body of a request; stops at `most` bytes.

  Raises:
    TooLarge: The body is larger.
  """
  length = request.headers.get('content-length', '0')
  if not length.isdigit() or int(length) > most:
    raise TooLarge
  raw = bytearray()
  async for part in request.stream():
    raw += part
    if len(raw) > most:
      raise TooLarge
  return bytes(raw)


def description() -> dict[str, Any]:
  """Describes the controls, the distributions and the presets for the page."""
  return {
    'controls': controls(),
    'sources': [
      {'source': f'toy:{name}', 'dim': 1 if name in IN_1D else 2}
      for name in TOYS
    ],
    'speeds': SPEEDS,
    'presets': [
      {'name': name, 'title': preset.title, 'story': preset.story}
      for name, preset in PRESETS.items()
    ],
  }


async def _connect(engine: Engine, websocket: WebSocket) -> None:
  """Serves one page until it closes."""
  tab = websocket.query_params.get('tab', '')
  await websocket.accept()
  if not re.fullmatch(r'[\w-]{1,64}', tab):
    await websocket.close(1008, 'invalid tab')
    return
  loop = asyncio.get_running_loop()
  outbox: asyncio.Queue[str | bytes] = asyncio.Queue()

  def send(message: str | bytes) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
      loop.call_soon_threadsafe(outbox.put_nowait, message)

  session = engine.session(tab)
  session.post({'do': 'attach', 'send': send})
  sender = asyncio.create_task(_send_all(websocket, outbox))
  try:
    await _receive_all(session, websocket)
  except WebSocketDisconnect:
    pass
  finally:
    session.post({'do': 'detach', 'send': send})
    sender.cancel()


async def _send_all(websocket: WebSocket, outbox: asyncio.Queue) -> None:
  while True:
    message = await outbox.get()
    try:
      if message == '':
        await websocket.close(TAKEN, 'another page has taken over')
        return
      if isinstance(message, bytes):
        await websocket.send_bytes(message)
      else:
        await websocket.send_text(message)
    except (RuntimeError, WebSocketDisconnect):
      return  # the page has gone


async def _receive_all(session: Any, websocket: WebSocket) -> None:
  while True:
    text = await websocket.receive_text()
    try:
      if len(text) > MAX_MESSAGE:
        raise ValueError
      command = json.loads(text)
      if not isinstance(command, dict) or command.get('do') in INTERNAL:
        raise ValueError
    except (ValueError, RecursionError):
      await websocket.close(1008, 'invalid message')
      return
    session.post(command)


# Commands of the server itself.
INTERNAL = ('attach', 'detach')
