"""Tests of the training loop: it logs while the devices compute."""

from runs import get_config

from gan_jax.training import loop, run_log


def test_logs_and_samples_are_written_during_the_next_dispatch(
  tmp_path, monkeypatch
):
  """Only at a checkpoint and at the end, no further dispatch has been sent."""
  sent, written = [], []
  limit_in_flight = loop.limit_in_flight
  log, samples = run_log.RunLog.log, run_log.RunLog.samples
  monkeypatch.setattr(
    loop,
    'limit_in_flight',
    lambda results: (sent.append(1), limit_in_flight(results)),
  )

  def record(name, method):
    def recorded(self, step, *rest):
      written.append((name, step, len(sent)))
      method(self, step, *rest)

    monkeypatch.setattr(run_log.RunLog, name, recorded)

  record('log', log)
  record('samples', samples)
  config = get_config('vanilla_mnist', 'tiny')  # 6 dispatches of 4 iterations
  config.log_every_steps = 4
  config.sample_every_images = 16 * 12
  config.checkpoint_every_images = 16 * 16
  loop.train(config, tmp_path)
  # (what, its iteration, the number of dispatches sent by then)
  assert written == [
    ('samples', 0, 0),
    ('log', 4, 2),
    ('log', 8, 3),
    ('log', 12, 4),
    ('samples', 12, 4),
    ('log', 16, 4),  # a checkpoint
    ('log', 20, 6),
    ('log', 24, 6),  # the end
    ('samples', 24, 6),
  ]
