"""Tests that PyTorch's weight files are read without running their code."""

import os
import pickle

import inception_weights as files
import numpy as np
import pytest

from gan_jax import torch_weights
from gan_jax.errors import UserError

WRITERS = {'zip': files.write_zip, 'stream': files.write_stream}
DATA = {'7': np.arange(12, dtype='<f4').tobytes()}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
  """Returns a function that writes (value, storages) in one of the formats."""

  def written(value, storages):
    path = tmp_path / 'weights.pth'
    WRITERS[request.param](path, value, storages)
    return path

  return written


def float_tensor(offset, shape, strides):
  return files.tensor(b'FloatStorage', '7', 12, offset, shape, strides)


def read_error(path):
  with pytest.raises(UserError) as raised:
    torch_weights.read(path)
  message = str(raised.value)
  assert str(path) in message and '\n' not in message
  return message


def test_tensors_are_read_at_any_position_in_a_storage(write):
  path = write(
    {
      'whole': float_tensor(0, (3, 4), (4, 1)),
      'transposed': float_tensor(0, (4, 3), (1, 4)),
      'part': float_tensor(5, (2, 2), (4, 1)),
      'expanded': float_tensor(3, (2, 2), (0, 1)),
      'number': float_tensor(11, (), ()),
      'empty': float_tensor(0, (0, 4), (4, 1)),
    },
    DATA,
  )
  expected = {
    'whole': [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
    'transposed': [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]],
    'part': [[5, 6], [9, 10]],
    'expanded': [[3, 4], [3, 4]],
    'number': 11,
    'empty': np.zeros((0, 4)),
  }
  arrays = torch_weights.read(path)
  assert list(arrays) == list(expected)
  for name, array in arrays.items():
    assert array.dtype == np.float32 and array.flags.c_contiguous
    np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
  'view',
  [
    (0, (3, 5), (4, 1)),
    (9, (2, 2), (1, 1, 1)),
    (10, (3,), (1,)),
    (-1, (1,), (1,)),
    (11, (2,), (-1,)),
    (0, (2**62, 4), (1, 1)),
    (12, (), ()),
  ],
)
def test_tensor_that_exceeds_its_storage_is_damaged(write, view):
  assert 'damaged' in read_error(write({'a': float_tensor(*view)}, DATA))


class Evil:
  """Creates a file when pickle loads it."""

  def __init__(self, created):
    self.created = created

  def __reduce__(self):
    return os.system, (f'touch {self.created}',)


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_pickle_that_runs_a_command_is_refused(write, tmp_path, protocol):
  created = tmp_path / 'created'
  attack = pickle.dumps(Evil(created), protocol)
  message = read_error(write(attack.removesuffix(b'.'), DATA))
  assert f"'{os.system.__module__}.system'" in message
  assert not created.exists()
  pickle.loads(attack)  # plain pickle runs the command
  assert created.exists()


@pytest.mark.parametrize(
  'name',
  [
    'builtins eval',
    'torch load',
    'torch.storage _load_from_bytes',
    'collections OrderedDict.fromkeys',
    'torch BFloat16Storage',
  ],
)
def test_other_names_are_refused(write, name):
  opcodes = b'c' + name.replace(' ', '\n').encode() + b'\n'
  message = read_error(write({'a': opcodes}, DATA))
  assert repr(name.replace(' ', '.')) in message


def test_reading_does_not_affect_later_reads(write):
  """A pickle can set attributes only of functions that were created for it."""
  rebuild = b'ctorch._utils\n_rebuild_tensor_v2\n'
  change = rebuild + b'(N(V__kwdefaults__\n(dtV__defaults__\n(tdtb'
  read_error(write({'a': change}, DATA))
  path = write({'a': float_tensor(0, (2,), (1,))}, DATA)
  np.testing.assert_array_equal(torch_weights.read(path)['a'], [0, 1])


def test_values_other_than_dicts_of_tensors_raise(write):
  assert 'holds a list' in read_error(write([1, 2], {}))
  assert "holds a int as 'epoch'" in read_error(write({'epoch': 3}, {}))
  assert "holds a dict as 'net'" in read_error(write({'net': {}}, {}))


def test_damaged_files_raise(write, tmp_path):
  path = write({'a': float_tensor(0, (3, 4), (4, 1))}, DATA)
  content = path.read_bytes()
  for size in (0, 3, 60, len(content) // 2, len(content) - 1):
    path.write_bytes(content[:size])
    assert 'damaged' in read_error(path)
  path.write_bytes(b'<!DOCTYPE html><title>Not found</title>')
  assert 'damaged' in read_error(path)
  path.write_bytes(pickle.dumps({'a': 1}))
  assert 'damaged' in read_error(path)
  assert 'there is no' in read_error(tmp_path / 'nowhere.pth')


def test_storage_of_another_size_is_damaged(write):
  path = write({'a': float_tensor(0, (2,), (1,))}, {'7': DATA['7'] * 2})
  assert 'damaged' in read_error(path)


@pytest.mark.certify
@pytest.mark.parametrize('as_zip', [True, False])
def test_arrays_equal_what_torch_saves(tmp_path, as_zip):
  torch = pytest.importorskip('torch')
  base = torch.arange(24.0).reshape(4, 6)
  net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
  state = net.state_dict()
  state |= {
    'transposed': base.T,
    'part': base[1:3, 2:5],
    'expanded': torch.ones(1).expand(5),
    'parameter': torch.nn.Parameter(base[0]),
    'empty': torch.zeros(0, 3),
  }
  kinds = 'double half long int short int8 uint8 bool'
  state |= {k: torch.ones(3).to(getattr(torch, k)) for k in kinds.split()}
  path = tmp_path / 'weights.pth'
  torch.save(state, path, _use_new_zipfile_serialization=as_zip)
  arrays = torch_weights.read(path)
  assert list(arrays) == list(state)
  for name, array in arrays.items():
    expected = state[name].detach().numpy()
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)
