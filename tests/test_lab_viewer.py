"""Tests of the lab's page of an image run: its content, and no writing."""

import base64
import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('starlette', reason="needs pip install -e '.[lab]'")
from starlette.testclient import TestClient

import gan_jax
from gan_jax.errors import UserError
from gan_jax.lab import security
from gan_jax.lab.viewer import WIDTH, Viewer, make_app
from gan_jax.training import checkpoint

TOKEN, PORT = 'a-secret-of-the-tests', 8642


@pytest.fixture(scope='module')
def client(vanilla):
  app = make_app(Viewer(vanilla), TOKEN, security.hosts_of(PORT))
  return TestClient(app, base_url=f'http://127.0.0.1:{PORT}')


def get(client, path, status=200):
  answer = client.get(f'/{TOKEN}/{path}')
  assert answer.status_code == status, answer.text
  return answer


def images(client, path):
  """Returns the images of an answer at their original size."""
  found = []
  for text in get(client, path).json()['images']:
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    found.append(picture[:: WIDTH // 28, :: WIDTH // 28])
  return np.stack(found)


def contents(folder):
  """Returns the digest and the modification time of each file of a folder."""
  return {
    path: (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns)
    for path in folder.rglob('*')
    if path.is_file()
  }


def test_describe_lists_checkpoints_and_samples(client, vanilla):
  found = get(client, 'describe').json()
  steps = checkpoint.steps(vanilla)
  assert [x['step'] for x in found['checkpoints']] == steps
  assert found['checkpoints'][-1]['images'] == found['total_images']
  assert found['samples'] == sorted(
    path.name for path in (vanilla / 'samples').glob('*.png')
  )
  name = found['samples'][-1]
  raw = (vanilla / 'samples' / name).read_bytes()
  assert get(client, f'samples/{name}').content == raw
  assert get(client, '').text.startswith('<!doctype html>')


def test_metrics_continue_at_the_offset(client, vanilla):
  lines = (vanilla / 'metrics.jsonl').read_text().splitlines()
  first = get(client, 'metrics').json()
  assert len(first['rows']) == len(lines)
  assert first['rows'][0]['step'] == json.loads(lines[0])['step']
  again = get(client, f'metrics?offset={first["offset"]}').json()
  assert again == {'rows': [], 'offset': first['offset']}
  beyond = get(client, f'metrics?offset={first["offset"] + 1}').json()
  assert beyond == {'rows': [], 'offset': 0}  # the file was replaced


def test_grid_has_the_samples_of_the_run(client, vanilla):
  run = gan_jax.load(vanilla)
  expected = run.sample(5, seed=3)[..., 0]
  np.testing.assert_array_equal(
    images(client, 'images/grid?n=5&seed=3'), expected
  )
  first = checkpoint.steps(vanilla)[0]
  early = gan_jax.load(vanilla, first).sample(2)[..., 0]
  found = images(client, f'images/grid?n=2&step={first}')
  np.testing.assert_array_equal(found, early)


def test_walks_and_moves_start_at_samples(client):
  grid = images(client, 'images/grid?n=4')
  walk = images(client, 'images/walk?a=1&b=3&count=5')
  assert len(walk) == 5
  np.testing.assert_array_equal(walk[[0, -1]], grid[[1, 3]])
  assert not np.array_equal(walk[2], walk[0])
  unchanged = images(client, 'images/move?a=2')
  np.testing.assert_array_equal(unchanged[0], grid[2])
  moved = images(client, 'images/move?a=2&d0=3')
  assert not np.array_equal(moved, unchanged)


def test_nearest_returns_a_picture(client):
  (text,) = get(client, 'images/nearest?n=2&k=3').json()['images']
  picture = Image.open(io.BytesIO(base64.b64decode(text)))
  assert min(picture.size) > 28


@pytest.mark.parametrize(
  ('path', 'problem'),
  [
    ('images/grid?n=0', 'n must be an integer from 1 to 64'),
    ('images/grid?n=65', 'n must be an integer from 1 to 64'),
    ('images/grid?n=x', 'n must be an integer'),
    ('images/grid?seed=-1', 'seed must be an integer'),
    ('images/grid?step=7', 'no checkpoint'),
    ('images/grid?label=3', 'label'),
    ('images/grid?truncation=1e9', 'truncation must be a number'),
    ('images/walk?count=1', 'count must be an integer from 2 to 16'),
    ('images/move?d0=nan', 'd0 must be a number'),
    ('images/nearest?k=9', 'k must be an integer from 1 to 8'),
    ('metrics?offset=-1', 'offset must be an integer'),
  ],
)
def test_invalid_requests_get_one_line(client, path, problem):
  error = get(client, path, 400).json()['error']
  assert problem in error and '\n' not in error


@pytest.mark.parametrize(
  'path',
  ['samples/..%2fconfig.json', 'samples/config.json', 'samples/%2fetc%2fpasswd',
   'samples/x.png', 'images/run', 'static/..%2f..%2fviewer.py', 'config.json'],
)  # fmt: skip
def test_paths_outside_the_page_are_not_found(client, path):
  answer = get(client, path, 404)
  assert b'data' not in answer.content and b'def ' not in answer.content


def test_access_needs_token_host_and_origin(client):
  assert client.get('/wrong/describe').status_code == 403
  path = f'/{TOKEN}/describe'
  for headers, status in (
    ({'host': 'evil.example'}, 400),
    ({'origin': 'http://evil.example'}, 403),
  ):
    assert client.get(path, headers=headers).status_code == status


def test_viewer_writes_nothing(client, vanilla):
  before = contents(vanilla)
  for path in ('describe', 'metrics', 'images/grid', 'images/nearest'):
    get(client, path)
  assert contents(vanilla) == before


def test_empty_folder_raises(tmp_path):
  with pytest.raises(UserError, match=r'it has no config\.json'):
    Viewer(tmp_path)
