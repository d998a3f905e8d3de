"""Tests of requests to stop."""

import signal

from gan_jax import devices
from gan_jax.training.stopping import interruptible


def test_preemption_of_several_processes_is_remembered(monkeypatch):
  """JAX tells it once: a rollback after it must not train on."""
  told = iter([False, True, False, False])
  monkeypatch.setattr(devices, 'is_distributed', lambda: True)
  monkeypatch.setattr(devices, 'preempted', lambda: next(told))
  with interruptible() as stop_requested:
    assert stop_requested() is None
    for _ in range(3):
      assert stop_requested() is signal.SIGTERM
