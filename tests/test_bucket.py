"""Tests of workdirs in buckets: local files are uploaded."""

from pathlib import Path

import pytest

from gan_jax import files
from gan_jax.files import Mirror


@pytest.fixture
def remote(tmp_path, monkeypatch):
  """A folder that stands in for a bucket."""
  monkeypatch.setattr(files, 'is_remote', lambda path: 'bucket' in str(path))
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'bucket' / 'run'


def test_changed_files_are_uploaded(remote):
  mirror = Mirror(remote)
  assert 'cache' in str(mirror.path)
  (mirror.path / 'tensorboard').mkdir(parents=True)
  (mirror.path / 'metrics.jsonl').write_text('1\n')
  (mirror.path / 'tensorboard' / 'events').write_bytes(b'1')
  mirror.send()
  assert (remote / 'metrics.jsonl').read_text() == '1\n'
  assert (remote / 'tensorboard' / 'events').read_bytes() == b'1'
  (remote / 'tensorboard' / 'events').write_bytes(b'untouched')
  (mirror.path / 'metrics.jsonl').write_text('1\n22\n')
  mirror.send()
  assert (remote / 'metrics.jsonl').read_text() == '1\n22\n'
  assert (remote / 'tensorboard' / 'events').read_bytes() == b'untouched'


def test_another_machine_downloads_the_uploaded_files(remote):
  """Stale files of another run in the local cache are deleted."""
  mirror = Mirror(remote)
  (mirror.path / 'tensorboard').mkdir(parents=True)
  for name in ('metrics.jsonl', 'tensorboard/stale'):
    (mirror.path / name).write_text('stale')
  remote.mkdir(parents=True)
  (remote / 'metrics.jsonl').write_text('1\n')
  mirror.fetch('metrics.jsonl', 'tensorboard/*')
  assert (mirror.path / 'metrics.jsonl').read_text() == '1\n'
  assert not (mirror.path / 'tensorboard' / 'stale').exists()


def test_mirror_of_a_local_folder_is_the_folder(tmp_path):
  mirror = Mirror(tmp_path)
  (tmp_path / 'file').write_text('1')
  mirror.fetch('*')
  mirror.send()
  assert mirror.path == Path(tmp_path)
  assert (tmp_path / 'file').read_text() == '1'
