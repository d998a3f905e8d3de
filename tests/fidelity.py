"""Imports torch-fidelity, the reference, with or without torchvision.

The package imports torchvision, but its own networks and metrics do not use it.
"""

import sys
import types


def stand_in_for_torchvision():
  """Registers empty modules in place of those that torch_fidelity imports."""
  names = ('datasets', 'models', 'transforms', 'transforms.functional')
  modules = {name: types.ModuleType(f'torchvision.{name}') for name in names}
  for data_set in ('CIFAR10', 'CIFAR100', 'STL10'):
    setattr(modules['datasets'], data_set, type(data_set, (), {}))
  modules['transforms'].functional = modules['transforms.functional']
  package = types.ModuleType('torchvision')
  package.__path__ = []
  for name in names[:3]:
    setattr(package, name, modules[name])
  sys.modules['torchvision'] = package
  sys.modules |= {f'torchvision.{name}': x for name, x in modules.items()}


def import_torch_fidelity():
  """Returns the package; ImportError if it, or torch, is not installed."""
  import torch  # noqa: F401

  try:
    import torchvision  # noqa: F401
  except (ImportError, RuntimeError):  # missing, or built for another torch
    stand_in_for_torchvision()
  import torch_fidelity

  return torch_fidelity
