"""Tests of `python -m benchmarks.accelerator` at toy sizes, and of its
failures.
"""

import json
import sys
import time

import pytest
from conftest import ROOT

from benchmarks import accelerator, accelerator_page, measurement
from benchmarks.kernels import top_kernels
from benchmarks.peers import compare

ROW = 'experiments/vanilla_mnist.py'
# A program that prints a figure and then runs a statement.
PROGRAM = 'import time, sys; print(\'{{"a": 1}}\', flush=True); {}'


def rows(seconds=60):
  return accelerator.Rows(time.monotonic() + seconds)


@pytest.mark.slow
def test_tiny_report_lists_figures_and_failures(tmp_path, monkeypatch, capsys):
  """A row that runs out of memory is reported, and the others are measured."""
  monkeypatch.setattr(accelerator, 'PRECISIONS', ('float32',))
  monkeypatch.setattr(accelerator, 'LENGTHS', '1')
  large = tmp_path / 'large.py'
  large.write_text(
    'def get_config(arg):\n  raise RuntimeError("RESOURCE_EXHAUSTED: 1 TB")\n'
  )
  accelerator.main(
    ['--tiny', '--no-peers', f'--experiments={large},{ROW}',
     f'--output={tmp_path}', '--minutes=5']
  )  # fmt: skip
  report = json.loads((tmp_path / 'accelerator.json').read_text())
  assert report['machine']['versions']['jax']
  assert report['machine']['memory_bytes_per_second'] > 0
  assert report['machine']['matmul_flops_per_second_float32'] > 0
  failed, row = report['experiments']
  assert failed['problem'] == 'out of memory (RESOURCE_EXHAUSTED)'
  assert row['images_per_second'] == max(
    row['images_per_second_by_steps_per_dispatch'].values()
  )
  assert row['images_per_second_by_steps_per_dispatch'].keys() == {'1', '4'}
  assert row['precision'] == 'float32' and row['batch_size'] == 16
  assert row['share_of_matmul'] == pytest.approx(
    row['flops_per_image']
    * row['images_per_second']
    / row['matmul_flops_per_second'],
    rel=2e-3,
  )
  assert 0 <= row['share_waiting_for_input'] < 1
  assert report['profile']['problem'].endswith('CPUs have none')
  text = (tmp_path / 'accelerator.md').read_text()
  assert f'| `{ROW}:tiny` | float32 | 16 |' in text
  assert f'{large}:tiny, float32: out of memory' in text
  assert 'out of memory' in capsys.readouterr().out


# Replaces benchmarks/measurement.py: prints the given figures.
FAKE = """
import json, sys
kind, *words = sys.argv[1:]
if words and words[0].startswith('large'):
  sys.exit('RESOURCE_EXHAUSTED: 1 TB')
if kind == 'profile':
  sys.exit('CPUs have none')
figures = json.loads('{figures}')
print(json.dumps({{'words': words, **figures}}))
"""


def test_failed_rows_do_not_stop_the_others(tmp_path, monkeypatch, capsys):
  """The measurements are given, and PyTorch counts as present."""
  figures = {
    'images_per_second': 50.0, 'share_of_matmul': 0.25, 'num_stages': 2,
    'flops_per_image': 1e9, 'peak_memory_bytes': 1e9, 'batch_size': 16,
    'compile_seconds_cold': 2.0, 'compile_seconds_warm': 1.0,
    'share_waiting_for_input': 0.1, 'steps_per_dispatch_best': 4,
    'images_per_second_by_steps_per_dispatch': {'1': 20.0, '4': 50.0},
  }  # fmt: skip
  program = FAKE.format(figures=json.dumps(figures))
  monkeypatch.setattr(accelerator, 'MEASUREMENT', ('-c', program))
  monkeypatch.setattr(accelerator, 'torch_version', lambda _: ('2.9', None))
  monkeypatch.setattr(accelerator, 'PEERS', (('none', 'float32', 1),))
  accelerator.main([f'--experiments=large.py,{ROW}', f'--output={tmp_path}'])
  report = json.loads((tmp_path / 'accelerator.json').read_text())
  one, two, three, four = report['experiments']
  for failed in (one, two):
    assert failed['problem'] == 'out of memory (RESOURCE_EXHAUSTED)'
  # The second precision is timed at the best length of the first.
  assert three['words'] == [ROW, 'bfloat16', accelerator.LENGTHS]
  assert four['words'] == [ROW, 'float32', '4']
  (peers,) = report['peers']
  assert "invalid choice: 'none'" in peers['problem']
  (stages,) = report['stages']
  assert stages['words'] == [ROW, 'bfloat16']
  assert report['profile']['problem'] == 'CPUs have none'
  text = (tmp_path / 'accelerator.md').read_text()
  assert (
    f'| `{ROW}` | bfloat16 | 16 | **50** | 25% | 1 | 1 | 2, 1 | 10% | 4 '
    '| 1: 20, 4: 50 |'
  ) in text
  assert 'large.py, float32: out of memory' in text
  assert f'{ROW} float32: 50 images/s, 25% of the roof' in (
    capsys.readouterr().out
  )


def test_describe_measures_matmul_and_memory_speed(monkeypatch):
  for name in ('WINDOW_SECONDS', 'PROFILED_SECONDS'):
    monkeypatch.setattr(measurement, name, 1.0)
  monkeypatch.setattr(measurement.benchmark, 'MATMUL_SIZE', {'cpu': 64})
  monkeypatch.setattr(measurement, 'COPIED_BYTES', {'cpu': 2**16})
  figures = measurement.describe('tiny')
  assert figures['memory_bytes_per_second'] > 1e6
  assert figures['matmul_flops_per_second_float32'] > 1e6
  assert figures['matmul_flops_per_second_bfloat16'] > 1e6


def test_row_without_enough_time_is_skipped():
  figures = rows(5).measure('-c', PROGRAM.format('pass'))
  assert figures == {'problem': 'skipped: no time is left'}


def test_slow_row_is_stopped_and_keeps_its_figures():
  begin = time.monotonic()
  figures = rows(1).measure('-c', PROGRAM.format('time.sleep(60)'), minimum=0)
  assert time.monotonic() - begin < 20
  assert figures.pop('problem').startswith('stopped after 1 s')
  assert figures == {'a': 1}


@pytest.mark.parametrize(
  'statement, problem',
  [
    ('sys.exit("one line")', 'one line'),
    ('1 / 0', 'ZeroDivisionError: division by zero'),
    ('raise MemoryError', 'out of memory (MemoryError)'),
    ('import os; os.kill(os.getpid(), 9)', 'it was killed'),
  ],
)
def test_failed_command_is_reported_in_one_line(statement, problem):
  figures = rows().measure('-c', PROGRAM.format(statement))
  assert figures == {'a': 1, 'problem': problem}


def test_torch_version_reports_a_missing_pytorch():
  version, problem = accelerator.torch_version('no_python')
  assert not version and 'cannot start no_python' in problem
  version, problem = accelerator.torch_version('false')
  assert not version and 'pip install torch' in problem


def test_experiments_lists_each_file_once():
  listed = accelerator.experiments(None, tiny=False)
  assert listed[0] == 'experiments/dcgan_celeba.py'
  assert len(set(listed)) == len(listed) > 20
  assert all((ROOT / name).is_file() for name in listed)
  assert not {'experiments/base.py', 'experiments/toy.py'} & {*listed}
  assert accelerator.experiments('a.py,b.py', tiny=True) == [
    'a.py:tiny', 'b.py:tiny',
  ]  # fmt: skip


def lane(pid, tid, process, thread):
  name = lambda kind, value: {
    'ph': 'M', 'pid': pid, 'name': kind, 'args': {'name': value},
  }  # fmt: skip
  return [
    name('process_name', process),
    {**name('thread_name', thread), 'tid': tid},
  ]


def span(pid, tid, name, microseconds):
  return {'ph': 'X', 'pid': pid, 'tid': tid, 'name': name, 'dur': microseconds}


def test_top_kernels_by_hand():
  """The streams count, not the modules, which show the same time again."""
  events = [
    *lane(1, 1, '/device:GPU:0', 'Stream #1(Compute)'),
    *lane(1, 2, '/device:GPU:0', 'XLA Modules'),
    *lane(1, 4, '/device:GPU:0', 'XLA Ops'),
    *lane(9, 1, '/host:CPU', 'python'),
    span(1, 1, 'gemm', 3000), span(1, 1, 'fusion_7', 500),
    span(1, 1, 'fusion_12', 500), span(1, 2, 'jit_step', 4000),
    span(1, 4, 'dot.1', 3000), span(9, 1, 'gemm', 9000),
  ]  # fmt: skip
  assert top_kernels(events) == [
    ('gemm', 1, 3.0, 0.75), ('fusion', 2, 1.0, 0.25),
  ]  # fmt: skip
  assert top_kernels(events, count=1) == [('gemm', 1, 3.0, 0.75)]
  tpu = [
    *lane(1, 4, '/device:TPU:0', 'XLA Ops'),
    span(1, 4, 'convolution.3', 2000),
  ]
  assert top_kernels(tpu) == [('convolution', 1, 2.0, 1.0)]
  assert top_kernels(lane(9, 1, '/host:CPU', 'python')) == []


def peer(folder, monkeypatch, name, program):
  (folder / f'{name}.py').write_text(program)
  monkeypatch.setitem(compare.SCRIPTS, name, [folder / f'{name}.py'])
  return compare.Peer(name, ('mlp', 1, 'float32'), sys.executable)


def test_compare_returns_the_median_of_pairwise_ratios(tmp_path, monkeypatch):
  """The ratios are 6 / 2, 9 / 1 and 8 / 2."""
  program = (
    'import sys\nprint({!r}, flush=True)\nspeeds = {}\n'
    'for _ in sys.stdin: print(speeds.pop(0), flush=True)\n'
  )
  ours = peer(tmp_path, monkeypatch, 'ours', program.format('', [6, 9, 8]))
  theirs = peer(tmp_path, monkeypatch, 'x', program.format('NCHW', [2, 1, 2]))
  found = compare.compare(ours, theirs, 3, lambda line: None)
  assert found == {
    'ratio': 4.0, 'range': [3.0, 9.0], 'note': 'NCHW',
    'ours_images_per_second': 8.0, 'images_per_second': 2.0,
  }  # fmt: skip
  for one in (ours, theirs):
    one.close()


def test_failed_peer_raises_its_reason(tmp_path, monkeypatch):
  with pytest.raises(compare.Ended, match=r'^ModuleNotFoundError: .*gone'):
    peer(tmp_path, monkeypatch, 'x', 'import gone')
  with pytest.raises(compare.Ended, match='cannot start no_python'):
    compare.Peer('torch', ('mlp', 1, 'float32'), 'no_python')


def test_page_lists_all_parts_of_a_report():
  compared = {'ratio': 1.5, 'range': [1.25, 2.0], 'note': 'NCHW',
              'ours_images_per_second': 3000.0,
              'images_per_second': 2000.0}  # fmt: skip
  about = {'family': 'dcgan64', 'precision': 'bfloat16', 'batch_size': 8}
  kernels = [{'name': 'a|b', 'calls': 2, 'milliseconds': 3.0, 'share': 0.75}]
  stage = {'size': '8x8', 'images_per_second': 12.0, 'flops_per_image': 2e9,
           'program_bytes': 3e9, 'compile_seconds': 4.0}  # fmt: skip
  named = {'experiment': 'x.py', 'precision': 'bfloat16'}
  report = {
    'machine': {'hardware': '1 x H', 'memory_bytes_per_second': 2.5e12},
    'command': 'run', 'seconds': 9, 'torch': '2', 'torch_problem': None,
    'experiments': [{**named, 'problem': 'skipped'}],
    'peers': [{**about, 'torch': compared, 'torch_graphs': {'problem': 'no'}}],
    'stages': [{**named, 'stages': [stage]}],
    'profile': {**named, 'iterations': 4, 'seconds': 0.5, 'kernels': kernels},
  }  # fmt: skip
  lines = accelerator_page.page(report).splitlines()
  assert lines[0] == '# Speed on 1 x H'
  for line in (
    '| memory, read and written | 2500 GB/s |',
    '| dcgan64 | bfloat16 | 8 | `torch` | **1.50** (1.25 to 2.00) | 3,000 '
    '| 2,000 | NCHW |',
    '| dcgan64 | bfloat16 | 8 | `torch_graphs` | no | - | - | - |',
    '| 8x8 | 12 | 2 | 3 | 4 |',
    '| `a/b` | 2 | 3 | 75.0% |',
    '- experiments, x.py, bfloat16: skipped',
  ):
    assert line in lines
