"""Writes a table of results as Markdown: a page, and the README's block."""

import re
import shlex
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.results import Row, Run, Table
from gan_jax.config import PER_MACHINE, flatten

# Keys that the protocol records, or that do not change a result.
RECORDED = {*PER_MACHINE, 'data.crop', 'data.resolution', 'data.source',
            'data.split'}  # fmt: skip
# The README's block: it names the file whose table it shows.
BLOCK = re.compile(
  r'(<!-- results: (?P<file>\S+) -->\n).*?(<!-- end of results -->)', re.DOTALL
)


def page(table: Table) -> str:
  """Returns the page of a table."""
  runs = [run for row in table.rows for run in row.runs]
  seeds = [
    (_experiment(row), _shown_settings(row), run.seed,
     _number(run.value, run.std), f'{run.images:,}', f'{run.hours:.2g}',
     run.hardware)
    for row in table.rows
    for run in row.runs
  ]  # fmt: skip
  flat = flatten(table.protocol)
  stamp = {key: value for key, value in flat.items() if value is not None}
  sources = {row.settings['data.source'] for row in table.rows}
  return '\n'.join(
    [
      f'# Table of results: {", ".join(sorted(sources)) or "no data yet"}',
      '',
      'One command trains, evaluates and writes this table. It continues where '
      'it stopped; a row with a changed setting is not mixed with older ones.',
      '',
      f'```\n{_command(table)}\n```',
      '',
      *summary(table),
      '',
      'Hours are those of training, compilation included and evaluations not, '
      'on machines that other programs may have used too. '
      'Scores are of the newest checkpoint, of the moving average of the '
      'generator.',
      '',
      '## Each seed',
      '',
      *markdown_table(
        ('experiment', 'settings', 'seed', table.score, 'images', 'hours',
         'hardware'),
        seeds,
      ),
      '',
      '## Protocol',
      '',
      *markdown_table(
        ('key', 'value'), [(f'`{key}`', x) for key, x in stamp.items()]
      ),
      '',
      '## Versions',
      '',
      *_versions(runs),
      '',
      '## Commands of the first seeds',
      '',
      '```',
      *(line for row in table.rows for run in row.runs[:1]
        for line in run.commands),
      '```',
      '',
    ]
  )  # fmt: skip


def _versions(runs: Iterable[Run]) -> list[str]:
  """Returns a line for each set of versions."""
  texts = {
    ', '.join(f'{name} {version}' for name, version in run.versions.items())
    for run in runs
  }
  return [f'- {text}' for text in sorted(texts)]


def _command(table: Table) -> str:
  """Returns the command that reproduces the table."""
  words = [word for row in table.rows for word in shlex.split(row.title)]
  seeds = sorted({run.seed for row in table.rows for run in row.runs})
  flags = [f'--seeds={",".join(map(str, seeds))}']
  for name, value in (
    ('metric', table.protocol.get('metric', {}).get('name')),
    ('protocol', table.protocol.get('protocol')),
  ):
    if value:
      flags.append(f'--{name}={value}')
  return shown(['python', '-m', 'benchmarks.table', *words, *flags])


def summary(table: Table) -> list[str]:
  """Returns the lines of the table with one line for each row."""
  head = f'{table.score}, median (range)'
  names = 'experiment', 'settings', 'images', 'hours', head, 'seeds', 'hardware'
  return markdown_table(
    names, [_summarized(row) for row in table.rows if row.runs]
  )


def _summarized(row: Row) -> tuple[Any, ...]:
  values = [run.value for run in row.runs if run.value is not None]
  score = 'diverged'
  if values:
    score = f'**{_number(statistics.median(values))}**'
  if len(values) > 1:
    score += f' ({_number(min(values))} to {_number(max(values))})'
  if values and len(values) < len(row.runs):
    score += f', {len(row.runs) - len(values)} diverged'
  hours = statistics.median(run.hours for run in row.runs)
  hardware = dict.fromkeys(run.hardware for run in row.runs)
  return (
    _experiment(row),
    _shown_settings(row),
    f'{max(run.images for run in row.runs):,}',
    f'{hours:.2g}',
    score,
    len(row.runs),
    '; '.join(hardware),
  )


def _experiment(row: Row) -> str:
  file, colon, argument = row.experiment.partition(':')
  return f'`{Path(file).name}{colon}{argument}`'


def _shown_settings(row: Row) -> str:
  """Returns the overrides that the protocol does not record."""
  settings = [
    f'`{key}={value}`'
    for key, value in row.overrides.items()
    if not key.startswith('evaluation.') and key not in RECORDED
  ]
  return ', '.join(settings) or 'as in the file'


def _number(value: float | None, std: float | None = None) -> str:
  if value is None:
    return 'diverged'
  return f'{value:.4g}' + ('' if std is None else f' ± {std:.2g}')


def markdown_table(
  names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]
) -> list[str]:
  """Returns a Markdown table."""
  line = lambda cells: f'| {" | ".join(map(str, cells))} |'
  return [line(names), f'|{"---|" * len(names)}', *map(line, rows)]


def with_block(text: str, name: str, table: Table) -> str:
  """Returns a text with its block of results written again.

  Args:
    text: A README; without a block that names the file, it stays as it is.
    name: The file of the results, as the block names it.
    table: The results.
  """
  content = '\n'.join(summary(table))

  def replaced(match: re.Match[str]) -> str:
    if match['file'] != name:
      return match[0]
    return f'{match[1]}{content}\n{match[3]}'

  return BLOCK.sub(replaced, text)


def shown(command: Iterable[str]) -> str:
  """Returns a command line as a user types it, broken into lines."""
  lines = ['']
  for word in map(shlex.quote, command):
    if lines[-1] and len(lines[-1]) + len(word) > 78:
      lines[-1] += ' \\'
      lines.append(' ')
    lines[-1] += f' {word}' if lines[-1] else word
  return '\n'.join(lines)
