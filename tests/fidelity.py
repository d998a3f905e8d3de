"""torch-fidelity, the reference, with or without torchvision.

Its own networks and metrics need nothing of torchvision, but it imports it.
"""

import sys
import types


def stand_in_for_torchvision():
  """What `import torch_fidelity` asks for, where there is no torchvision."""
  names = ('datasets', 'models', 'transforms', 'transforms.functional')
  modules = {name: types.ModuleType(f'torchvision.{name}') for name in names}
  for data_set in ('CIFAR10', 'CIFAR100', 'STL10'):
    setattr(modules['datasets'], data_set, type(data_set, (), {}))
  modules['transforms'].functional = modules['transforms.functional']
  whole = types.ModuleType('torchvision')
  whole.__path__ = []
  for name in names[:3]:
    setattr(whole, name, modules[name])
  sys.modules['torchvision'] = whole
  sys.modules |= {f'torchvision.{name}': x for name, x in modules.items()}


def import_torch_fidelity():
  """The package; ImportError if it, or torch, is not installed."""
  import torch  # noqa: F401

  try:
    import torchvision  # noqa: F401
  except (ImportError, RuntimeError):  # missing, or made for another torch
    stand_in_for_torchvision()
  import torch_fidelity

  return torch_fidelity
