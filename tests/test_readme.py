"""Tests that names, links and commands of the documentation exist and work."""

import importlib
import json
import re
import runpy
import shlex
import sys
from functools import cache

import numpy as np
import pytest
from absl import flags
from conftest import ROOT
from ml_collections import ConfigDict
from runs import EXPERIMENTS, config_path, get_config, metrics, preempt_at

import gan_jax
import launch  # defines the flags
from gan_jax import config as cfg
from gan_jax import data, errors, models
from gan_jax.bounds import bound_of
from gan_jax.data.toys import TOYS
from gan_jax.games import GAMES, augment, latents, losses, penalties
from gan_jax.metrics import scores
from gan_jax.metrics.features import FEATURES
from gan_jax.metrics.measure import METRICS
from gan_jax.runs.run import Run
from gan_jax.sweep.results import Sweep
from gan_jax.training import loop, optimizers

FLAGS = re.MULTILINE | re.DOTALL
# (A build writes pages too.)
PAGES = [
  *sorted(ROOT.glob('*.md')),
  *sorted(
    page
    for page in (ROOT / 'docs').rglob('*.md')
    if '_build' not in page.parts and 'api' not in page.parts
  ),
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
# Names that stand for any file of the reader.
PLACEHOLDERS = ('mine.py', 'FILE.py')


def anchors(text):
  """The anchors of a page's headings, as GitHub and MyST make them."""
  titles = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {re.sub(r'[^\w -]', '', x.lower()).replace(' ', '-') for x in titles}


def blocks(page, language):
  return re.findall(rf'^```{language}\n(.*?)^```', TEXTS[page], FLAGS)


def commands():
  """(page, words) of every command of launch.py in a code block."""
  for page in TEXTS:
    text = '\n'.join(blocks(page, r'\w*')).replace('\\\n', ' ')
    for line in text.splitlines():
      _, found, rest = line.partition('python launch.py ')
      if found:  # perhaps at the end of a quotation
        yield (
          page,
          shlex.split(rest.rstrip('"') if rest.count('"') % 2 else rest),
        )


@cache
def all_keys():
  """Returns the keys of all experiments."""
  configs = [get_config(name) for name in EXPERIMENTS]
  return {key for config in configs for key in cfg.flatten(config.to_dict())}


@pytest.mark.parametrize('page', TEXTS)
def test_links_exist(page):
  for target in re.findall(r'\]\(([^)\s]+)\)', TEXTS[page]):
    if '://' in target:
      continue
    path, _, anchor = target.partition('#')
    file = ROOT / page
    other = (file.parent / path).resolve() if path else file
    assert other.exists(), target
    assert not anchor or anchor in anchors(other.read_text()), target


def test_commands_name_existing_experiments_and_keys():
  assert launch
  checked = 0
  for page, words in commands():
    config = None
    for word in words:
      name, _, value = word.removeprefix('--').partition('=')
      if name == 'config' and value not in PLACEHOLDERS:
        path, _, arg = value.partition(':')
        assert (ROOT / path).exists(), (page, word)
        config = get_config(path.split('/')[-1].removesuffix('.py'), arg)
      elif name.startswith('config.'):
        known = cfg.flatten(config.to_dict())
        cfg.check_key(page, name.removeprefix('config.'), known)
        checked += 1
      else:
        assert name in flags.FLAGS, (page, word)
  assert checked > 20


def test_config_flags_in_the_text_exist():
  for page, text in TEXTS.items():
    for key in re.findall(r'--config\.([a-z][\w.]*\w)', text):
      assert key in all_keys() or bound_of(key), (page, key)


def test_table_of_keys_is_complete():
  """Each key of an experiment has a line, and each line is of a known key."""
  tables = '\n'.join(
    blocks('docs/reference/configuration.md', '{config-keys}.*?')
  )
  keys = re.findall(r'^([\w.]+): ', tables, re.MULTILINE)
  any_of = {'PLAYER': 'gen|disc|encoder', 'NAME': r'\w+', 'at_64': r'at_\d+'}
  fill = lambda key: re.sub(
    '|'.join(any_of), lambda match: f'({any_of[match[0]]})', key
  )
  pattern = re.compile('|'.join(fill(key).replace('.', r'\.') for key in keys))
  for key in all_keys():
    block, _, leaf = key.rpartition('.')
    if block.startswith('game.penalties.'):  # described on another page
      assert f'`{leaf}`' in TEXTS['docs/reference/losses.md'], key
    else:
      assert key == 'schedule' or pattern.fullmatch(key), key
  for key in keys:
    known = key.replace('PLAYER', 'disc').replace('NAME', 'r1')
    assert bound_of(known), key


@pytest.mark.parametrize(
  'page, names',
  [
    ('reference/losses', losses.LOSSES),
    ('reference/losses', penalties.PENALTIES),
    ('reference/losses', augment.AUGMENTATIONS),
    ('reference/losses', latents.LATENTS),
    ('reference/metrics', METRICS),
    ('reference/configuration', models.MODELS.gen),
    ('reference/configuration', models.MODELS.disc),
    ('reference/configuration', optimizers.OPTIMIZERS),
    ('reference/commands', launch.MODES),
    ('reference/commands', launch.RUN_MODES),
    ('reference/configuration', GAMES),
    ('how_to/evaluate', FEATURES),
    ('how_to/own_images', data.SOURCES),
    ('tutorials/toy', TOYS),
  ],
)
def test_every_choice_is_documented(page, names):
  for name in names:
    assert re.search(rf'\b{name}\b', TEXTS[f'docs/{page}.md']), name


def test_every_experiment_is_documented():
  """The reference has each experiment, and the README each group of them."""
  for name in EXPERIMENTS:
    named = config_path(name).removeprefix('experiments/')
    assert f'`{named}`' in TEXTS['docs/reference/experiments.md'], name
    file = named.partition(':')[0]
    known = (f'`{file}', f'`{file.partition("_")[0]}_*.py`')
    assert any(x in TEXTS['README.md'] for x in known), name


def test_exit_codes_are_documented():
  text = TEXTS['docs/reference/exit_codes.md']
  for code in (0, 1, 2, errors.DIVERGED, errors.PREEMPTED, 130, 141):
    assert f'| {code} |' in text


def attribute(name):
  """Returns the object that a dotted name names."""
  parts = name.split('.')
  for length in range(len(parts), 0, -1):
    module = '.'.join(parts[:length])
    try:
      found = importlib.import_module(module)
    except ModuleNotFoundError as error:
      if error.name not in module:
        raise
      continue
    for part in parts[length:]:
      found = getattr(found, part)
    return found
  raise AttributeError(name)


def test_names_of_the_package_exist():
  """In the text, in code, and methods of `run` and `sweep`."""
  checked = 0
  for page, text in TEXTS.items():
    for name in re.findall(r'\bgan_jax(?:\.[a-z_]\w*)+(?!\w*[./])', text):
      if not name.endswith('.py'):
        assert attribute(name) is not None, (page, name)
        checked += 1
    for kind, pattern in ((Run, r'\brun\.([a-z]\w*)\('),
                          (Sweep, r'\bsweep\.([a-z]\w*)\(')):  # fmt: skip
      for name in re.findall(pattern, text):
        assert hasattr(kind, name), (page, name)
        checked += 1
  assert gan_jax and checked > 30


@pytest.fixture
def mine(tmp_path, monkeypatch):
  """Writes the `mine.py` of a page into an empty current folder."""

  def write(page):
    (text,) = [x for x in blocks(page, 'python') if 'def get_config' in x]
    (tmp_path / 'mine.py').write_text(text)
    monkeypatch.chdir(tmp_path)
    return runpy.run_path('mine.py')

  yield write
  sys.modules.pop('mine', None)


@pytest.mark.parametrize('page', ['docs/how_to/own_parts.md', 'README.md'])
def test_custom_experiment_of_the_docs_trains(page, mine, tmp_path):
  config = mine(page)['get_config']('tiny')
  loop.train(config, tmp_path / 'run')
  (*_, last) = metrics(tmp_path / 'run')
  assert all(np.isfinite(value) for value in last.values())


def test_custom_parts_need_trust_to_load(mine, tmp_path):
  """They train and resume, but loading imports them only with trust=True."""
  config = mine('README.md')['get_config']('tiny')
  workdir = tmp_path / 'run'
  config.steps_per_dispatch = 4
  with pytest.MonkeyPatch.context() as patch:
    preempt_at(4, patch)
    with pytest.raises(errors.Preempted):
      loop.train(config, workdir)
  with pytest.raises(errors.UserError, match=r'mine\.py:Generator.*trust'):
    gan_jax.load(workdir)
  run = gan_jax.load(workdir, trust=True)
  size = config.data.resolution
  assert run.sample(3).shape == (3, size, size, 1)


def test_every_kind_of_part_can_be_a_file(tmp_path, monkeypatch):
  """Each name of docs/how_to/own_parts.md, here with parts of the package."""
  (tmp_path / 'parts.py').write_text(
    'from gan_jax.games.latents import LATENTS\n'
    'from gan_jax.games.augment import color\n'
    'from gan_jax.games.penalties import r1\n'
    'from gan_jax.games.image import image_game\n'
    'from gan_jax.training.optimizers import adam\n'
    'from gan_jax.metrics.measure import Metric\n'
    "normal = LATENTS['gaussian']\n"
    "mean = lambda _, fake: {'brightness': float(fake.images.mean())}\n"
    "brightness = Metric('images', ('brightness',), mean,\n"
    "                    higher_is_better=('brightness',))\n"
  )
  monkeypatch.chdir(tmp_path)
  config = get_config('vanilla_mnist', 'tiny')
  config.game.latent = 'parts.py:normal'
  config.game.augment = ('parts.py:color',)
  mine = {'name': 'parts.py:r1', 'weight': 0.1}
  config.game.penalties = ConfigDict({'mine': mine})
  config.optimizer.gen.name = 'parts.py:adam'
  config.evaluation.metrics = ('parts.py:brightness',)
  config.evaluation.every_images = 4 * config.batch_size
  loop.train(config, tmp_path / 'run')
  assert metrics(tmp_path / 'run')[-1]['disc/mine'] >= 0
  values = {s.step: s.value for s in scores.read(tmp_path / 'run') if s.step}
  best = gan_jax.load(tmp_path / 'run', best='brightness', trust=True)
  assert best.step == max(values, key=values.get)
  sys.modules.pop('parts')


@pytest.mark.parametrize(
  'name, message',
  [
    ('gone.py:Net', 'there is no file .*gone.py'),
    ('broken.py:Net', r'config.model.gen.name.*broken.py.*ZeroDivisionError'),
    ('broken:Net', r'config.model.gen.name.*broken.*ZeroDivisionError'),
    ('empty.py:Net', "empty.*has no attribute 'Net'"),
    ('json.py:Net', 'has the name of another module, json: rename it'),
  ],
)
def test_part_that_cannot_be_imported_is_one_line(
  name, message, tmp_path, monkeypatch
):
  (tmp_path / 'broken.py').write_text('1 / 0')
  (tmp_path / 'empty.py').write_text('')
  (tmp_path / 'json.py').write_text('')
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  config = get_config('vanilla_mnist', 'tiny')
  config.model.gen.name = name
  with pytest.raises(errors.UserError, match=message) as caught:
    loop.train(config, tmp_path / 'run')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'changes',
  [
    {'model.gen.name': 'evil:run'},
    {'game.augment': ('evil.py:run',)},
    {'game.penalties': {'r1': {'name': 'evil:run', 'weight': 1.0}}},
    {'evaluation.metrics': ('swd', 'evil:run')},
    {'schedule': ({'values': {'x': ['evil.py:run', 0, 1]}},)},
  ],
)
def test_load_runs_no_custom_code(changes, tmp_path, monkeypatch):
  (tmp_path / 'evil.py').write_text('1 / 0')
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  config = get_config('vanilla_mnist', 'tiny').to_dict()
  for key, value in changes.items():
    block, _, leaf = key.rpartition('.')
    part = config
    for name in block.split('.') if block else ():
      part = part[name]
    part[leaf] = value
  (tmp_path / 'config.json').write_text(json.dumps(config))
  with pytest.raises(errors.UserError, match=r'evil(\.py)?:run.*trust=True'):
    gan_jax.load(tmp_path)


@pytest.mark.parametrize(
  'key, value',
  [
    ('on_divergence', 'evil:run'),
    ('parallel', 'evil:run'),
    ('precision', 'evil:run'),
    ('game.penalties', {'evil:run': {'weight': 1.0}}),
    ('schedule', ({'values': {'game.instance_noise': ('evil:run', 0, 1)}},)),
    ('model.gen.activation', 'evil:run'),
  ],
)
def test_other_names_are_not_imported(key, value, tmp_path, monkeypatch):
  """Only the names of docs/how_to/own_parts.md are imported."""
  (tmp_path / 'evil.py').write_text('1 / 0')
  monkeypatch.syspath_prepend(tmp_path)
  config = get_config('vanilla_mnist', 'tiny')
  with config.unlocked():
    config.update_from_flattened_dict({key: value})
  with pytest.raises(errors.UserError, match=r"unknown .* 'evil:run'"):
    loop.train(config, tmp_path / 'run')


def test_named_files_exist():
  for page, text in TEXTS.items():
    for name in re.findall(r'[\w*/]+\.(?:py|ipynb)\b', text):
      found = [*ROOT.glob(name), *ROOT.glob(f'*/{name}')]
      assert found or name in PLACEHOLDERS, (page, name)
