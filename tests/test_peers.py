"""Tests of distributed runs: consistency checks and lost processes."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT, launch, with_devices
from PIL import Image

from gan_jax.training import checkpoint

pytestmark = pytest.mark.processes

VANILLA = f'--config={ROOT}/experiments/vanilla_mnist.py:tiny'
FOLDER = f'--config={ROOT}/experiments/dcgan_folder.py:tiny'
LONG = '--config.total_images=1_000_000'
LOST = (
  'launch.py: process {} was lost: run the same command on all processes to '
  'resume from the last checkpoint'
)


def free_port():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


def start_two(folder, *flags, own=((), ()), devices=(1, 1)):
  """Starts two processes, each in its own folder; `own`: flags of each."""
  group = f'--coordinator_address=localhost:{free_port()}', '--num_processes=2'
  processes = []
  for process in range(2):
    process_folder = folder / f'of_{process}'
    process_folder.mkdir(exist_ok=True)
    xla = with_devices(devices[process])
    processes.append(
      subprocess.Popen(
        launch(
          f'--workdir={folder}/run', *group, f'--process_id={process}', *flags,
          *own[process],
        ),
        cwd=process_folder,
        env={**os.environ, 'XLA_FLAGS': xla},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
    )  # fmt: skip
  return processes


def finish(processes):
  """Returns the exit codes and the stderr lines of all processes."""
  try:
    errors = [process.communicate(timeout=60)[1] for process in processes]
  finally:
    for process in processes:
      process.kill()
  codes = [process.returncode for process in processes]
  return codes, [text.splitlines() for text in errors]


def wait_for_checkpoint(folder, processes):
  while not checkpoint.steps(folder / 'run'):
    assert [process.poll() for process in processes] == [None, None]
    time.sleep(0.1)


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--config.seed=7', 'config.seed (0 in process 0, 7 in process 1)'),
    pytest.param(
      '--config.parallel=pmap',
      'config.parallel ("jit" in process 0, "pmap" in process 1)',
      marks=pytest.mark.slow,
    ),
    pytest.param(
      '--mode=preview',
      '--mode ("train" in process 0, "preview" in process 1)',
      marks=pytest.mark.slow,
    ),
  ],
)
def test_differing_settings_of_processes_are_refused(flag, message, tmp_path):
  """Each process prints the difference, and writes nothing."""
  codes, lines = finish(start_two(tmp_path, VANILLA, own=((), (flag,))))
  line = (
    'launch.py: all processes of a run must start with the same settings, '
    f'but differ in {message}'
  )
  assert lines == [[line], [line]]
  assert codes == [2, 2]
  assert not (tmp_path / 'run').exists()


def test_wrong_flag_of_one_process_stops_all(tmp_path):
  """The other process does not wait until its timeout."""
  codes, lines = finish(start_two(tmp_path, VANILLA, own=((), ('--sede=7',))))
  (other,), (wrong,) = lines
  assert wrong.startswith('launch.py: there is no flag --sede')
  stopped = 'launch.py: process 1 has stopped: there is no flag --sede'
  assert other.startswith(stopped)
  assert codes == [2, 2]
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('lost', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_lost_process_ends_the_other(lost, tmp_path):
  """The other process prints one line and exits with code 75: run again."""
  processes = start_two(tmp_path, VANILLA, LONG)
  wait_for_checkpoint(tmp_path, processes)
  processes[lost].send_signal(signal.SIGKILL)
  begin = time.monotonic()
  codes, lines = finish(processes)
  assert time.monotonic() - begin < 10
  assert lines[1 - lost] == [LOST.format(lost)]
  assert codes[1 - lost] == 75


@pytest.mark.slow
def test_repeated_command_resumes(tmp_path):
  processes = start_two(tmp_path, VANILLA, LONG)
  wait_for_checkpoint(tmp_path, processes)
  processes[1].kill()
  assert finish(processes)[0] == [75, -9]
  last = checkpoint.steps(tmp_path / 'run')[-1]
  longer = f'--config.total_images={16 * (last + 8)}'
  processes = start_two(tmp_path, VANILLA, longer)
  codes, lines = finish(processes)
  assert codes == [0, 0], lines
  assert checkpoint.steps(tmp_path / 'run')[-1] == last + 8


def save_pictures(folder, process, greys):
  """Saves an image of each grey in the `pictures` folder of a process."""
  pictures = folder / f'of_{process}' / 'pictures'
  pictures.mkdir(parents=True)
  for number, grey in enumerate(greys):
    Image.new('RGB', (40, 40), (grey,) * 3).save(pictures / f'{number}.png')


@pytest.mark.slow
@pytest.mark.parametrize('missing', [0, 1])
def test_missing_data_of_one_process_stops_all(missing, tmp_path):
  for process in range(2):
    save_pictures(tmp_path, process, () if process == missing else (0, 0, 0))
  source = '--config.data.source=folder:pictures'
  codes, lines = finish(start_two(tmp_path, FOLDER, source))
  problem = 'pictures has 0 images, but at least 2 are needed'
  (line,), (other,) = lines[missing], lines[1 - missing]
  assert line.startswith(f'launch.py: {problem}')
  assert other.startswith(
    f'launch.py: process {missing} has stopped: {problem}'
  )
  assert codes == [2, 2]
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_differing_data_of_processes_is_refused(tmp_path):
  for process in range(2):
    save_pictures(tmp_path, process, (process, 10 + process, 20 + process))
  source = '--config.data.source=folder:pictures'
  codes, lines = finish(start_two(tmp_path, FOLDER, source))
  for (line,) in lines:
    assert (
      'must start with the same settings, but differ in data (images) (' in line
    )
  assert codes == [2, 2]


JOIN = """
from gan_jax.training import peers
peers.JOIN_SECONDS = 2
peers.join('localhost:{}', 2, {})
"""


@pytest.mark.parametrize('process', [0, 1])
def test_missing_process_is_one_line(process):
  done = subprocess.run(
    [sys.executable, '-c', JOIN.format(free_port(), process)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert 'not all processes connected within 2 seconds' in line


def test_port_in_use_is_one_line():
  with socket.create_server(('', 0)) as server:
    port = server.getsockname()[1]
    done = subprocess.run(
      launch(
        VANILLA, f'--coordinator_address=localhost:{port}',
        '--num_processes=2', '--process_id=0',
      ),
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
    )  # fmt: skip
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert 'process 0 cannot listen on that port ([Errno 98]' in line


@pytest.mark.slow
def test_data_deleted_during_the_run_stops_all(tmp_path):
  for process in range(2):
    save_pictures(tmp_path, process, (0, 0, 0))
  processes = start_two(
    tmp_path, FOLDER, LONG, '--config.data.source=folder:pictures',
    '--config.data.max_device_bytes=0', '--config.data.workers=0',
  )  # fmt: skip
  wait_for_checkpoint(tmp_path, processes)
  (tmp_path / 'of_1' / 'pictures' / '1.png').unlink()
  begin = time.monotonic()
  codes, lines = finish(processes)
  assert time.monotonic() - begin < 20
  problem = 'pictures/1.png was deleted or damaged while in use: restore it'
  assert lines[1] == [f'launch.py: {problem}']
  assert lines[0] == [f'launch.py: process 1 has stopped: {problem}']
  assert codes == [2, 2]


@pytest.mark.slow
def test_differing_device_counts_are_refused(tmp_path):
  processes = start_two(tmp_path, VANILLA, devices=(1, 2))
  codes, lines = finish(processes)
  line = (
    'launch.py: all processes must have the same number of devices: '
    '1 in process 0, 2 in process 1'
  )
  assert lines == [[line], [line]]
  assert codes == [2, 2]
