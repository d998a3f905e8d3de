"""Tests of the exported page of a generator, in Chromium if installed."""

import functools
import http.server
import json
import shutil
import subprocess
import threading

import numpy as np
import pytest
from PIL import Image
from runs import get_config, untrained_run

from gan_jax.errors import UserError
from gan_jax.runs import page


@pytest.fixture
def run(monkeypatch):
  return untrained_run(get_config('cgan_digits', 'tiny'), monkeypatch)


@pytest.fixture
def runtime(tmp_path, monkeypatch):
  """A folder of files with the names of those that npm downloads."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  folder = tmp_path / 'cache' / 'gan_jax' / f'onnxruntime-web-{page.VERSION}'
  folder.mkdir(parents=True)
  for name in page.RUNTIME:
    (folder / name).write_text(name)
  return folder


def test_folder_holds_all_files_of_the_page(run, runtime, tmp_path):
  folder = run.export(tmp_path / 'page', licence='CC0-1.0')
  html = (folder / 'index.html').read_text()
  assert 'http://' not in html
  assert 'https://' not in html
  names = {path.name for path in folder.iterdir()}
  assert names == {
    *page.RUNTIME, 'index.html', 'settings.json', 'generator.onnx', 'README.md'
  }  # fmt: skip
  settings = json.loads((folder / 'settings.json').read_text())
  assert settings['inputs'] == {'labels': [10], 'z': [64]}
  assert np.shape(settings['directions']) == (6, 64)
  assert 'license: "CC0-1.0"' in (folder / 'README.md').read_text()
  with pytest.raises(UserError, match='exists'):
    run.export(folder)


def test_missing_npm_raises_with_instructions(run, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setenv('PATH', '')
  with pytest.raises(
    UserError, match=r'install npm, or put ort\.wasm'
  ) as error:
    run.export(tmp_path / 'page')
  assert '\n' not in str(error.value)


def test_failed_npm_is_reported_in_one_line(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  (tmp_path / 'npm').write_text('#!/bin/sh\necho no network >&2\nexit 1\n')
  (tmp_path / 'npm').chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
  with pytest.raises(UserError, match=r'cannot download .*\(no network\)'):
    page.runtime_files()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *arguments):
    pass


@pytest.mark.slow
def test_page_generates_samples_in_chromium(run, tmp_path):
  """The browser can reach no other host."""
  chromium = shutil.which('chromium')
  if chromium is None or shutil.which('npm') is None:
    pytest.skip('skipped: Chromium or npm is not installed')
  folder = run.export(tmp_path / 'page')
  handler = functools.partial(QuietHandler, directory=str(folder))
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  browse = [
    chromium, '--headless=new', '--no-sandbox', '--disable-gpu',
    f'--user-data-dir={tmp_path / "profile"}', '--window-size=1000,700',
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
    '--virtual-time-budget=60000',
  ]  # fmt: skip
  url = f'http://127.0.0.1:{server.server_port}/'
  picture = tmp_path / 'page.png'
  for arguments in (['--dump-dom'], [f'--screenshot={picture}']):
    done = subprocess.run(
      [*browse, *arguments, url], capture_output=True, text=True, timeout=300
    )
    if arguments == ['--dump-dom']:
      assert '16 samples in' in done.stdout, done.stdout[-2000:]
      assert done.stdout.count('type="range"') == 6
      assert '<select>' in done.stdout
  server.shutdown()
  server.server_close()
  with Image.open(picture) as image:
    canvas = np.asarray(image.convert('L'), float)[150:500, 60:500]
  assert canvas.std() > 5  # an untrained generator's noise
