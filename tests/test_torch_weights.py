"""Tests of reading PyTorch's weight files, without running them."""

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


def refused(path):
  with pytest.raises(UserError) as raised:
    torch_weights.read(path)
  message = str(raised.value)
  assert str(path) in message and '\n' not in message
  return message


def test_reads_tensors_at_any_position_in_a_storage(write):
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
  'reach',
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
def test_no_tensor_reaches_beyond_its_storage(write, reach):
  assert 'damaged' in refused(write({'a': float_tensor(*reach)}, DATA))


class Evil:
  """Creates a file when pickle loads it."""

  def __init__(self, created):
    self.created = created

  def __reduce__(self):
    return os.system, (f'touch {self.created}',)


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_pickle_that_runs_a_command_is_refused(write, tmp_path, protocol):
  created = tmp_path / 'created'
  attack = pickle.dumps(Evil(created), protocol)
  message = refused(write(attack.removesuffix(b'.'), DATA))
  assert f"'{os.system.__module__}.system'" in message
  assert not created.exists()
  pickle.loads(attack)  # it would have
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
  asked = b'c' + name.replace(' ', '\n').encode() + b'\n'
  message = refused(write({'a': asked}, DATA))
  assert repr(name.replace(' ', '.')) in message


def test_a_pickle_leaves_nothing_behind(write):
  """A pickle can only set attributes of functions made for it alone."""
  rebuild = b'ctorch._utils\n_rebuild_tensor_v2\n'
  change = rebuild + b'(N(V__kwdefaults__\n(dtV__defaults__\n(tdtb'
  refused(write({'a': change}, DATA))
  path = write({'a': float_tensor(0, (2,), (1,))}, DATA)
  np.testing.assert_array_equal(torch_weights.read(path)['a'], [0, 1])


def test_other_values_than_dicts_of_tensors_are_errors(write):
  assert 'holds a list' in refused(write([1, 2], {}))
  assert "holds a int as 'epoch'" in refused(write({'epoch': 3}, {}))
  assert "holds a dict as 'net'" in refused(write({'net': {}}, {}))


def test_damaged_files_are_errors(write, tmp_path):
  path = write({'a': float_tensor(0, (3, 4), (4, 1))}, DATA)
  whole = path.read_bytes()
  for size in (0, 3, 60, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:size])
    assert 'damaged' in refused(path)
  path.write_bytes(b'<!DOCTYPE html><title>Not found</title>')
  assert 'damaged' in refused(path)
  path.write_bytes(pickle.dumps({'a': 1}))
  assert 'damaged' in refused(path)
  assert 'there is no' in refused(tmp_path / 'nowhere.pth')


def test_a_storage_of_another_size_is_an_error(write):
  path = write({'a': float_tensor(0, (2,), (1,))}, {'7': DATA['7'] * 2})
  assert 'damaged' in refused(path)


@pytest.mark.certify
@pytest.mark.parametrize('as_zip', [True, False])
def test_reads_what_torch_saves(tmp_path, as_zip):
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
