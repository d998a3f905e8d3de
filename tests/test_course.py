"""The pages of the course run, and what they assert holds."""

import re

import pytest
from conftest import ROOT

PAGES = sorted(
  path
  for path in (ROOT / 'docs' / 'course').glob('*.md')
  if path.stem != 'index'
)


def cells(page):
  """The code of a page, cell by cell."""
  return re.findall(
    r'^```\{code-cell\} ipython3\n(.*?)^```', page.read_text(), re.M | re.S
  )


@pytest.mark.slow  # a minute each
@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_page_runs(page, capsys):
  names = {'__name__': 'course'}
  for number, cell in enumerate(cells(page)):
    exec(compile(cell, f'{page.stem}[{number}]', 'exec'), names)
  assert capsys.readouterr().out


def test_every_page_is_listed_and_asserts_something():
  listed = (ROOT / 'docs' / 'course' / 'index.md').read_text()
  for page in PAGES:
    assert f'\n{page.stem}\n' in listed, page
    assert any('assert ' in cell for cell in cells(page)), page
    for cell in cells(page):
      compile(cell, page.stem, 'exec')
