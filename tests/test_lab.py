"""Tests of the lab: access, messages, and reproducible training."""

import io
import json
import os
import runpy
import stat
import time
from functools import partial

import jax
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from runs import get_config

pytest.importorskip('starlette', reason="needs pip install -e '.[lab]'")

from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from gan_jax import data, games
from gan_jax.bounds import bound_of
from gan_jax.data.on_device import make_reader
from gan_jax.data.toys import TOYS, drawing
from gan_jax.errors import UserError
from gan_jax.games.losses import LOSSES
from gan_jax.games.penalties import GEN_PENALTIES, PENALTIES
from gan_jax.lab import frames, lab, program, security, settings, uploads
from gan_jax.lab.advice import advise
from gan_jax.lab.engine import Engine
from gan_jax.lab.measures import describe, measure
from gan_jax.lab.presets import PRESETS
from gan_jax.lab.server import description, make_app
from gan_jax.training.check import check_config
from gan_jax.training.dispatch import train_dispatch
from gan_jax.training.feed import index_batch_maker
from gan_jax.training.schedule import make_schedule

TOKEN, PORT = 'a-secret-of-the-tests', 8642
BASE = f'http://127.0.0.1:{PORT}'
ORIGIN = {'origin': BASE}
HOST = {'host': f'127.0.0.1:{PORT}'}  # (of websockets, the client sets its own)
SMALL = {
  'data.source': 'toy:ring',
  'batch_size': 16,
  'model.gen.hidden': [8],
  'model.disc.hidden': [8],
  'game.penalties.r1.weight': 0.1,
}


@pytest.fixture(scope='module')
def engine(tmp_path_factory):
  base = get_config('toy:ring', 'tiny')
  engine = Engine(base, tmp_path_factory.mktemp('lab'), ahead=False)
  yield engine
  engine.close()


@pytest.fixture(scope='module')
def client(engine):
  app = make_app(engine, TOKEN, security.hosts_of(PORT))
  return TestClient(app, base_url=BASE)


class Page:
  """A page that is connected to the lab and draws every frame at once."""

  def __init__(self, socket):
    self._socket = socket
    self.messages = []

  def send(self, **command):
    self._socket.send_text(json.dumps(command))

  def next(self):
    message = self._socket.receive()
    if message.get('bytes') is not None:
      number = frames.unpack(message['bytes'])[0]['number']
      self.send(do='ack', number=number + 1)
      return message['bytes']
    assert message['type'] == 'websocket.send', message
    message_json = json.loads(message['text'])
    assert 'the lab failed' not in message_json.get('text', ''), message_json
    self.messages.append(message_json)
    return message_json

  def until(self, kind, **fields):
    """Reads messages up to one of this type with these fields."""
    while True:
      message_json = self.next()
      if not isinstance(message_json, dict) or message_json['type'] != kind:
        continue
      if fields.items() <= message_json.items():
        return message_json

  def film(self, count):
    """Reads messages up to `count` frames, and returns these."""
    found = []
    while len(found) < count:
      message_json = self.next()
      if isinstance(message_json, bytes):
        found.append(message_json)
    return found


def connect(client, tab):
  path = f'/{TOKEN}/socket?tab={tab}'
  return client.websocket_connect(path, headers={**HOST, **ORIGIN})


def start(page, **changes):
  """Loads the small game on a new page, and waits for its first frame."""
  page.send(do='load', settings={**SMALL, **changes}, compare=None)
  # The lab sends settings to a new page, and may draw their game first.
  page.until('settings')
  assert page.until('settings')['settings']['batch_size'] == 16
  page.until('restarted')
  page.until('scene')
  return page.film(1)[0]


# Access.


@pytest.mark.parametrize(
  ('path', 'headers', 'status'),
  [
    (f'/{TOKEN}/', {}, 200),
    (f'/{TOKEN}/static/lab.js', {}, 200),
    (f'/{TOKEN}/describe', {}, 200),
    ('/', {}, 403),
    ('/wrong/', {}, 403),
    ('/wrong/describe', {}, 403),
    (f'/{TOKEN[:-1]}/', {}, 403),
    ('/static/lab.js', {}, 403),
    (f'/{TOKEN}/', {'host': 'evil.example'}, 400),
    (f'/{TOKEN}/', {'host': f'evil.example:{PORT}'}, 400),
    (f'/{TOKEN}/', {'host': '127.0.0.1:1'}, 400),
    (f'/{TOKEN}/', {'host': f'localhost:{PORT}'}, 200),
    (f'/{TOKEN}/describe', {'origin': 'http://evil.example'}, 403),
    (f'/{TOKEN}/describe', {'origin': 'null'}, 403),
    (f'/{TOKEN}/describe', {'origin': f'https://127.0.0.1:{PORT}'}, 403),
    (f'/{TOKEN}/describe', ORIGIN, 200),
  ],
)
def test_access_needs_token_host_and_origin(client, path, headers, status):
  answer = client.get(path, headers=headers)
  assert answer.status_code == status
  policy = answer.headers['content-security-policy']
  assert "default-src 'none'" in policy and 'unsafe' not in policy


@pytest.mark.parametrize(
  'name',
  ['..%2flab.py', '%2e%2e/lab.py', '....//lab.py', '%2fetc%2fpasswd', 'lab.py',
   '..%5clab.py', '%00', 'static', ''],
)  # fmt: skip
@pytest.mark.parametrize('route', ['static/', '', 'static/../', 'upload/'])
def test_paths_reach_only_static_files(client, route, name):
  answer = client.get(f'/{TOKEN}/{route}{name}')
  assert answer.status_code in (403, 404, 405) or b'<title>' in answer.content
  assert b'def ' not in answer.content and b'root:' not in answer.content


@pytest.mark.parametrize(
  ('path', 'headers'),
  [
    (f'/{TOKEN}/socket?tab=x', {}),
    (f'/{TOKEN}/socket?tab=x', {'origin': 'http://evil.example'}),
    (f'/{TOKEN}/socket?tab=x', {**ORIGIN, 'host': 'evil.example'}),
    ('/wrong/socket?tab=x', ORIGIN),
    (f'/{TOKEN}/socket?tab=../x', ORIGIN),
    (f'/{TOKEN}/socket', ORIGIN),
  ],
)
def test_sockets_need_token_host_origin_and_tab(client, path, headers):
  with (
    pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)) as error,
    client.websocket_connect(path, headers={**HOST, **headers}) as socket,
  ):
    socket.receive_text()
  assert error.value.code == 1008


def test_uploads_need_the_origin_and_a_size(client):
  post = lambda **more: client.post(f'/{TOKEN}/upload', **more).status_code
  points = b'0 0\n1 1\n'
  assert post(content=points) == 403
  assert post(content=points, headers={'origin': 'http://e.example'}) == 403
  assert post(content=points, headers=ORIGIN) == 200
  assert post(content=b'x' * (uploads.MAX_BYTES + 1), headers=ORIGIN) == 413
  parts = (b'1 1\n' * 2**16 for _ in range(20))  # without a content-length
  chunked = client.post(f'/{TOKEN}/upload', content=parts, headers=ORIGIN)
  assert chunked.status_code in (400, 413)


def test_lab_listens_only_on_the_loopback():
  opened = lab._listen(0)
  assert opened.getsockname()[0] == '127.0.0.1'
  with pytest.raises(UserError, match=r'--port=70000 cannot be used'):
    lab._listen(70000)
  with pytest.raises(UserError, match='cannot be used'):
    lab._listen(opened.getsockname()[1])
  opened.close()


def test_token_is_private_and_kept(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  token = lab._token()
  path = tmp_path / 'gan_jax' / 'lab' / 'token'
  assert len(token) >= 32 and lab._token() == token
  assert stat.S_IMODE(path.stat().st_mode) == 0o600
  os.chmod(path, 0o644)  # others may have read it
  assert lab._token() != token


# Uploads.


def png(pixels):
  buffer = io.BytesIO()
  Image.fromarray(np.uint8(pixels)).save(buffer, 'PNG')
  return buffer.getvalue()


def test_uploaded_points_keep_their_positions(tmp_path):
  raw = b'x,y\n-3.0,1.0\n5.0,1.0\n5.0,9.0\n'
  name = uploads.add_drawing(tmp_path, raw)
  path, dim = uploads.drawing_path(tmp_path, name)
  assert dim == 2
  draw = jax.vmap(drawing(str(path)).draw)
  points = np.asarray(draw(jax.random.split(jax.random.key(0), 300)))
  # The range, 8, and margins of 5% fill the drawing, -1 to 1.
  edge = 1 / 1.1
  corners = np.array([[-edge, -edge], [edge, -edge], [edge, edge]])
  distances = np.abs(points[:, None] - corners).max(-1)
  assert (distances.min(1) < 0.01).all()
  shares = np.bincount(distances.argmin(1)) / 300
  np.testing.assert_allclose(shares, 1 / 3, atol=0.1)


def test_row_of_pixels_is_a_1d_density(tmp_path):
  row = np.full((1, 100), 255)
  row[0, 75:] = 0  # ink on the right quarter: 0.5 to 1
  path, dim = uploads.drawing_path(
    tmp_path, uploads.add_drawing(tmp_path, png(row))
  )
  assert dim == 1
  draw = jax.vmap(drawing(str(path)).draw)
  points = np.asarray(draw(jax.random.split(jax.random.key(0), 500)))
  assert points.shape == (500, 1)
  assert 0.5 <= points.min() < 0.51 and 0.99 < points.max() <= 1


@pytest.mark.parametrize(
  ('raw', 'problem'),
  [
    (b'', 'neither a picture nor lines'),
    (b'hello world', 'neither a picture nor lines'),
    (b'\x89PNG\r\n\x1a\n broken', 'neither a picture nor lines'),
    (b'PK\x03\x04' + bytes(range(256)), 'neither a picture nor lines'),
    (b'1 2 3\n4 5 6\n', '1 or 2 numbers'),
    (b'1\n', 'two lines'),
    (b'1 nan\n2 3\n', 'finite'),
    (b'1 1e300\n2 3\n', 'finite'),
    (b'1\n' * (uploads.MAX_POINTS + 1), 'at most 100,000 points'),
    (png(np.full((4, 4), 255)), 'empty'),
  ],
)
def test_invalid_uploads_raise(tmp_path, raw, problem):
  with pytest.raises(UserError, match=problem):
    uploads.add_drawing(tmp_path, raw)
  assert not list(tmp_path.rglob('*.png'))


@pytest.mark.parametrize(
  'name', ['../x', 'a' * 16, '..' * 8, '', '/etc/passwd']
)
def test_missing_drawings_raise(tmp_path, name):
  (tmp_path / 'drawings').mkdir()
  (tmp_path / 'x.png').write_bytes(png(np.zeros((4, 4))))
  with pytest.raises(UserError, match='there is no drawing'):
    uploads.drawing_path(tmp_path, name)


# Settings.


def test_every_loss_penalty_and_toy_has_a_control():
  controls = {control['key']: control for control in description()['controls']}
  assert set(controls['game.loss.name']['choices']) == set(LOSSES)
  for name in PENALTIES:
    assert f'game.penalties.{name}.weight' in controls
  for name in GEN_PENALTIES:
    assert f'game.gen_penalties.{name}.weight' in controls
  sources = [each['source'] for each in description()['sources']]
  assert sources == [f'toy:{name}' for name in TOYS]


@pytest.mark.parametrize(
  ('changes', 'problem'),
  [
    ({'batch_size': 0}, 'batch_size=0 must be'),
    ({'batch_size': 10**9}, 'batch_size=1000000000 must be'),
    ({'batch_size': True}, 'batch_size=True must be an integer'),
    ({'batch_size': '8'}, "batch_size='8' must be an integer"),
    ({'optimizer.gen.learning_rate': float('nan')}, 'learning_rate=nan'),
    ({'optimizer.gen.learning_rate': -1.0}, 'learning_rate=-1.0 must be'),
    ({'game.loss.name': 'os:system'}, 'unknown game.loss.name'),
    ({'game.loss.name': ['minimax']}, 'must be a name'),
    ({'model.gen.hidden': [8] * 9}, 'has 9 layers'),
    ({'model.gen.hidden': [100_000]}, 'must be from 1 to 256'),
    ({'game.pack': 5}, 'game.pack=5 must divide batch_size=128'),
    ({'data.source': 'folder:/etc'}, 'must be toy:NAME or'),
    ({'data.source': 'mine.py:f'}, 'must be toy:NAME or'),
    ({'data.source': 7}, 'must be toy:NAME or'),
    ({'data.source': 'toy:rnig'}, "did you mean 'ring'"),
    ({'workdir': '/'}, "unknown setting 'workdir'"),
  ],
)  # fmt: skip
def test_invalid_settings_raise(changes, problem):
  with pytest.raises(UserError) as error:
    settings.check(changes)
  assert problem in str(error.value) and '\n' not in str(error.value)


def test_limits_lie_within_those_of_experiments():
  for key, limit in settings.LIMITS.items():
    bound = bound_of(key)
    assert limit.high <= bound.high, key
    assert limit.low >= bound.low or key == 'game.clip', key


def test_presets_are_valid_and_have_three_sentences(engine):
  for name, preset in PRESETS.items():
    chosen = settings.check(preset.settings)
    engine.config(chosen)
    if preset.compare is not None:
      assert settings.check({**chosen, **preset.compare}) != chosen
    assert len([x for x in preset.story.split('. ') if x]) == 3, name


def test_live_settings_need_no_new_program():
  one = settings.check({'game.penalties.r1.weight': 0.1})
  key = settings.program_key(one)
  for change in (
    {'seed': 5},
    {'optimizer.gen.learning_rate': 0.1},
    {'optimizer.disc.b1': 0.7},
    {'game.penalties.r1.weight': 3.0},
  ):
    assert settings.program_key({**one, **change}) == key, change
  for change in (
    {'game.penalties.r1.weight': 0.0},
    {'game.penalties.r2.weight': 0.1},
    {'batch_size': 64},
    {'game.loss.name': 'hinge'},
  ):
    assert settings.program_key({**one, **change}) != key, change


# Training.


def test_reset_repeats_all_frames_bit_for_bit(client):
  with connect(client, 'film') as socket:
    page = Page(socket)
    first = start(page)
    page.send(do='play')
    film = page.film(12)
    page.send(do='pause')
    page.send(do='reset')
    page.until('restarted')
    again = page.film(1)
    assert again[0] == first
    page.send(do='play')
    repeated = page.film(12)
  assert repeated == film
  steps = [frames.unpack(frame)[0]['row']['step'] for frame in film]
  assert steps == list(range(10, 130, 10))
  with connect(client, 'other-seed') as socket:
    page = Page(socket)
    start(page, seed=1)
    page.send(do='play')
    assert page.film(1)[0] != film[0]


def test_restarted_game_shows_its_warnings_before_it_is_played(client):
  with connect(client, 'warned') as socket:
    page = Page(socket)
    start(page)
    page.send(do='step')
    page.until('advice')
    changes = {'game.loss.name': 'wasserstein', 'seed': 1}
    changes['game.penalties.r1.weight'] = 0.0
    page.send(do='set', settings=changes)
    page.until('note')  # training starts again
    (item,) = page.until('advice')['items']
    assert 'Nothing bounds the critic' in item['text']


def test_training_does_not_depend_on_the_speed(client):
  def at_step_20(speed, count):
    with connect(client, f'speed{speed}') as socket:
      page = Page(socket)
      start(page)
      page.send(do='speed', value=speed)
      page.send(do='play')
      header, arrays = frames.unpack(page.film(count)[-1])
      assert header['row']['step'] == 20
      return arrays

  slow, fast = at_step_20(2, 10), at_step_20(20, 1)
  for name, array in slow.items():
    np.testing.assert_array_equal(array, fast[name], err_msg=name)


def compiled(engine, **changes):
  chosen = settings.check({**SMALL, **changes})
  compiled_game, config = engine.program(chosen).result()
  return compiled_game, config, make_schedule(config)


def params(state, player):
  return jax.tree.map(np.array, getattr(state.variables, player))


def run(compiled_game, schedule, only, n, seed=0):
  phases = program.stack_phases(schedule, 0, n)
  state = compiled_game.create(np.int32(seed))
  return compiled_game.function(only)(state, phases, np.int32(n))[0]


def equal(a, b):
  leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(x, y) for x, y in leaves)


def test_only_one_player_is_updated(engine):
  compiled_game, _, schedule = compiled(engine)
  start = compiled_game.create(np.int32(0))
  both, disc, gen = (
    run(compiled_game, schedule, only, 1) for only in ('both', 'disc', 'gen')
  )
  assert equal(params(disc, 'gen'), params(start, 'gen'))
  assert equal(params(gen, 'disc'), params(start, 'disc'))
  assert not equal(params(gen, 'gen'), params(start, 'gen'))
  assert int(disc.step) == int(gen.step) == 1
  # D is updated first, so this update equals that of D alone.
  one, other = params(both, 'disc'), params(disc, 'disc')
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 2e-4), one, other)


def test_lab_trains_as_launch_does(engine):
  """The dispatch of the training loop gives the same parameters."""
  compiled_game, config, schedule = compiled(engine)
  steps = 12
  expected = run(compiled_game, schedule, 'both', steps)
  config = config.copy_and_resolve_references()
  config.steps_per_dispatch = steps
  game, source, schedule = (
    games.make(config), data.make(config), make_schedule(config)
  )  # fmt: skip
  state, _ = jax.jit(
    partial(
      train_dispatch, game, compiled_game.tx, make_reader(config, source), None
    )
  )(
    compiled_game.create(np.int32(config.seed)),
    {},
    index_batch_maker(config, source, schedule)(0),
    schedule.dispatch(0),
    (),
  )
  for player in ('gen', 'disc'):
    one, other = params(expected, player), params(state, player)
    close = lambda x, y: np.testing.assert_allclose(x, y, 1e-4, 1e-6)
    jax.tree.map(close, one, other)


def test_forces_are_gradients_of_the_loss(engine):
  """For the non-saturating loss, -dJ/dx = (1 - D(x)) grad logit(x)."""
  compiled_game, _, schedule = compiled(
    engine, **{'game.penalties.r1.weight': 0}
  )
  state = run(compiled_game, schedule, 'both', 5)
  view = compiled_game.compiled['view'](state, schedule.phase(5))
  disc = state.variables.disc['params']

  def logit(x):
    hidden = x @ disc['Dense_0']['kernel'] + disc['Dense_0']['bias']
    hidden = np.maximum(hidden, 0)
    return (hidden @ disc['Dense_1']['kernel'] + disc['Dense_1']['bias'])[0]

  fakes = np.asarray(view['fake'], np.float64)[:20]
  disc = jax.tree.map(lambda x: np.asarray(x, np.float64), disc)
  for x, force in zip(fakes, np.asarray(view['forces']), strict=False):
    offsets = 1e-6 * np.eye(2)
    gradient = [(logit(x + d) - logit(x - d)) / 2e-6 for d in offsets]
    expected = np.array(gradient) / (1 + np.exp(logit(x)))
    np.testing.assert_allclose(force, expected, 1e-3, 1e-5)


def test_optimal_disc_in_1d_by_hand(engine):
  """D* = p / (p + q), with the densities p and q of the points."""
  compiled_game, _, schedule = compiled(
    engine, **{'data.source': 'toy:gaussian'}
  )
  state = compiled_game.create(np.int32(0))
  view = compiled_game.compiled['view'](state, schedule.phase(0))
  grid = program.grid_points(compiled_game.toy)[:, 0]
  p, q, optimal = (np.asarray(view[name]) for name in ('p', 'q', 'optimal'))
  width = program.BANDWIDTH * compiled_game.toy.limit
  # N(1, 0.5^2), smoothed by the kernel.
  std = np.hypot(0.5, width)
  exact = np.exp(-(((grid - 1) / std) ** 2) / 2) / std / np.sqrt(2 * np.pi)
  # (A kernel estimate of 1,024 points has a standard deviation of 0.04.)
  np.testing.assert_allclose(p, exact, atol=0.13)
  fakes = np.asarray(view['fake'])[:, 0].astype(np.float64)
  index = 80
  kernel = np.exp(-(((grid[index] - fakes) / width) ** 2) / 2)
  np.testing.assert_allclose(
    q[index], kernel.mean() / width / np.sqrt(2 * np.pi), 1e-4
  )
  inside = p + q > 1e-3
  p, q = p[inside], q[inside]
  np.testing.assert_allclose(optimal[inside], p / (p + q), 1e-5)


# Messages.


def test_settings_change_during_training(client):
  with connect(client, 'changes') as socket:
    page = Page(socket)
    start(page)
    page.send(do='play')
    page.film(3)
    page.messages.clear()
    page.send(do='set', settings={'optimizer.gen.learning_rate': 0.02})
    page.until('settings')
    page.film(3)
    # A new loss is compiled, and the same networks continue to train.
    page.send(do='set', settings={'game.loss.name': 'hinge'})
    page.until('scene')
    step = frames.unpack(page.film(1)[0])[0]['row']['step']
    assert step > 60
    assert not [x for x in page.messages if x['type'] == 'restarted']
    # Training of other networks starts again.
    page.send(do='set', settings={'model.gen.hidden': [4, 4]})
    page.until('restarted')
    step = frames.unpack(page.film(1)[0])[0]['row']['step']
    assert step <= 10


def test_slow_motion_shows_an_iteration_in_order(client):
  with connect(client, 'slow') as socket:
    page = Page(socket)
    first = start(page)
    kinds, arrays = [], []
    for _ in range(6):
      page.send(do='slow')
      header, found = frames.unpack(page.film(1)[0])
      kinds.append((header['kind'], header['row']['step']))
      arrays.append(found)
  assert kinds == [
    ('points', 0), ('answers', 0), ('disc', 0), ('forces', 0), ('gen', 1),
    ('points', 1),
  ]  # fmt: skip
  before = frames.unpack(first)[1]
  np.testing.assert_array_equal(arrays[0]['map'], before['map'])
  assert not np.array_equal(arrays[2]['map'], before['map'])  # D was updated
  np.testing.assert_array_equal(arrays[2]['fake'], before['fake'])
  assert not np.array_equal(arrays[4]['fake'], before['fake'])  # and now G was
  np.testing.assert_allclose(arrays[4]['map'], arrays[2]['map'], atol=1e-4)


@pytest.mark.parametrize(
  ('only', 'expected'),
  [
    ('disc', ['points', 'answers', 'gen', 'points']),
    ('gen', ['points', 'answers', 'forces', 'gen', 'points']),
  ],
)
def test_slow_motion_of_one_player_freezes_the_other(client, only, expected):
  with connect(client, f'slow-{only}') as socket:
    page = Page(socket)
    before = frames.unpack(start(page))[1]
    page.send(do='only', player=only)
    kinds, arrays = [], []
    for _ in expected:
      page.send(do='slow')
      header, found = frames.unpack(page.film(1)[0])
      kinds.append(header['kind'])
      arrays.append(found)
  assert kinds == expected
  frozen, trained = ('fake', 'map') if only == 'disc' else ('map', 'fake')
  for found in arrays:
    np.testing.assert_array_equal(found[frozen], before[frozen])
  assert not np.array_equal(arrays[-1][trained], before[trained])


def test_compared_games_differ_in_one_setting(client):
  with connect(client, 'two') as socket:
    page = Page(socket)
    start(page)
    page.send(do='compare', settings={'optimizer.gen.learning_rate': 0.03})
    page.until('scene', game='b')
    a, b = map(frames.unpack, page.film(2))
    assert (a[0]['game'], b[0]['game']) == ('a', 'b')
    for name in a[1]:
      np.testing.assert_array_equal(a[1][name], b[1][name])
    page.send(do='play')
    a, b = map(frames.unpack, page.film(2))
    assert a[0]['row']['step'] == b[0]['row']['step'] == 10
    assert not np.array_equal(a[1]['fake'], b[1]['fake'])
    page.send(do='compare', settings={})
    assert 'change one setting' in page.until('error')['text']
    page.send(do='compare', settings=None)
    page.until('scene', games=['a'])


def test_reloaded_page_keeps_its_game(client):
  with connect(client, 'reload') as socket:
    page = Page(socket)
    start(page)
    page.send(do='play')
    page.film(3)
    page.send(do='pause')
    page.until('status', playing=False)
  with connect(client, 'reload') as socket:
    page = Page(socket)
    scene = page.until('scene')
    assert [row['step'] for row in scene['history']][:3] == [10, 20, 30]
    header, _ = frames.unpack(page.film(1)[0])
    assert header['row']['step'] == scene['history'][-1]['step']


def test_newest_of_two_pages_gets_the_game(client):
  with connect(client, 'same') as one:
    start(Page(one))
    with connect(client, 'same') as other:
      Page(other).until('scene')
      with pytest.raises(WebSocketDisconnect) as error:
        while True:
          one._raise_on_close(one.receive())
    assert error.value.code == 4001


@pytest.mark.parametrize(
  'command',
  [
    {'do': 'nothing'},
    {'do': ['play']},
    {'do': 'set'},
    {'do': 'set', 'settings': 5},
    {'do': 'set', 'settings': {'batch_size': []}},
    {'do': 'speed', 'value': 10**6},
    {'do': 'speed', 'value': {}},
    {'do': 'ack', 'number': 'x'},
    {'do': 'only', 'player': 'nobody'},
    {'do': 'preset', 'name': 'nothing'},
    {'do': 'compare'},
    {'do': 'load', 'settings': {'data.source': 'drawing:../../x'}},
  ],
)
def test_invalid_commands_get_an_error(client, command):
  with connect(client, 'invalid') as socket:
    page = Page(socket)
    page.until('settings')
    page.send(**command)
    text = page.until('error')['text']
    assert text and '\n' not in text and 'Traceback' not in text
    page.send(do='pause')
    page.until('status', playing=False)


@pytest.mark.parametrize(
  'text', ['', 'x', '[]', '7', '{"do": "attach"}', '[' * 60_000, 'x' * 2**17]
)
def test_invalid_messages_close_the_connection(client, text):
  with connect(client, 'bad') as socket:
    socket.send_text(text)
    with pytest.raises(WebSocketDisconnect) as error:
      while True:
        socket._raise_on_close(socket.receive())
  assert error.value.code == 1008


def test_missing_drawing_keeps_the_game(client):
  with connect(client, 'gone') as socket:
    page = Page(socket)
    start(page)
    page.send(do='set', settings={'data.source': f'drawing:{"0" * 16}'})
    assert 'there is no drawing' in page.until('error')['text']
    settled = page.until('settings')['settings']
    assert settled['data.source'] == 'toy:ring'


def test_saved_experiment_is_valid(client, engine):
  name = uploads.add_drawing(engine.folder, png(np.zeros((1, 9))))
  with connect(client, 'save') as socket:
    page = Page(socket)
    changes = {**SMALL, 'data.source': f'drawing:{name}', 'game.latent_dim': 1}
    page.send(do='load', settings=changes, compare=None)
    page.until('settings')
    page.send(do='save')
    saved = page.until('saved')
  assert saved['command'] == f'python launch.py --config={saved["path"]}'
  config = runpy.run_path(saved['path'])['get_config']()
  assert config.game.penalties.r1.weight == 0.1
  assert config.data.channels == 1
  check_config(config)
  games.make(config)
  expected = engine.config(settings.check(changes))
  assert (
    config.model == expected.model and config.optimizer == expected.optimizer
  )
  assert config.game == expected.game and config.data == expected.data


def test_oldest_sessions_are_dropped(tmp_path):
  engine = Engine(get_config('toy:ring', 'tiny'), tmp_path, ahead=False)
  sessions = [engine.session(str(i)) for i in range(20)]
  assert engine.session('19') is sessions[19]
  assert engine.session('0') is not sessions[0]
  engine.close()


def test_lab_rejects_image_experiments(tmp_path):
  with pytest.raises(UserError, match='the lab trains toys'):
    Engine(get_config('vanilla_mnist', 'tiny'), tmp_path, ahead=False)


# Warnings.


ROW = {
  'step': 500, 'gen_loss': 0.7, 'disc_loss': 1.4, 'real_accuracy': 0.6,
  'fake_accuracy': 0.6, 'gen_grad_norm': 0.1, 'js': 0.1, 'modes': 8,
  'spread': 1.0,
}  # fmt: skip
RING = TOYS['ring']()


@pytest.mark.parametrize(
  ('changes', 'row', 'words', 'remedy'),
  [
    ({}, {}, None, None),
    ({}, {'gen_loss': None}, 'diverged', 'optimizer.gen.learning_rate'),
    (
      {'game.loss.name': 'minimax'},
      {'real_accuracy': 1.0, 'fake_accuracy': 1.0, 'gen_grad_norm': 1e-5},
      'gradients of the minimax G vanish',
      'game.loss.name',
    ),
    (
      {},
      {'real_accuracy': 0.99, 'fake_accuracy': 0.99},
      'D has won',
      'game.penalties.r1.weight',
    ),
    (
      {},
      {'real_accuracy': 0.99, 'fake_accuracy': 0.5},
      None,
      None,
    ),
    ({}, {'modes': 4, 'spread': 0.1}, 'Mode collapse', 'game.pack'),
    ({}, {'modes': 2, 'spread': 1.5}, 'Mode collapse', 'game.pack'),
    ({}, {'modes': 3, 'spread': 1.5}, None, None),
    ({}, {'modes': 2, 'spread': 1.5, 'step': 400}, None, None),
    ({}, {'real_accuracy': 0.5, 'js': 0.6}, 'cannot tell', 'disc_steps'),
    (
      {'game.loss.name': 'wasserstein'},
      {},
      'Nothing bounds the critic',
      'game.clip',
    ),
    ({'game.loss.name': 'wasserstein', 'game.clip': 0.1}, {}, None, None),
  ],
)
def test_advice_names_the_problem_and_a_remedy(changes, row, words, remedy):
  chosen = settings.check(changes)
  found = advise(chosen, [{**ROW, **row}] * 8, RING)
  if words is None:
    assert found == []
    return
  (advice,) = found
  assert words in advice.text
  changed = [key for _, change in advice.tries for key in change]
  assert remedy in changed
  for _, change in advice.tries:  # each button works
    assert settings.check({**chosen, **change}) != chosen


def test_advice_offers_no_remedy_that_is_already_in_use():
  used = {
    'game.penalties.r1.weight': 1.0, 'game.instance_noise': 0.3, 'game.pack': 4,
    'model.disc.stddev_group': 4,
  }  # fmt: skip
  row = {**ROW, 'real_accuracy': 1.0, 'fake_accuracy': 1.0, 'modes': 1}
  won, collapsed = advise(settings.check(used), [row] * 8, RING)
  assert won.tries == collapsed.tries == ()
  for advice in won, collapsed:
    assert advice.text.endswith('train longer, or lower the learning rates.')


def test_rates_of_a_diverged_game_are_divided_by_five():
  rates = {f'optimizer.{x}.learning_rate': 1e-4 for x in ('gen', 'disc')}
  row = {**ROW, 'gen_loss': None}
  (advice,) = advise(settings.check(rates), [row], RING)
  ((_, changed),) = advice.tries
  assert changed == pytest.approx({key: 2e-5 for key in rates})


@pytest.mark.parametrize(
  ('only', 'row', 'words'),
  [
    ('disc', {'real_accuracy': 1.0, 'fake_accuracy': 1.0}, []),
    ('disc', {'modes': 0, 'spread': 0.1}, []),
    ('gen', {'js': 0.1, 'real_accuracy': 0.5}, []),
    ('gen', {'js': 0.6, 'real_accuracy': 0.5}, ['Set Train to both']),
  ],
)
def test_advice_depends_on_the_trained_player(only, row, words):
  found = advise(settings.check({}), [{**ROW, **row}] * 8, RING, only)
  assert len(found) == len(words)
  for advice, part in zip(found, words, strict=True):
    assert part in advice.text


def test_fakes_outside_the_plot_are_counted():
  fake = np.array([[0.0, 0.0], [RING.limit * 1.1, 0], [0, -50], [0.1, 0.2]])
  found = measure(np.ones((4, 2)) * [[0.1], [0.2], [0.3], [0.4]], fake, RING)
  assert found['outside'] == 0.5
  assert '50% of the fakes are off the picture' in describe(found, RING)


def test_unpack_inverts_pack():
  arrays = {
    'odd': np.arange(5, dtype=np.uint8),
    'points': np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2),
    'none': np.zeros((0, 2), np.float32),
  }
  message = frames.pack({'step': 3}, arrays)
  header, found = frames.unpack(message)
  assert header == {'step': 3}
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)
  assert len(message) % 4 == 0
  assert int.from_bytes(message[:4], 'little') % 4 == 0


def test_page_loads_nothing_from_other_hosts():
  static = ROOT / 'gan_jax' / 'lab' / 'static'
  files = list(static.iterdir())
  assert sum(path.stat().st_size for path in files) < 2 * 2**20
  for path in files:
    text = path.read_text()
    assert '://' not in text, path
    assert 'innerHTML' not in text and 'eval(' not in text, path


def test_rapid_changes_leave_no_queue(client):
  with connect(client, 'thousand') as socket:
    page = Page(socket)
    start(page)
    page.send(do='play')
    for i in range(1000):
      rate = 1e-4 + 1e-6 * i
      page.send(do='set', settings={'optimizer.gen.learning_rate': rate})
    began = time.monotonic()
    while page.until('settings')['settings'][
      'optimizer.gen.learning_rate'
    ] != pytest.approx(1e-4 + 1e-6 * 999):
      pass
    page.film(2)
    assert time.monotonic() - began < 30
