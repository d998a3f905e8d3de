"""Writes the report of benchmarks/accelerator.py as Markdown."""

from typing import Any

from benchmarks.page import markdown_table

NONE = '-'


def page(report: dict[str, Any]) -> str:
  """Returns the page of a report, complete or not."""
  machine = report['machine']
  versions = {**machine.get('versions', {}), 'PyTorch': report['torch'] or NONE}
  return '\n'.join(
    [
      f'# Speed on {machine.get("hardware", "an unknown machine")}',
      '',
      f'{", ".join(f"{name} {x}" for name, x in versions.items())}.',
      f'Measured in {report["seconds"]} s by `{report["command"]}`.',
      '',
      '## Roofs',
      '',
      *_roofs(machine),
      '',
      '## Experiments',
      '',
      'On generated images, at the best number of iterations in a dispatch. '
      'The share is that of the measured speed of large matrix products, by '
      'counted FLOPs. The wait for input is the time lost when the images come '
      'from the memory of the host.',
      '',
      *_experiments(report['experiments']),
      '',
      *_stages(report['stages']),
      '## PyTorch',
      '',
      'The ratio is gan_jax to PyTorch: the median of pairs, and their range.',
      '',
      *_peers(report['peers'], report['torch_problem']),
      '',
      '## Kernels of the slowest',
      '',
      *_profile(report['profile'] or {'problem': NONE}),
      '',
      *_problems(report),
    ]
  )


def _roofs(roofs: dict[str, Any]) -> list[str]:
  names = {
    'matmul_flops_per_second_bfloat16': ('product, bfloat16', 1e12, 'TFLOP/s'),
    'matmul_flops_per_second_float32': (
      'product, float32 with the precision that JAX chooses', 1e12, 'TFLOP/s'
    ),
    'memory_bytes_per_second': ('memory, read and written', 1e9, 'GB/s'),
    'memory_bytes': ('size of the memory', 1e9, 'GB'),
  }  # fmt: skip
  return markdown_table(
    ('roof', 'measured'),
    [
      (title, f'{_number(roofs.get(name), unit)} {symbol}')
      for name, (title, unit, symbol) in names.items()
    ],
  )


def _experiments(rows: list[dict[str, Any]]) -> list[str]:
  names = (
    'experiment', 'precision', 'batch', 'images/s', 'share of products',
    'GFLOP/image', 'memory, GB', 'compilation, cold and warm, s',
    'wait for input', 'best `steps_per_dispatch`', 'images/s by it',
  )  # fmt: skip
  return markdown_table(
    names,
    [
      (
        f'`{row["experiment"]}`',
        row['precision'],
        row['batch_size'],
        f'**{in_digits(row["images_per_second"])}**',
        f'{row["share_of_matmul"]:.0%}',
        _number(row['flops_per_image'], 1e9),
        _number(row['peak_memory_bytes'], 1e9),
        f'{row["compile_seconds_cold"]:.0f}, {row["compile_seconds_warm"]:.0f}',
        _percent(row['share_waiting_for_input']),
        row['steps_per_dispatch_best'],
        ', '.join(
          f'{length}: {in_digits(speed)}'
          for length, speed in row[
            'images_per_second_by_steps_per_dispatch'
          ].items()
        ),
      )
      for row in rows
      if 'images_per_second' in row
    ],
  )


def _stages(rows: list[dict[str, Any]]) -> list[str]:
  lines = []
  for row in rows:
    if row.get('stages'):
      lines += [f'### Stages of `{row["experiment"]}`', '']
      lines += markdown_table(
        ('size', 'images/s', 'GFLOP/image', 'program, GB', 'compilation, s'),
        [
          (
            stage['size'],
            f'{in_digits(stage["images_per_second"])}',
            _number(stage['flops_per_image'], 1e9),
            _number(stage['program_bytes'], 1e9),
            f'{stage["compile_seconds"]:.0f}',
          )
          for stage in row['stages']
        ],
      )
      lines.append('')
  return lines


def _peers(rows: list[dict[str, Any]], problem: str | None) -> list[str]:
  if problem:
    return [f'Not compared: {problem}.']
  listed = []
  for row in rows:
    for name, found in row.items():
      if isinstance(found, dict):
        about = row['family'], row['precision'], row['batch_size'], f'`{name}`'
        listed.append((*about, *_compared(found)))
  names = (
    'networks', 'precision', 'batch', 'PyTorch', 'ratio', 'gan_jax, images/s',
    'PyTorch, images/s', 'layout',
  )  # fmt: skip
  return markdown_table(names, listed)


def _compared(found: dict[str, Any]) -> tuple[str, ...]:
  if 'problem' in found:
    return found['problem'].replace('|', '/'), NONE, NONE, NONE
  low, high = found['range']
  return (
    f'**{found["ratio"]:.2f}** ({low:.2f} to {high:.2f})',
    f'{in_digits(found["ours_images_per_second"])}',
    f'{in_digits(found["images_per_second"])}',
    found['note'] or NONE,
  )


def _profile(profile: dict[str, Any]) -> list[str]:
  if 'kernels' not in profile:
    return [f'None: {profile["problem"]}.']
  return [
    f'`{profile["experiment"]}`, {profile["precision"]}, '
    f'{profile["iterations"]} iterations in {profile["seconds"]:.3g} s.',
    '',
    *markdown_table(
      ('kernel', 'calls', 'ms', 'share'),
      [
        (
          f'`{kernel["name"].replace("|", "/")}`',
          kernel['calls'],
          f'{kernel["milliseconds"]:.4g}',
          f'{kernel["share"]:.1%}',
        )
        for kernel in profile['kernels']
      ],
    ),
  ]


def _problems(report: dict[str, Any]) -> list[str]:
  """Lists what was not measured, and why."""
  lines = []
  for part in ('experiments', 'stages', 'peers'):
    for row in report[part]:
      if 'problem' in row:
        name = row.get('experiment') or row['family']
        lines.append(f'- {part}, {name}, {row["precision"]}: {row["problem"]}')
  if 'problem' in report['machine']:
    lines.append(f'- the machine: {report["machine"]["problem"]}')
  return ['## Not measured', '', *lines, ''] if lines else []


def in_digits(speed: float) -> str:
  """Writes a speed with three digits or more: 1,234 or 12.3."""
  return f'{speed:,.0f}' if speed >= 100 else f'{speed:.3g}'


def _number(value: float | None, unit: float) -> str:
  return NONE if value is None else f'{value / unit:.4g}'


def _percent(share: float | None) -> str:
  return NONE if share is None else f'{share:.0%}'
