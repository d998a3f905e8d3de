"""Sweeps: many runs of one experiment, planned, watched and compared.

One driver process (`sweep.py`) plans the trials with Optuna, watches them
(`driver.py`) and reports. A trial is an ordinary `launch.py` run in its own
workdir; `executors.py` says on which machines trials run.

This folder may import everything else in `gan_jax`. Only `launch.py` and the
notebook functions in `gan_jax/__init__.py` import this folder.
"""
