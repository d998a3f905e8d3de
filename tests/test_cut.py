"""Tests of CUT: the loss against the reference, and the game by hand.

GOLDEN was computed once in float64 with PyTorch 2 and PatchSampleF and
PatchNCELoss of taesungp/contrastive-unpaired-translation. RandomState(0) draws
the features of the translation (all layers), then of the given image, then the
heads (w1, b1, w2, b2 of each layer; the biases divided by 10), then the places.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_translation import (
  KEYS,
  PHASE,
  N,
  Scale,
  Score,
  context,
  gen_step,
  paired_batch,
)

from gan_jax.errors import UserError
from gan_jax.games import cut
from gan_jax.games.losses import least_squares_half
from gan_jax.models.translation import ENCODER, PatchHeads, ResNet, UNet
from gan_jax.pair import Pair

SHAPES, UNITS, PATCHES = ((4, 5, 3), (3, 2, 6)), 8, 7
GOLDEN = dict(
  losses=[8.99184354941, 4.31731109327],
  # Norms of the gradients of the mean of both.
  features=[1.60998982104, 0.938566537885],
  first_kernels=[1.12092398079, 0.624964228646],
  last_biases=[0.294349403376, 0.224596812625],
  some=[0.127751893277, -0.0139457523541, -0.00965309673241, 0.0203232169033],
)


def test_patch_nce_equals_the_reference():
  state = np.random.RandomState(0)
  draw = lambda: [jnp.asarray(state.randn(2, *s)) for s in SHAPES]
  translated, given = draw(), draw()
  params = {}
  for i, shape in enumerate(SHAPES):
    first = {
      'kernel': state.randn(shape[-1], UNITS), 'bias': state.randn(UNITS) / 10
    }  # fmt: skip
    second = {
      'kernel': state.randn(UNITS, UNITS), 'bias': state.randn(UNITS) / 10
    }  # fmt: skip
    params |= {f'Dense_{2 * i}': first, f'Dense_{2 * i + 1}': second}
  places = [state.permutation(s[0] * s[1])[:PATCHES] for s in SHAPES]
  places = [jnp.tile(place, (2, 1)) for place in places]

  def losses(params, translated):
    embed = lambda layers: PatchHeads(UNITS).apply(
      {'params': params}, cut.patches_at(layers, places)
    )
    pairs = zip(embed(translated), embed(given), strict=True)
    return jnp.stack([cut.patch_nce(q, k, 0.07) for q, k in pairs])

  params = jax.tree.map(jnp.float32, params)
  np.testing.assert_allclose(
    losses(params, translated), GOLDEN['losses'], rtol=1e-5
  )
  mean = lambda *args: jnp.mean(losses(*args))
  heads, features = jax.grad(mean, (0, 1))(params, translated)
  norms = lambda arrays: [float(jnp.linalg.norm(x.ravel())) for x in arrays]
  approx = lambda x: pytest.approx(x, rel=1e-4)
  assert norms(features) == approx(GOLDEN['features'])
  kernels = [heads[f'Dense_{i}']['kernel'] for i in (0, 2)]
  assert norms(kernels) == approx(GOLDEN['first_kernels'])
  biases = [heads[f'Dense_{i}']['bias'] for i in (1, 3)]
  assert norms(biases) == approx(GOLDEN['last_biases'])
  np.testing.assert_allclose(
    features[1].ravel()[::18], GOLDEN['some'], rtol=1e-3
  )


def test_patch_nce_by_hand():
  """Two patches: cross-entropy of the right one, log(1 + e^(wrong - right))."""
  query = np.array([[[1.0, 0.0], [0.6, 0.8]]], np.float32)
  key = np.array([[[0.8, 0.6], [0.0, 1.0]]], np.float32)
  # Cosines [[.8, 0], [.96, .8]]; the right ones are on the diagonal.
  expected = np.mean(np.log1p(np.exp(np.array([0 - 0.8, 0.96 - 0.8]) / 0.5)))
  loss = cut.patch_nce(jnp.asarray(query), jnp.asarray(key), 0.5)
  assert float(loss) == pytest.approx(expected, rel=1e-6)
  gradients = jax.grad(cut.patch_nce, (0, 1))(query, key, 0.5)
  assert abs(gradients[0]).max() > 0.1
  assert not gradients[1].any()


def test_draw_places_draws_distinct_places_per_example():
  """Places depend only on the key of the example; a small layer gives all
  places.
  """
  layers = [jnp.zeros((N, 4, 5, 1)), jnp.zeros((N, 2, 2, 1))]
  drawn = cut.draw_places(KEYS, layers, 6)
  places = [np.asarray(x) for x in drawn]
  assert [x.shape for x in places] == [(N, 6), (N, 4)]
  for layer, count in zip(places, (20, 4), strict=True):
    assert all(len({*row}) == len(row) for row in layer.tolist())
    assert layer.min() >= 0
    assert layer.max() < count
  assert len({tuple(row) for row in places[0].tolist()}) == N
  last = cut.draw_places(KEYS[2:], [x[2:] for x in layers], 6)
  np.testing.assert_array_equal(last[0][0], places[0][2])
  columns = jnp.arange(20.0).reshape(1, 4, 5, 1) * jnp.ones((N, 1, 1, 2))
  taken = cut.patches_at([columns], drawn[:1])[0]
  np.testing.assert_array_equal(taken[..., 1], places[0])


# -- The game --


def game(identity=0.3, gen=None):
  return cut.cut_game(
    gen or Scale(), Score(), loss=least_squares_half(), direction='a_to_b',
    weights=cut.Weights(0.7, identity, 0.2, patches=9),
  )  # fmt: skip


def contrast(heads, w, w_given, image):
  """Returns the contrastive loss of `w * image` with `image`, in float64."""

  def embed(x):
    x = np.stack([x, x**2], axis=-1).reshape(N, -1, 2)
    for name, activation in (('Dense_0', True), ('Dense_1', False)):
      kernel, bias = (np.float64(heads[name][x]) for x in ('kernel', 'bias'))
      x = x @ kernel + bias
      x = np.maximum(x, 0) if activation else x
    return x / np.linalg.norm(x, axis=-1, keepdims=True)

  # The given image and its translation are both encoded with the weight.
  query, key = embed(w * (w * image)), embed(w_given * image)
  scores = np.einsum('npd,nqd->npq', query, key) / 0.2
  right = np.diagonal(scores, axis1=1, axis2=2)
  return np.mean(np.log(np.exp(scores).sum(-1)) - right)


@pytest.mark.parametrize('identity', (0.0, 0.3))
def test_losses_and_gradient_by_hand(identity):
  """Park et al. 2020, equation 5; gradients by finite differences."""
  cut_game, batch = game(identity), paired_batch(3)
  variables, state = jax.jit(cut_game.init)(jax.random.key(0), batch)
  assert state == ()
  w = 0.5
  variables = Pair(variables.gen, {'params': {'v': jnp.array([-2.0])}})
  heads = variables.gen['params']['heads']
  a, b = (np.asarray(batch[x], np.float64)[..., 0] for x in 'ab')

  def total_loss(w, w_given=0.5):
    loss = np.mean((-2 * w * a - 1) ** 2) + 0.7 * contrast(heads, w, w_given, a)
    return loss + identity * contrast(heads, w, w_given, b)

  inputs = cut_game.sample_inputs(KEYS, batch, PHASE)
  fakes, _ = cut_game.generate(variables.gen, inputs, PHASE)
  (update,) = cut_game.updates.gen
  loss, aux = update.loss(
    variables.gen['params'], context(variables), batch, fakes, KEYS, PHASE
  )
  assert float(loss) == pytest.approx(total_loss(w), rel=1e-4)
  assert ('identity_nce' in aux.metrics) == bool(identity)
  (update,) = cut_game.updates.disc
  loss, _ = update.loss(
    variables.disc['params'], context(variables), batch, fakes, KEYS, PHASE
  )
  expected = np.mean((-2 * b - 1) ** 2) + np.mean((-2 * w * a) ** 2)
  assert float(loss) == pytest.approx(expected / 2, rel=1e-5)
  after = gen_step(cut_game, variables, state, batch)
  h = 1e-5
  gradient = (total_loss(w + h) - total_loss(w - h)) / (2 * h)
  assert float(after['translator']['w']) == pytest.approx(
    w - gradient, rel=1e-3
  )
  changes = jax.tree.map(lambda x, y: abs(x - y).max(), after['heads'], heads)
  assert min(jax.tree.leaves(changes)) > 0  # the heads are trained too


def test_resnet_returns_five_encoder_layers():
  """The first is the padded image. Variables do not contain the features."""
  gen, images = ResNet(3, features=4, num_blocks=5), jnp.zeros((1, 16, 12, 3))
  variables = jax.eval_shape(
    lambda: gen.init(jax.random.key(0), images, KEYS[:1], False)
  )
  assert [*variables] == ['params']
  encode = lambda variables: gen.apply(
    variables, images, KEYS[:1], True, mutable=['intermediates']
  )[1]['intermediates'][ENCODER]
  shapes = [x.shape[1:] for x in jax.eval_shape(encode, variables)]
  assert shapes == [
    (22, 18, 3), (8, 6, 8), (4, 3, 16), (4, 3, 16), (4, 3, 16),
  ]  # fmt: skip


def test_constant_images_have_finite_gradients():
  """Instance norm sets all their features to 0."""
  layers = [jnp.zeros((1, 4, 3))]
  heads = PatchHeads(5)
  variables = heads.init(jax.random.key(0), layers)

  def loss(variables, layers):
    (x,) = heads.apply(variables, layers)
    return cut.patch_nce(x, x, 0.07)

  value, gradients = jax.value_and_grad(loss)(variables, layers)
  assert float(value) == pytest.approx(np.log(4), rel=1e-5)
  assert np.isfinite(optax.tree.norm(gradients))


def test_generator_without_an_encoder_raises():
  unet = UNet(1, features=4, num_downsamples=2, norm='instance')
  with pytest.raises(UserError, match='UNet has no features of an enc'):
    jax.eval_shape(
      lambda: game(gen=unet).init(jax.random.key(0), paired_batch(4))[0]
    )
