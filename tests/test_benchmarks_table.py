"""Tests of `python -m benchmarks.table`: rows, resuming, merging, README."""

import json
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks import machine, page, results, table
from gan_jax import errors
from gan_jax.metrics import scores
from gan_jax.sweep.process import ExitStatus
from gan_jax.sweep.trial import StopRequest, TrialResult

ROW = 'experiments/vanilla_mnist.py:tiny'
FEW = 'evaluation.features=pixels', 'evaluation.num_samples=64'
ABOUT = {'hardware': 'a core', 'versions': {'jax': '1'}}


class InstantExecutor:
  """An executor whose runs end within `start`.

  Args:
    run: Runs launch.py with these flags; returns its exit code and last line.
  """

  description = place = ''
  connect = command = stop = kill = lambda self, *_: None

  def __init__(self, run):
    self._run, self.started = run, []

  def parallel(self):
    return 1

  def start(self, flags, workdir, log):
    self.started.append(flags)
    self._status = ExitStatus(*self._run(flags, Path(workdir)))
    return self

  def poll(self):
    return self._status


def write_results(flags, workdir):
  """Does what launch.py does, without training: the score is the seed + 1."""
  given = dict(flag.removeprefix('--').split('=', 1) for flag in flags)
  if given['config'] == 'broken.py':
    return 1, 'launch.py: it is broken'
  workdir.mkdir(parents=True, exist_ok=True)
  images = int(given.get('config.total_images', 384))
  line = {'step': 1, 'images': images, 'images_per_second': 9.0}
  (workdir / 'metrics.jsonl').write_text(json.dumps(line))
  if given.get('mode') == 'evaluate':
    fakes = int(given['config.evaluation.num_samples'])
    value, protocol = int(given['config.seed']) + 1.0, {'fakes': fakes}
    scores.record(
      workdir, [scores.Score('fid', value, None, 1, images, protocol)]
    )
  return 0, ''


@pytest.fixture
def executor(monkeypatch):
  """Trains nothing; `started` lists the flags of all started runs."""
  executor = InstantExecutor(write_results)
  monkeypatch.setattr(table.executors, 'make', lambda *_, **__: executor)
  return executor


@pytest.fixture
def command(tmp_path, monkeypatch, executor):
  """Runs the command in an empty folder."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(machine, 'ask', lambda: dict(ABOUT))
  monkeypatch.setattr(table.devices, 'use_cpu_only', lambda: None)
  (tmp_path / 'experiments').symlink_to(ROOT / 'experiments')

  def run(*words):
    return table.main([*words, '--output=out/table.md', '--workdir=runs'])

  return run


def run_of(seed, value, hours=0.5):
  return results.Run(seed, value, None, 1000, hours, **ABOUT, commands=['x'])


def table_of(*values, score='fid', protocol=None, **settings):
  """A table of one row, with a run for each value."""
  runs = [run_of(seed, value) for seed, value in enumerate(values)]
  settings = {'data.source': 'digits', **settings}
  row = results.Row(ROW, {'batch_size': '8'}, settings, runs)
  return results.Table(score, 'lowest', protocol or {'fakes': 9}, [row])


def test_table_trains_and_evaluates_a_run(command, executor, forks, tmp_path):
  """launch.py itself runs."""

  def run(flags, workdir):
    done = forks.run(*flags, cwd=tmp_path)
    return done.returncode, (done.stderr or 'no output').splitlines()[-1]

  executor._run = run
  assert command(*FEW, ROW, 'total_images=64', '--seeds=5') == 0
  written = results.read(Path('out/table.json'))
  ((run,),) = (row.runs for row in written.rows)
  assert written.score == 'fid' and written.best == 'lowest'
  assert written.protocol['fakes']['images'] == 64
  assert written.protocol['features']['name'] == 'pixels'
  assert (run.seed, run.images) == (5, 64)
  assert 0 < run.value < 1e5 and 0 < run.hours < 0.1
  assert scores.read('runs/' + next(Path('runs').glob('*-5')).name)


def test_repeated_command_continues_the_table(command, executor, capsys):
  words = [*FEW, ROW, ROW, 'batch_size=8', 'total_images=64']
  assert command(*words, '--seeds=0,1') == 0
  assert len(executor.started) == 8
  written = results.read(Path('out/table.json'))
  one, other = written.rows
  assert [(run.seed, run.value) for run in one.runs] == [(0, 1.0), (1, 2.0)]
  assert [row.runs[0].images for row in written.rows] == [384, 64]
  assert other.overrides['batch_size'] == '8'
  assert other.settings['batch_size'] == 8
  train, evaluate = one.runs[1].commands
  assert '--config.seed=1' in train and '--mode' not in train
  assert '--mode=evaluate' in evaluate and 'workdir' not in evaluate
  # Finished runs are neither trained nor evaluated again.
  before = Path('out/table.json').read_bytes()
  assert command(*words, '--seeds=0,1') == 0
  assert len(executor.started) == 8
  assert Path('out/table.json').read_bytes() == before
  # A third seed is added.
  assert command(*FEW, ROW, '--seeds=2,0') == 0
  assert len(executor.started) == 10
  (first, _) = results.read(Path('out/table.json')).rows
  assert [run.seed for run in first.runs] == [0, 1, 2]
  # Another protocol is refused.
  more = FEW[0], 'evaluation.num_samples=65'
  assert command(*more, ROW, '--seeds=0') == 2
  line = capsys.readouterr().err.splitlines()[-1]
  assert 'protocols differ in fakes (64 and 65)' in line
  # Changed settings are refused too.
  tree = json.loads(Path('out/table.json').read_text())
  tree['rows'][0]['settings']['disc_steps'] = 7
  Path('out/table.json').write_text(json.dumps(tree))
  assert command(*FEW, ROW, '--seeds=3') == 2
  line = capsys.readouterr().err.splitlines()[-1]
  assert 'differ in disc_steps (7 and 1)' in line


def test_conditional_rows_share_a_table_with_others():
  """Two conditional rows must have chosen their classes alike."""
  score = lambda labels: scores.Score(
    'fid', 1.0, None, 1, 1, {'fakes': {'images': 9, 'labels': labels}}
  )
  whole = table_of(1.0, protocol=score(None).protocol)
  for labels in (None, 'data', None, 'data'):
    whole = whole.with_protocol(score(labels), 'b')
  assert whole.protocol['fakes']['labels'] == 'data'
  with pytest.raises(errors.UserError, match=r'labels \(data and uniform\)'):
    whole.with_protocol(score('uniform'), 'c')


def test_rows_of_versions_with_fewer_keys_are_continued():
  """If the new key has its default; its default is False."""
  old = table_of(1.0)
  for values, message in (
    ({'data.pyramid': False}, None),
    ({'data.pyramid': True}, r'data.pyramid \(None and True\)'),
    ({'model.gen.new': 3}, r'model.gen.new \(None and 3\)'),
  ):
    new = table_of(1.0, 2.0, **values)
    for one, other in ((old, new), (new, old)):
      if message is None:
        (row,) = one.merged(other, 'b').rows
        assert [run.seed for run in row.runs] == [0, 1]
      else:
        with pytest.raises(errors.UserError, match='differ in'):
          one.merged(other, 'b')
    if message is not None:
      with pytest.raises(errors.UserError, match=message):
        old.merged(new, 'b')


def test_failed_run_is_reported_and_the_others_continue(command, capsys):
  Path('broken.py').write_text(
    'from experiments.vanilla_mnist import get_config\n'
  )
  assert command(*FEW, 'broken.py', ROW, '--seeds=0') == 1
  printed = capsys.readouterr().out
  assert 'broken.py' in printed and 'failed, it is broken' in printed
  assert printed.endswith('1 runs failed\n')
  written = results.read(Path('out/table.json'))
  assert [row.experiment for row in written.rows] == [ROW]


def test_diverged_run_is_recorded_without_a_score(command, tmp_path):
  row = results.Row(ROW, {}, {'data.source': 'folder:a'}, [])
  job = table.Job(row, 0, str(tmp_path), 'fid', None)
  lines = [
    {'images': 0},
    {'images': 1800, 'images_per_second': 1.0},
    {'images': 9000, 'images_per_second': 4.0},
  ]
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  writer = table.Writer(tmp_path / 'one.md', 'fid')
  result = TrialResult('diverged', 'a loss is not finite')
  assert table._end(job, result, dict(ABOUT), writer)
  (run,) = results.read(tmp_path / 'one.json').rows[0].runs
  assert (run.value, run.images) == (None, 9000)
  assert run.hours == 1.0  # 1,800 images at 1/s, and 7,200 at 4/s
  page = (tmp_path / 'one.md').read_text()
  assert page.startswith('# Table of results: folder:a\n')
  assert '| diverged | 1 |' in page


def test_stop_request_starts_no_further_runs(command, executor, tmp_path):
  stop = StopRequest()
  stop.asked = True
  rows = table.parse_rows([*FEW, ROW], 'fid', None)
  writer = table.Writer(tmp_path / 'one.md', 'fid')
  jobs = [table.Job(rows[0], 0, str(tmp_path / 'run'), 'fid', None)]
  assert table.run_jobs(jobs, executor, stop, writer) == 0
  assert not (tmp_path / 'run').exists()


def test_parse_rows_assigns_overrides_to_rows(tmp_path):
  (tmp_path / 'rows.txt').write_text(
    f'# of all rows\ndata.split=train {FEW[0]}\n{ROW} batch_size=8  # small\n'
  )
  args = table.parse_arguments([f'@{tmp_path}/rows.txt', ROW, '--seeds=3'])
  first, second = table.parse_rows(args.rows, 'fid', None)
  assert first.title == f'{ROW} data.split=train {FEW[0]} batch_size=8'
  assert second.title == f'{ROW} data.split=train {FEW[0]}'
  assert first.settings['batch_size'] == 8
  assert not first.settings.keys() & {'seed', 'evaluation.features'}
  assert args.seeds == [3]


@pytest.mark.parametrize(
  'words, message',
  [
    ([], 'name an experiment'),
    (['vanilla'], "'vanilla' is no row: name FILE.py"),
    (['gone.py'], "there is no experiment file 'gone.py'"),
    ([ROW, 'sede=1'], "no key 'sede'; did you mean 'seed'"),
    ([ROW, 'seed=1'], 'name all seeds by --seeds'),
    ([ROW, '--seeds=x'], 'argument --seeds: invalid'),
    ([ROW, '--metric=fidd'], "'fidd'"),
    ([ROW, '--protocol=style'], "did you mean 'stylegan'"),
    ([ROW, *FEW, '--protocol=stylegan'], 'conflicts with evaluation.protocol'),
    ([ROW, '--protocol=stylegan'], 'weights-inception'),
    ([ROW, '--merge=gone.json'], 'cannot read gone.json'),
  ],
)
def test_user_error_is_one_line(words, message, command, capsys):
  assert command(*words) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('benchmarks.table: ')
  assert message in line


def test_merge_adds_seeds_and_rejects_other_protocols(
  command, tmp_path, capsys
):
  """Where both tables have a run of a seed, our own run is kept."""
  results.write(tmp_path / 'other.json', table_of(1.0, 2.0, 3.0))
  own = table_of(7.0)
  Path('out').mkdir()
  results.write(Path('out/table.json'), own)
  assert command('--merge=other.json') == 0
  (row,) = results.read(Path('out/table.json')).rows
  assert [run.value for run in row.runs] == [7.0, 2.0, 3.0]
  for other, message in (
    (table_of(1.0, protocol={'fakes': 8}), 'differ in fakes (9 and 8)'),
    (table_of(1.0, disc_steps=2), 'differ in disc_steps (None and 2)'),
    (table_of(1.0, score='kid'), 'has scores of kid'),
  ):
    results.write(tmp_path / 'other.json', other)
    assert command('--merge=other.json') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
  assert results.read(Path('out/table.json')).rows == [row]


def test_summary_shows_median_and_range():
  """Diverged seeds are counted separately."""
  (_, _, line) = page.summary(table_of(9.0, 4.0, None, 5.0))
  cells = [cell.strip() for cell in line.strip('|').split('|')]
  assert cells == [
    '`vanilla_mnist.py:tiny`', '`batch_size=8`', '1,000', '0.5',
    '**5** (4 to 9), 1 diverged', '4', 'a core',
  ]  # fmt: skip
  (_, _, line) = page.summary(table_of(4.25))
  assert '| **4.25** | 1 |' in line


def test_with_block_replaces_only_the_named_block():
  text = (
    'a\n<!-- results: x.json -->\nold\n<!-- end of results -->\n'
    'b\n<!-- results: y.json -->\nold\n<!-- end of results -->\nc\n'
  )
  lines = '\n'.join(page.summary(table_of(1.0)))
  first, second = text.split('b\n')
  assert page.with_block(text, 'y.json', table_of(1.0)) == (
    first + 'b\n' + second.replace('old', lines)
  )
  assert page.with_block(text, 'z.json', table_of(1.0)) == text


def test_damaged_table_raises(tmp_path):
  (tmp_path / 'x.json').write_text('{"rows": [{}]}')
  with pytest.raises(errors.UserError, match='is not a table'):
    results.read(tmp_path / 'x.json')


def test_ask_describes_the_machine():
  about = machine.ask()
  assert 'core' in about['hardware']
  assert about['versions']['jax'] and about['versions']['gan_jax']


def test_readme_shows_the_committed_results():
  """The pages show their results too."""
  readme = (ROOT / 'README.md').read_text()
  named = [match['file'] for match in page.BLOCK.finditer(readme)]
  assert named
  for name in named:
    found = results.read(ROOT / name)
    assert page.with_block(readme, name, found) == readme
    lines = (ROOT / name).with_suffix('.md').read_text().splitlines()
    assert all(line in lines for line in page.summary(found))
