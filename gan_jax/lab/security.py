"""Access to the lab: pages of this machine that have the token."""

import hmac
import secrets
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Names of this machine. (Other names could be rebound to its address.)
HOSTS = ('127.0.0.1', 'localhost', '[::1]')
HEADERS = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
  ),
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
}


def new_token() -> str:
  """Returns a new secret."""
  return secrets.token_urlsafe(24)


class Guard:
  """Refuses requests of other hosts, of other origins, or without the token.

  The first part of a path is the token; the application sees the rest.

  Args:
    app: The application.
    token: The secret.
    hosts: The valid values of the Host header.
  """

  def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str]):
    self._app, self._token, self._hosts = app, token, set(hosts)

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] == 'lifespan':
      await self._app(scope, receive, send)
      return
    status, problem = self._problem(scope)
    if not problem:
      rest = scope['path'].lstrip('/').partition('/')[2]
      inner = {**scope, 'path': f'/{rest}', 'raw_path': None, 'root_path': ''}
      await self._app(inner, receive, _with_headers(send))
    elif scope['type'] == 'websocket':
      await send({'type': 'websocket.close', 'code': 1008, 'reason': problem})
    else:
      answer = PlainTextResponse(problem, status, HEADERS)
      await answer(scope, receive, send)

  def _problem(self, scope: Scope) -> tuple[int, str]:
    """Returns the status and the reason of a refusal; '' for none."""
    headers = HTTPConnection(scope).headers
    host, origin = headers.get('host', ''), headers.get('origin')
    if host not in self._hosts:
      return 400, 'wrong host'
    writes = scope['type'] == 'websocket' or scope['method'] != 'GET'
    if origin is None and writes:
      return 403, 'no origin'
    if origin is not None and urlsplit(origin)[:2] != ('http', host):
      return 403, 'wrong origin'
    token = scope['path'].lstrip('/').partition('/')[0]
    if not hmac.compare_digest(token.encode(), self._token.encode()):
      return 403, 'wrong token: open the address that launch.py printed'
    return 200, ''


def _with_headers(send: Send) -> Send:
  async def wrapped(message: Message) -> None:
    if message['type'] == 'http.response.start':
      extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
      message = {**message, 'headers': [*message['headers'], *extra]}
    await send(message)

  return wrapped


def hosts_of(port: int) -> list[str]:
  """Returns the valid values of the Host header."""
  return [f'{host}:{port}' for host in HOSTS]
