"""The configuration of the documentation site (Sphinx, MyST, furo)."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The docs describe this checkout, and read its config keys.
sys.path[:0] = [str(ROOT), str(ROOT / 'docs' / '_ext')]
# The build starts no accelerator, even if a module is changed to touch one.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

project = 'gan_jax'
author = 'The gan_jax authors'
copyright = 'The gan_jax authors'

extensions = [
  'myst_nb',  # Markdown, and the notebooks of the course
  'sphinx.ext.autodoc',
  'sphinx.ext.apidoc',
  'sphinx.ext.napoleon',
  'sphinx.ext.viewcode',
  'config_keys',
  'docstrings',
]
exclude_patterns = ['_build', '_ext', 'reference/api/modules.rst']

myst_enable_extensions = ['colon_fence', 'deflist', 'dollarmath']
myst_heading_anchors = 3
# The pages of the course are run at each build.
nb_execution_mode = 'force'
nb_execution_timeout = 600  # seconds for each cell
nb_execution_raise_on_error = True

# One page a module, written at each build.
apidoc_modules = [
  {
    'path': '../gan_jax',
    'destination': 'reference/api',
    'max_depth': 2,
    'separate_modules': True,
    'module_first': True,
    'automodule_options': {'members', 'show-inheritance'},
  }
]
autodoc_default_options = {'ignore-module-all': True}
autodoc_member_order = 'bysource'
autodoc_mock_imports = ['tensorflow', 'wandb']
autodoc_typehints_format = 'short'
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # shape strings are not markup
# `name` in a docstring is a link where the name is documented, else code.
default_role = 'py:obj'

html_theme = 'furo'
html_title = 'gan_jax'
html_show_copyright = False
