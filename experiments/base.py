"""What experiments share: the common keys, and sweeps of seconds.

An experiment sets its own values over those of `base_config`.

docs/reference/configuration.md says what each key means.
"""

from ml_collections import ConfigDict, config_dict


def base_config() -> ConfigDict:
  """Returns the common keys, without `data.source`, networks and lengths."""
  config = ConfigDict()
  config.seed = 0
  config.batch_size = 64  # over all devices
  config.gen_batch_size = config_dict.placeholder(int)  # None: reuse D's fakes
  config.disc_steps = 1
  config.steps_per_dispatch = 4  # iterations in a compiled call
  config.total_images = config_dict.placeholder(int)  # None: all segments
  config.ema_halflife_images = 10_000
  config.ema_rampup = config_dict.placeholder(float)  # None: no limit
  config.ema_rampup = 0.05  # max. half-life / images seen
  config.precision = 'float32'
  config.parallel = 'jit'
  config.on_divergence = 'stop'  # or 'rollback'

  config.log_every_steps = 50
  config.sample_every_images = 50_000
  config.checkpoint_every_images = 200_000
  config.checkpoints_to_keep = 3
  config.wandb = False

  config.init = ConfigDict(
    {
      'source': config_dict.placeholder(str),  # None: random; --init=SOURCE
      'players': ('gen', 'disc'),
      'state': False,
    }
  )

  config.evaluation = ConfigDict(
    {
      'every_images': config_dict.placeholder(int),  # None: never
      'num_samples': 10_000,
      'metrics': (),  # (): all that the features allow
      'features': config_dict.placeholder(str),  # None: inception
      'held_out': config_dict.placeholder(str),  # a held-out split
      'seeds': 1,
      'protocol': config_dict.placeholder(str),  # None: the keys above
      'standing_batches': config_dict.placeholder(int),  # None: running means
    }
  )

  config.data = ConfigDict()
  config.data.source = config_dict.placeholder(str)
  config.data.split = 'all'
  config.data.files = config_dict.placeholder(str)  # None: downloaded
  config.data.dir = config_dict.placeholder(str)  # None: TFDS_DATA_DIR
  config.data.cache_gb = config_dict.placeholder(float)  # None: copied whole
  config.data.pyramid = False
  config.data.shuffle_window = config_dict.placeholder(int)  # None: the whole
  config.data.crop = config_dict.placeholder(int)  # None: the largest square
  config.data.resolution = config_dict.placeholder(int)
  config.data.channels = 3
  config.data.flip = False
  config.data.max_device_bytes = 4 * 2**30  # a larger set is streamed
  config.data.workers = config_dict.placeholder(int)  # None: automatic

  config.game = ConfigDict()
  config.game.name = 'image'
  config.game.latent = 'gaussian'
  config.game.latent_dim = config_dict.placeholder(int)
  config.game.loss = ConfigDict({'name': 'non_saturating', 'real_label': 1.0})
  config.model = ConfigDict()
  return config


def tiny_sweeps(
  sweeps: dict, score: str = 'swd', metrics: tuple[str, ...] = ('swd',)
) -> dict:
  """Returns the sweeps with trials of seconds, as long as a `tiny` run."""
  fixed = {
    'evaluation.every_images': 64,
    'evaluation.num_samples': 64,
    'evaluation.metrics': metrics,
  }
  full = 'cost', 'fixed', 'pruner'
  kept = lambda block: {key: x for key, x in block.items() if key not in full}
  return {
    name: {**kept(block), 'score': score, 'fixed': fixed}
    for name, block in sweeps.items()
  }
