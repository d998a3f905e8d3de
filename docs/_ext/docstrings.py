"""Shows the docstrings of the package as they are meant.

The docstrings are plain text with single backticks. `|x|` is a norm, `a * b` is
a product and `name_` is a name, but each is markup in reStructuredText.
"""

import re
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

# Sphinx documents the fields of a NamedTuple as "Alias for field number 0". The
# class's `Attributes` section says what they are.
FIELD = type(namedtuple('One', 'x').x)
# Parts of signatures, and what is shown in their place.
SIGNATURES = {
  r', (?:parent|name): [^=]*= [^,)]*': '',  # Flax adds these to every module
  r"<class '(?:\w+\.)*(\w+)'>": r'\1',
  r'<function (\w+)>': r'\1',
  r'~?jaxlib\._jax\.Array': 'Array',
}


def _escape(line: str) -> str:
  """Escapes markup characters outside of backticks."""
  if line.lstrip().startswith('>>>'):
    return line
  parts = re.split(r'(`[^`]+`)', line)
  for index in range(0, len(parts), 2):
    parts[index] = re.sub(r'([*|])', r'\\\1', parts[index])
    parts[index] = re.sub(r'(\w)_(?!\w)', r'\1\\_', parts[index])
    parts[index] = parts[index].replace('``', 'an empty text')
  return ''.join(parts)


def _with_literal_blocks(lines: list[str]) -> Iterator[str]:
  """Escapes the text; indented blocks are commands or tables, shown as code."""
  previous, literal = '', False
  for line in lines:
    indented = line.startswith(' ')
    if indented and not literal and not previous:
      yield from ('::', '')
      literal = True
    elif line and not indented:
      if literal and previous:
        yield ''
      literal = False
    yield line if literal else _escape(line.strip())
    previous = line


def _process_docstring(
  app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
  if what == 'module':
    lines[:] = list(_with_literal_blocks(lines))
  else:
    lines[:] = [_escape(line) for line in lines]


def _split_fields(
  app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
  """Repeats a field `:ivar a, b: text` for each of its names."""
  fields: list[list[str]] = []
  for line in lines:
    if not fields or (line and not line.startswith(' ')):
      fields.append([])
    fields[-1].append(line)
  lines.clear()
  for first, *rest in fields:
    match = re.match(r':(ivar|param) ([^:]*?(?:,| ).*?): (.*)', first)
    if match is None or ' ' not in match[2]:
      lines += [first, *rest]
      continue
    # (`The others` has no name of its own.)
    for each in match[2].removeprefix('The ').split(', '):
      lines += [f':{match[1]} {each}: {match[3]}', *rest]


def _skip_member(
  app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
  return True if isinstance(obj, FIELD) or name == 'dtype' else None


def _process_signature(
  app: Sphinx, what: str, name: str, obj: Any, options: Any,
  signature: str | None, result: str | None,
) -> tuple[str | None, str | None]:  # fmt: skip
  shown = []
  for text in (signature, result):
    for pattern, replacement in SIGNATURES.items():
      text = text and re.sub(pattern, replacement, text)
    shown.append(text)
  return shown[0], shown[1]


def setup(app: Sphinx) -> dict[str, Any]:
  """Registers the handlers: before and after napoleon, which has 500."""
  app.connect('autodoc-process-docstring', _process_docstring, priority=400)
  app.connect('autodoc-process-docstring', _split_fields, priority=600)
  app.connect('autodoc-skip-member', _skip_member)
  app.connect('autodoc-process-signature', _process_signature)
  return {'parallel_read_safe': True}
