"""Tests of the lab in Chromium: controls, drawing, reloads, tabs, restarts."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, launch
from PIL import Image

pytest.importorskip('starlette', reason="needs pip install -e '.[lab]'")
sync_api = pytest.importorskip(
  'playwright.sync_api', reason='needs pip install playwright'
)

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
# The file axe.min.js of npm's axe-core; the test of accessibility needs it.
AXE = os.environ.get('AXE_CORE')
SECONDS = 1000  # in milliseconds, as Playwright counts

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium'),
  # (Playwright leaves its event loop to the garbage collector.)
  pytest.mark.filterwarnings('ignore::ResourceWarning'),
]

SMALL = {
  'batch_size': 16,
  'model.gen.hidden': [8],
  'model.disc.hidden': [8],
}


class Lab:
  """The lab in a process of its own."""

  def __init__(self, folder, *args, port=0):
    self.folder, self.args, self.port = folder, args, port
    self.start()

  def start(self):
    command = launch('--mode=lab', f'--workdir={self.folder}', *self.args)
    command.append(f'--port={self.port}')
    environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
    self.process = subprocess.Popen(
      command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    line = self.process.stdout.readline()
    self.url = re.search(r'http://127\.0\.0\.1:(\d+)/[\w-]+/', line)[0]
    self.port = int(self.url.split(':')[2].split('/')[0])

  def stop(self, kill=False):
    self.process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
    self.process.wait(60)
    self.process.stdout.close()


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
  os.environ['XDG_CACHE_HOME'] = str(tmp_path_factory.mktemp('cache'))
  running = Lab(tmp_path_factory.mktemp('lab'))
  yield running
  running.stop()


@pytest.fixture(scope='module')
def browser():
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=CHROMIUM, args=['--no-sandbox']
    )
    yield browser
    browser.close()


@pytest.fixture
def page(browser, lab):
  """A page that has drawn a small game; it must log no error."""
  context = browser.new_context(viewport={'width': 1280, 'height': 800})
  context.set_default_timeout(120 * SECONDS)
  page = context.new_page()
  errors, requests = [], []
  page.on('pageerror', lambda error: errors.append(str(error)))
  page.on(
    'console', lambda m: errors.append(m.text) if m.type == 'error' else None
  )
  page.on('request', lambda request: requests.append(request.url))
  page.goto(address(lab, SMALL))
  page.wait_for_selector('body[data-frames]')
  yield page
  context.close()
  # (The refused uploads are errors for the console.)
  expected = ('ERR_CONNECTION', 'status of 4')
  assert [x for x in errors if not any(y in x for y in expected)] == []
  for url in requests:  # nothing leaves the machine
    assert url.startswith((lab.url, 'blob:', 'data:')), url


def address(lab, settings, **more):
  return f'{lab.url}#{json.dumps({"settings": settings, **more})}'


def step(page):
  return int(page.get_attribute('body', 'data-step'))


def wait_until(condition, seconds=120, what='a condition'):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, f'timed out: {what}'
    time.sleep(0.05)


def settings(page):
  text = page.evaluate('() => decodeURIComponent(location.hash.slice(1))')
  return json.loads(text)['settings']


def test_buttons_and_keys_control_training(page):
  assert step(page) == 0
  page.click('#step')
  wait_until(lambda: step(page) == 1)
  page.click('#play')
  wait_until(lambda: step(page) > 50)
  page.click('#play')
  page.wait_for_selector('#play:has-text("Play")')
  time.sleep(0.5)
  stopped = step(page)
  time.sleep(0.5)
  assert step(page) == stopped
  page.click('#reset')
  wait_until(lambda: step(page) == 0)
  page.click('body')
  page.keyboard.press('s')
  wait_until(lambda: step(page) == 1)
  page.keyboard.press('Space')
  wait_until(lambda: step(page) > 20)


def test_every_control_changes_its_setting(page):
  """The URL contains the changed setting."""
  page.evaluate(
    '() => document.querySelectorAll("#controls details")'
    '.forEach((box) => { box.open = true; })'
  )
  described = page.evaluate("() => fetch('describe').then((x) => x.json())")
  for control in described['controls']:
    key = control['key']
    if control['kind'] == 'layers':
      player = 'G' if '.gen.' in key else 'D'
      page.fill(f'input[aria-label="{player}: hidden: number of layers"]', '2')
      page.keyboard.press('Tab')
      expected = [8, 8]
    else:
      box = page.locator(f'[id="control-{key}"]')
      expected = None
      if control['kind'] == 'choice':
        current = box.input_value()
        expected = next(x for x in control['choices'] if x != current)
        box.select_option(expected)
      elif control['kind'] == 'integer':
        expected = {'game.pack': 2, 'batch_size': 32}.get(key, 3)
        box.fill(str(expected))
        box.press('Tab')
      else:
        box.focus()
        box.press(
          'Home' if key.endswith(('real_label', 'b2')) else 'ArrowRight'
        )
    changed = lambda key=key, expected=expected, control=control: (
      settings(page).get(key, control['default']) == expected
      if expected is not None
      else settings(page).get(key) not in (None, control['default'])
    )
    wait_until(changed, 30, key)
    assert page.inner_text('#notice') in ('', RESTARTS), key


RESTARTS = 'Training starts again with these settings.'


@pytest.mark.parametrize('source', ['gaussian', 'moons', 'uniform'])
def test_chosen_distribution_is_trained_on(page, source):
  page.click(f'[data-source="toy:{source}"]')
  wait_until(lambda: settings(page).get('data.source') == f'toy:{source}')
  page.click('#play')
  wait_until(lambda: step(page) > 20)


def test_mouse_drawing_is_saved_and_trained_on(page, lab):
  source = ''
  for dim in ('2', '1'):
    page.click('#draw')
    page.select_option('#drawing-dim', dim)
    box = page.locator('#drawing canvas').bounding_box()
    at = lambda x, y, b=box: (b['x'] + x * b['width'], b['y'] + y * b['height'])
    page.mouse.move(*at(0.2, 0.5))
    page.mouse.down()
    page.mouse.move(*at(0.8, 0.4), steps=12)
    page.mouse.up()
    page.click('#drawing-use')
    wait_until(
      lambda old=source: settings(page).get('data.source', '') not in (old, '')
    )
    source = settings(page)['data.source']
    path = lab.folder / 'drawings' / f'{source.removeprefix("drawing:")}.png'
    ink = 255 - np.asarray(Image.open(path))
    assert (ink.shape[0] == 1) == (dim == '1')
    columns = np.flatnonzero(ink.max(0)) / ink.shape[1]
    assert 0.1 < columns.min() < 0.25 and 0.75 < columns.max() < 0.9
    page.click('#play')
    wait_until(lambda: step(page) > 10)
    page.click('#play')


def upload(page, name, content):
  page.set_input_files(
    '#upload', {'name': name, 'mimeType': 'text/plain', 'buffer': content}
  )


def test_upload_takes_points_and_reports_invalid_files(page):
  points = '\n'.join(f'{i % 7} {i % 5}' for i in range(200))
  upload(page, 'points.csv', points.encode())
  wait_until(lambda: 'drawing:' in settings(page).get('data.source', ''))
  upload(page, 'large.csv', b'1 1\n' * 2**21)
  page.wait_for_selector('#notice:has-text("at most 4 MiB")')
  upload(page, 'program.exe', bytes(range(256)))
  page.wait_for_selector('#notice:has-text("neither a picture nor lines")')
  assert page.evaluate('() => document.body.dataset.connection') == 'open'


def test_reload_keeps_the_game(page):
  page.click('#play')
  wait_until(lambda: step(page) > 100)
  page.click('#play')
  page.wait_for_selector('#play:has-text("Play")')
  time.sleep(0.5)
  before = step(page)
  page.reload()
  page.wait_for_selector('body[data-frames]')
  wait_until(lambda: step(page) == before)
  assert settings(page)['batch_size'] == 16


def test_two_tabs_have_separate_games(page, lab):
  other = page.context.new_page()
  other.goto(address(lab, {**SMALL, 'seed': 1}))
  other.wait_for_selector('body[data-frames]')
  page.click('#play')
  wait_until(lambda: step(page) > 50)
  assert step(other) == 0
  assert settings(other)['seed'] == 1 and 'seed' not in settings(page)
  other.close()


def test_comparison_and_story_open(page):
  page.click('#compare-box summary')
  page.select_option('#compare-key', 'game.loss.name')
  page.select_option('#compare-value select', 'hinge')
  page.click('#compare-start')
  page.wait_for_selector('#board-b:not([hidden])')
  page.click('#play')
  wait_until(lambda: step(page) > 20)
  page.click('#compare-stop')
  page.wait_for_selector('#board-b', state='hidden')
  page.select_option('#preset', 'two_gaussians')
  page.wait_for_selector('#story h2:has-text("Two Gaussians")')
  wait_until(lambda: settings(page).get('data.source') == 'toy:two_gaussians')


def test_slow_motion_single_player_and_layers_work(page):
  for words in ('real points', 'answers for each point', 'G is frozen',
                'D is frozen', 'its points move'):  # fmt: skip
    page.click('#slow')
    page.wait_for_selector(f'#caption:has-text("{words}")')
  wait_until(lambda: step(page) == 1)
  page.select_option('#only', 'disc')
  page.select_option('#speed', '50')
  page.click('#play')
  wait_until(lambda: step(page) > 200)
  for box in page.locator('[data-layer]').all():
    box.click()
  wait_until(lambda: step(page) > 300)


def test_save_writes_an_experiment(page):
  page.click('#save')
  page.wait_for_selector('#saved[open]')
  command = page.inner_text('#saved-command')
  assert Path(command.rpartition('=')[2]).is_file()
  page.click('#saved-close')


def test_rapid_changes_end_at_the_last_value(page):
  page.click('#play')
  page.evaluate(
    """() => {
      const slider = document.getElementById(
        'control-optimizer.disc.learning_rate');
      for (let i = 0; i < 1000; i++) {
        slider.value = -4 + 0.05 * (i % 40);
        slider.dispatchEvent(new Event('input', {bubbles: true}));
      }
    }"""
  )
  last = 10 ** (-4 + 0.05 * (999 % 40))
  key = 'optimizer.disc.learning_rate'
  wait_until(
    lambda: abs(settings(page).get(key, 0) / last - 1) < 0.01, seconds=30
  )
  now = step(page)
  wait_until(lambda: step(page) > now + 50)


def test_page_reconnects_to_a_restarted_server(browser, tmp_path_factory):
  lab = Lab(tmp_path_factory.mktemp('killed'))
  page = browser.new_page()
  page.set_default_timeout(120 * SECONDS)
  page.goto(address(lab, {**SMALL, 'seed': 5}))
  page.wait_for_selector('body[data-frames]')
  page.click('#play')
  wait_until(lambda: step(page) > 20)
  lab.stop(kill=True)
  page.wait_for_selector('#notice:has-text("connects again by itself")')
  lab.start()
  page.wait_for_selector('body[data-connection="open"]')
  page.wait_for_selector('#play:has-text("Play")')
  page.click('#play')
  wait_until(lambda: step(page) > 0)
  assert settings(page)['seed'] == 5
  page.close()
  lab.stop()


def test_other_origins_are_refused(browser, lab):
  """Even with the token, they cannot read the lab or open its socket."""
  page = browser.new_page()
  page.goto('data:text/html,<title>hostile</title>')
  opened = page.evaluate(
    """(url) => new Promise((done) => {
      const socket = new WebSocket(url.replace('http', 'ws') + 'socket?tab=x');
      socket.onopen = () => done('open');
      socket.onerror = () => done('refused');
    })""",
    lab.url,
  )
  assert opened == 'refused'
  read = page.evaluate(
    """(url) => fetch(url + 'describe', {mode: 'no-cors'})
      .then((x) => x.status, () => 'refused')""",
    lab.url,
  )
  assert read in ('refused', 0)
  posted = page.evaluate(
    """(url) => fetch(url + 'upload', {method: 'POST', body: '1 1'})
      .then((x) => x.status, () => 'refused')""",
    lab.url,
  )
  assert posted == 'refused'
  page.close()


@pytest.mark.skipif(not AXE, reason='needs AXE_CORE=axe.min.js of axe-core')
@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [1280, 390])
def test_page_has_no_accessibility_violations(browser, lab, scheme, width):
  context = browser.new_context(
    bypass_csp=True,
    color_scheme=scheme,
    viewport={'width': width, 'height': 800},
  )
  page = context.new_page()
  page.set_default_timeout(120 * SECONDS)
  page.goto(address(lab, {**SMALL, 'game.loss.name': 'wasserstein'}))
  page.wait_for_selector('body[data-frames]')
  page.click('#step')
  page.wait_for_selector('.warning button')
  page.evaluate(
    '() => document.querySelectorAll("details")'
    '.forEach((box) => { box.open = true; })'
  )
  assert violations(page) == []
  assert page.evaluate('() => document.documentElement.scrollWidth') <= width
  page.click('#draw')
  assert violations(page) == []
  context.close()


def violations(page):
  """Returns the serious violations that axe-core finds."""
  page.add_script_tag(path=AXE)
  found = page.evaluate('() => axe.run()')['violations']
  return [
    (x['id'], x['nodes'][0]['html'])
    for x in found
    if x['impact'] in ('serious', 'critical')
  ]


def test_canvas_changes_with_training(page):
  """The canvas has more than one color."""
  shot = lambda: np.asarray(
    Image.open(io.BytesIO(page.locator('#board-a canvas').screenshot()))
  )
  before = shot()
  assert len(np.unique(before.reshape(-1, before.shape[-1]), axis=0)) > 20
  page.click('#play')
  wait_until(lambda: step(page) > 100)
  assert not np.array_equal(before, shot())
