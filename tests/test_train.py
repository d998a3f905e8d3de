"""The loop: what it does while the devices play."""

from runs import get_config

from gan_jax.training import loop, run_log


def test_a_moment_is_told_while_the_next_is_played(tmp_path, monkeypatch):
  """Lines and grids wait for the devices when those have more to do; at a
  checkpoint alone they have not.
  """
  begun, told = [], []
  limit_in_flight = loop.limit_in_flight
  log, samples = run_log.RunLog.log, run_log.RunLog.samples
  monkeypatch.setattr(
    loop,
    'limit_in_flight',
    lambda results: (begun.append(1), limit_in_flight(results)),
  )

  def watch(name, method):
    def watched(self, step, *rest):
      told.append((name, step, len(begun)))
      method(self, step, *rest)

    monkeypatch.setattr(run_log.RunLog, name, watched)

  watch('log', log)
  watch('samples', samples)
  config = get_config('vanilla_mnist', 'tiny')  # 6 dispatches of 4 iterations
  config.log_every_steps = 4
  config.sample_every_images = 16 * 12
  config.checkpoint_every_images = 16 * 16
  loop.train(config, tmp_path)
  # (what, the iteration it tells of, the dispatches that had been sent)
  assert told == [
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
