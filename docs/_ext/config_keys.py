"""The `config-keys` directive: a table of keys of a config.

  ```{config-keys} experiments/vanilla_mnist.py
  batch_size: Images in one discriminator update, on all devices together.
  ```

Each line is a key and its description in Markdown. The directive adds the value
that the experiment has, and the valid values from `gan_jax.bounds`.
"""

import math
import runpy
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gan_jax.bounds import Bound, bound_of
from gan_jax.config import flatten

ROOT = Path(__file__).resolve().parents[2]
KINDS = {bool: 'True or False', float: 'number', int: 'integer', str: 'text'}


def _number(value: float) -> str:
  """2**20 and 2**50 as powers, other numbers as digits."""
  if value >= 1024 and math.log2(value).is_integer():
    return f'2^{int(math.log2(value))}'
  return f'{value:,}' if isinstance(value, int) else f'{value:g}'


def valid_values(bound: Bound | None) -> str:
  """The valid values of a key, in words."""
  if bound is None:
    return 'see the text'
  text = KINDS.get(bound.kind, 'text')
  if bound.kind in (int, float):
    low = f'{"above" if bound.above else "from"} {_number(bound.low)}'
    high = f'{"below" if bound.below else "to"} {_number(bound.high)}'
    text = f'{text} {low} {high}'
  if bound.several:
    text = f'tuple, each item {text}'
  elif bound.several is None:
    text += ', or a tuple'
  return text + (' or None' if bound.none else '')


class ConfigKeys(SphinxDirective):
  """A table with one row a key."""

  required_arguments = 1
  has_content = True

  def run(self) -> list[nodes.Node]:
    path, _, argument = self.arguments[0].partition(':')
    given = filter(None, [argument])
    config = runpy.run_path(str(ROOT / path))['get_config'](*given)
    values = flatten(config.to_dict())
    self.env.note_dependency(str(ROOT / path))
    rows = ['| key | default | valid | description |', '|---|---|---|---|']
    for line in filter(None, self.content):
      key, _, text = line.partition(': ')
      valid = valid_values(bound_of(_example(key, 'gen')))
      value = _default(values, key)
      rows.append(f'| `{key}` | {value} | {valid} | {text} |')
    node = nodes.container(classes=['config-keys'])
    content = StringList(rows, source=self.get_source_info()[0])
    self.state.nested_parse(content, self.content_offset, node)
    return [node]


def _example(key: str, player: str) -> str:
  return key.replace('PLAYER', player).replace('NAME', 'r1')


def _default(values: dict[str, Any], key: str) -> str:
  """Returns the default of a key; of both players, if theirs differ."""
  shown = {}
  for player in ('gen', 'disc'):
    example = _example(key, player)
    shown[player] = f'`{values[example]!r}`' if example in values else 'not set'
  if shown['gen'] == shown['disc']:
    return shown['gen']
  return '; '.join(f'{player}: {value}' for player, value in shown.items())


def setup(app: Sphinx) -> dict[str, Any]:
  """Registers the directive."""
  app.add_directive('config-keys', ConfigKeys)
  return {'parallel_read_safe': True}
