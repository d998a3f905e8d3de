"""Finished runs, opened for reading: samples, plots, scores.

This folder may import everything except `modes` and `sweep`. Notebooks use it
through `gan_jax.load` and `gan_jax.evaluate`.
"""
