"""Tests of the schedule against hand-computed values."""

import math

import pytest
from runs import get_config

from gan_jax import games
from gan_jax.errors import UserError
from gan_jax.pair import Pair
from gan_jax.training.check import check_config
from gan_jax.training.schedule import place_segments

DEFAULTS = {
  'batch_size': 10,
  'gen_batch_size': None,
  'disc_steps': 1,
}


def place(*segments, total, dispatch=1, rampup=None):
  return place_segments(
    segments or ({},),
    defaults=DEFAULTS,
    learning_rate=Pair(0.1, 0.2),
    total_images=total,
    steps_per_dispatch=dispatch,
    ema_halflife_images=100,
    ema_rampup=rampup,
  )


def test_constant_schedule_by_hand():
  t = place(total=100)
  assert t.total_steps == 10
  assert t.images(7) == 70
  phase = t.phase(3)
  assert phase.learning_rate == pytest.approx((0.1, 0.2))
  assert (phase.stage, phase.values, phase.disc_step) == (0, {}, 3)
  assert phase.ema_decay == pytest.approx(0.5**0.1)


def test_ema_half_life_ramps_up():
  """The half-life is 1/4 of the images seen, up to 100, and 0 at first."""
  t = place(total=1000, rampup=0.25)
  assert t.phase(0).ema_decay == 0
  assert t.phase(8).ema_decay == pytest.approx(0.5 ** (10 / 20))
  assert t.phase(40).ema_decay == pytest.approx(0.5 ** (10 / 100))
  assert t.phase(90).ema_decay == pytest.approx(0.5 ** (10 / 100))


def test_segments_are_whole_dispatches():
  """105 images in iterations of 10 and dispatches of 4: 12 iterations."""
  t = place({'images': 105}, {'batch_size': 20}, total=300, dispatch=4)
  assert t.segments[0].steps == 12
  assert t.images(12) == 120
  # 180 images are left: 9 iterations of 20, rounded up to 12.
  assert t.total_steps == 24
  assert t.images(24) == 120 + 12 * 20


def test_wgan_starts_with_more_critic_steps():
  """100 critic steps in each of the first 25 iterations, then 5."""
  t = place(
    {'images': 25 * 100 * 10, 'disc_steps': 100},
    {'disc_steps': 5},
    total=25_000 + 1_000,
  )
  assert (t.phase(24).disc_steps, t.phase(25).disc_steps) == (100, 5)
  assert t.phase(25).disc_step == 2500
  assert t.images(25) == 25_000
  assert t.total_steps == 25 + 20


def test_stage_fades_in_linearly():
  t = place(
    {'images': 100},
    {'images': 200, 'stage': 1, 'values': {'alpha': ('linear', 0.0, 1.0)}},
    {
      'images': 100,
      'stage': 2,
      'gen_learning_rate_factor': ('linear', 1.0, 0.5),
    },
    total=400,
  )
  stages = [int(t.phase(r).stage) for r in (0, 9, 10, 29, 30, 39)]
  assert stages == [0, 0, 1, 1, 2, 2]
  assert [float(t.phase(r).values['alpha']) for r in (10, 15, 20)] == [
    0,
    0.25,
    0.5,
  ]
  # Halfway from 0.1 to 0.05; past the end as at the end.
  assert t.phase(35).learning_rate.gen == pytest.approx(0.075)
  assert t.phase(40).learning_rate.gen == pytest.approx(0.05)
  assert t.phase(35).learning_rate.disc == pytest.approx(0.2)


def test_run_may_end_within_a_segment():
  t = place({'images': 100}, {'images': 100, 'stage': 1}, total=50)
  assert t.total_steps == 5
  assert len(t.segments) == 1


def test_dispatch_stacks_phases():
  phases = place(total=100, dispatch=5).dispatch(5)
  assert phases.disc_step.tolist() == [5, 6, 7, 8, 9]
  assert phases.batch_size == 10


def test_run_can_be_extended():
  """Phases do not depend on the length of the run."""
  falling = {'gen_learning_rate_factor': ('linear', 1.0, 0.0)}
  segments = {'images': 100, **falling}, {'stage': 1}
  short, long = place(*segments, total=60), place(*segments, total=300)
  assert short.total_steps == 6
  assert [short.phase(r) for r in range(6)] == [long.phase(r) for r in range(6)]
  assert short.phase(5).learning_rate.gen == pytest.approx(0.05)
  assert not long.follows_its_end


def test_curve_without_images_ends_with_the_run():
  """It goes from 1 to 0 over the run, whatever its length; a cosine by hand."""
  falling = {'gen_learning_rate_factor': ('linear', 1.0, 0.0)}
  for total in (100, 300):
    t = place(falling, total=total)
    assert t.follows_its_end
    rates = [
      t.phase(r).learning_rate.gen for r in (0, total // 20, total // 10)
    ]
    assert rates == pytest.approx([0.1, 0.05, 0.0])
  wave = {'disc_learning_rate_factor': ('cosine', 1.0, 0.2)}
  t = place(wave, total=1200)
  # 0.2 (0.2 + 0.8 (1 + cos(pi s)) / 2) at s = 0, 1/3, 1/2, 1.
  rates = [t.phase(r).learning_rate.disc for r in (0, 40, 60, 120)]
  assert rates == pytest.approx([0.2, 0.2 * 0.8, 0.2 * 0.6, 0.2 * 0.2])


def test_cosine_of_r3gan_by_hand():
  """final + (base - final) (1 + cos(pi n / N)) / 2 at n images of N = 105, in
  iterations of 10 and dispatches of 4, and the final value beyond.
  """
  curves = {
    'gen_learning_rate_factor': ('cosine', 1.0, 0.25),
    'values': {'ema_halflife_images': ('cosine', 0.0, 50.0)},
  }
  t = place({'images': 105, **curves}, total=300, dispatch=4)
  for step in (0, 1, 6, 10, 11, 25):
    start = (1 + math.cos(math.pi * min(10 * step / 105, 1))) / 2
    rate, decay = t.phase(step).learning_rate.gen, t.phase(step).ema_decay
    assert rate == pytest.approx(0.1 * (0.25 + 0.75 * start), rel=1e-6)
    halflife = 50 * (1 - start)
    expected = 0.5 ** (10 / halflife) if step else 0
    assert decay == pytest.approx(expected, rel=1e-6)


def test_learning_rate_0_before_the_end_raises():
  falling = {'images': 100, 'disc_learning_rate_factor': ('cosine', 1.0, 0.0)}
  assert place(falling, total=100).total_steps == 10
  with pytest.raises(UserError, match='is 0 from image 200 on'):
    place({'images': 100}, falling, total=210)


def test_more_iterations_than_int32_raise():
  with pytest.raises(UserError, match='at most 2,147,483,647 are possible'):
    place(total=10 * 2**31)


@pytest.mark.parametrize(
  ('segments', 'message'),
  [
    ([{'stge': 1}], "'stge'; did you mean 'stage'"),
    ([{'batch_size': 0}], 'batch_size=0 must be positive'),
    ([{'images': -1}], 'images=-1 must be positive'),
    ([{'values': {'x': float('nan')}}], 'x=nan must be finite'),
    ([{}, {'stage': 1}], r'schedule\[0\] has no length'),
    ([{'gen_learning_rate_factor': (1.0, 0.0)}], r"number or \('linear', STAR"),
    ([{'gen_learning_rate_factor': -1.0}], 'factor=-1.0 must be 0 or more'),
    ([{'values': {'x': ('linaer', 1, 0)}}], "did you mean 'linear'"),
    ([{'values': {'x': ('linear', 1, None)}}], 'None is not a number'),
    ([{'gen_learning_rate': 0.1}], "did you mean 'gen_learning_rate_factor'"),
  ],
)
def test_invalid_segments_raise(segments, message):
  with pytest.raises(UserError, match=message):
    place(*segments, total=100)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'instance_noise': 0.1}, "'instance_noise'; did you mean 'game.instance"),
    ({'optimizer.gen.b3': 0.1}, 'cannot be scheduled.*b1'),
    ({'optimizer.gen.learning_rate': 0.1}, 'cannot be scheduled'),
    ({'optimizer.disc.b1': 5.0}, '5.0 must be'),
    ({'optimizer.disc.b1': ('linear', 0.5, 1.5)}, '1.5 must be'),
    ({'optimizer.other.b1': 0.5}, 'cannot be scheduled'),
    ({'ema_halflife_images': -1}, 'must be 0 or more'),
    ({'game.penalties.r2.weight': 1.0}, 'no scheduled value'),
  ],
)
def test_invalid_scheduled_values_raise(values, message):
  config = get_config('vanilla_mnist', 'tiny')
  config.schedule = ({'values': values},)
  with pytest.raises(UserError, match=message):
    check_config(config)
    games.make(config)
