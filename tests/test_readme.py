"""What the README and the pages beside it say is there, is there."""

import re
import runpy
import shlex

import numpy as np
import pytest
from absl import flags
from conftest import ROOT
from runs import get_config, metrics

import launch  # its flags
from gan_jax import config as cfg
from gan_jax.training import loop

FLAGS = re.MULTILINE | re.DOTALL
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}


def anchors(text):
  """Of a page's headings, as GitHub makes them."""
  titles = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {re.sub(r'[^\w -]', '', x.lower()).replace(' ', '-') for x in titles}


def commands():
  """(page, words) of all that is started by launch.py."""
  for page, text in TEXTS.items():
    blocks = re.findall(r'^```\w*\n(.*?)^```', text, FLAGS)
    for line in '\n'.join(blocks).replace('\\\n', ' ').splitlines():
      _, found, rest = line.partition('python launch.py ')
      if found:  # perhaps at the end of what is quoted
        yield (
          page,
          shlex.split(rest.rstrip('"') if rest.count('"') % 2 else rest),
        )


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  text = page.read_text()
  targets = re.findall(r'\]\(([^)\s]+)\)', text)
  assert targets
  for target in targets:
    if '://' in target:
      continue
    path, _, anchor = target.partition('#')
    other = (page.parent / path).resolve() if path else page
    assert other.exists(), target
    assert not anchor or anchor in anchors(other.read_text()), target


def test_commands_are_of_experiments_and_keys_that_there_are():
  assert launch
  checked = 0
  for page, words in commands():
    config = None
    for word in words:
      name, _, value = word.removeprefix('--').partition('=')
      if name == 'config':
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


def test_the_file_of_ones_own(tmp_path):
  """It is trained as it stands."""
  blocks = re.findall(r'^```python\n(.*?)^```', TEXTS['README.md'], FLAGS)
  (text,) = [block for block in blocks if 'def get_config' in block]
  (tmp_path / 'mine.py').write_text(text)
  config = runpy.run_path(str(tmp_path / 'mine.py'))['get_config']('tiny')
  loop.train(config, tmp_path / 'run')
  (*_, last) = metrics(tmp_path / 'run')
  assert np.isfinite(last['disc/r1'])


def test_files_that_are_named_there_are():
  for page, text in TEXTS.items():
    for name in re.findall(r'[\w*/]+\.(?:py|ipynb)\b', text):
      found = [*ROOT.glob(name), *ROOT.glob(f'*/{name}')]
      assert found or name == 'mine.py', (page, name)
