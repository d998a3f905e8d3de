"""The modes of `launch.py` besides training and sweeps, one file each.

A mode is a function (config, workdir). This folder may import everything else
in `gan_jax` except `sweep`. Only `launch.py` imports it.
"""
