"""Tests that imports follow the layers and heavy packages are imported late."""

import ast
import subprocess
import sys

from conftest import ROOT

# A row may import from itself and from the rows below.
LAYERS = [
  {'experiments'},
  {'launch'},
  {'__init__'},
  {'command_line', 'lab', 'modes', 'sweep'},
  {'runs'},
  {'training'},
  {'metrics', 'plots'},
  {'data'},
  {'config', 'experiment_file'},
  {'games'},
  {'models'},
  {'ops'},
  {'bounds', 'compile_cache', 'devices', 'keys', 'memory'},
  {'files', 'pair', 'registry', 'safetensors_weights', 'torch_weights'},
  {'errors'},
]


def layer_of(module: str) -> int | None:
  """Returns the row of a module: gan_jax.games.image is in the row of games."""
  parts = module.split('.')
  if parts[0] == 'gan_jax':
    parts = parts[1:] or ['__init__']
  for index, layer in enumerate(LAYERS):
    if parts[0] in layer:
      return index
  return None


def imported(path):
  """Yields the names that a file imports."""
  tree = ast.parse(path.read_text())
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        yield f'{node.module}.{alias.name}'


def test_imports_follow_the_layers():
  files = [ROOT / 'launch.py', *(ROOT / 'gan_jax').rglob('*.py')]
  checked = 0
  for path in files:
    name = path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')
    if name == 'gan_jax.__init__':
      continue
    layer = layer_of(name.removesuffix('.__init__'))
    assert layer is not None, f'{name} is in no layer'
    for module in imported(path):
      if module.startswith(('gan_jax', 'experiments', 'launch', 'benchmarks')):
        imported_layer = layer_of(module)
        assert imported_layer is not None, f'{module} is in no layer'
        assert imported_layer >= layer, f'{name} imports {module}'
        checked += 1
  assert checked > 50


def test_experiments_import_only_ml_collections():
  allowed = 'experiments', 'ml_collections', 'typing'
  for path in (ROOT / 'experiments').glob('*.py'):
    for module in imported(path):
      assert module.split('.')[0] in allowed, path


def test_models_losses_and_ops_never_see_a_config():
  for folder in (
    'models',
    'ops',
    'games/augment.py',
    'games/latents.py',
    'games/losses.py',
    'games/penalties.py',
    'training/dispatch.py',
    'training/step.py',
  ):
    path = ROOT / 'gan_jax' / folder
    for file in path.rglob('*.py') if path.is_dir() else [path]:
      names = {
        node.id if isinstance(node, ast.Name) else node.arg
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Name | ast.arg)
      }
      assert 'config' not in names, file


def test_heavy_packages_are_imported_late():
  """Imports start no device and load no package that takes long."""
  code = """
import sys, gan_jax
assert not {'jax', 'numpy'} & set(sys.modules)

import gan_jax.training.loop, gan_jax.modes.evaluate
heavy = {'array_record', 'grain', 'matplotlib', 'mlxtend', 'optuna', 'orbax',
         'ot', 'pandas', 'requests', 'scipy.optimize', 'sklearn', 'tensorflow',
         'tensorflow_datasets'}
assert not heavy & set(sys.modules), heavy & set(sys.modules)

from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
