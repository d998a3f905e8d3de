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
# Flax adds these to every module.
FLAX = re.compile(r', (?:parent|name): [^=]*= [^,)]*')


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


def _skip_member(
  app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
  return True if isinstance(obj, FIELD) else None


def _process_signature(
  app: Sphinx, what: str, name: str, obj: Any, options: Any,
  signature: str | None, result: str | None,
) -> tuple[str | None, str | None] | None:  # fmt: skip
  if what != 'class' or not signature:
    return None
  return FLAX.sub('', signature), result


def setup(app: Sphinx) -> dict[str, Any]:
  """Registers the handlers; napoleon runs after them."""
  app.connect('autodoc-process-docstring', _process_docstring, priority=400)
  app.connect('autodoc-skip-member', _skip_member)
  app.connect('autodoc-process-signature', _process_signature)
  return {'parallel_read_safe': True}
