"""The discriminator pass over the reals and the fakes of an image game."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.errors import UserError
from gan_jax.games import transforms
from gan_jax.games.ada import Ada
from gan_jax.games.augment import Augment
from gan_jax.games.game import Batch, Phase, RealScore, Scalar
from gan_jax.games.losses import GANLoss
from gan_jax.games.penalties import PenaltyInputs
from gan_jax.pair import Variables

# Collections that only D's pass over the reals updates, so that they are
# updated once per step: the power iteration of spectral normalization.
ONCE = ('spectral',)


class DiscOutput(NamedTuple):
  """The outputs of D in one update.

  Attributes:
    inputs: D's input images and their logits.
    real_classes, fake_classes: Class logits of the auxiliary classifier; None
      without one.
    collections: D's new collections, after both passes.
  """

  inputs: PenaltyInputs
  real_classes: Float[Array, 'n classes'] | None
  fake_classes: Float[Array, 'n classes'] | None
  collections: Variables


class Discriminate(NamedTuple):
  """Applies D to reals and fakes.

  Reals and fakes pass through D separately, so that their BatchNorm statistics
  do not mix.

  Attributes:
    disc: The network; see `image_game`.
    conditioning: (phase, labels) -> keyword arguments of D.
    reals: (images, phase) -> the reals as D's input, before augmentation.
    augment: The augmentation pipeline for reals and fakes; None: none.
    pack: Number of images that `augment` stacks into one input of D.
    classes: Number of classes of a conditional game; 0: unconditional.
    auxiliary: Whether D also classifies images (AC-GAN).
    ada: The augmentation with probability p, after `augment`. Penalties
      differentiate D with respect to the images before it. None: none.
  """

  disc: nn.Module
  conditioning: Callable[[Phase | None, Any], dict[str, Any]]
  reals: Callable[[Array, Phase], Array]
  augment: Augment | None
  pack: int
  classes: int
  auxiliary: bool
  ada: Ada | None = None

  def init(self, key: Key[Array, ''], batch: Batch, keys: Any) -> Variables:
    """Initializes D."""
    batch = {name: x[: self.pack] for name, x in batch.items()}
    images, keys = batch['images'], keys[: self.pack]
    if self.augment is not None:
      images = self.augment(images, keys, {})
    conditioning = self.conditioning(None, one_hot_labels(batch, self.classes))
    return self.disc.init(key, images, keys[:1], False, **conditioning)

  def single(
    self, loss: GANLoss, disc_vars: Variables, batch: Batch, phase: Phase
  ) -> RealScore:
    """Applies D to single images, in evaluation mode.

    See `Game.discriminate`.
    """
    images = jnp.tile(batch['images'], (1, 1, 1, self.pack))
    key = jax.random.key(0)  # unused: D is in evaluation mode

    def logit_of(image, label):
      # A batch of one: no other image affects minibatch statistics.
      labels = None if label is None else label[None]
      conditioning = self.conditioning(phase, labels)
      out = self.disc.apply(
        disc_vars, image[None], key[None], False, **conditioning
      )
      # The mean over the patches, if D has a logit for each.
      return jnp.mean(out[0] if self.auxiliary else out)

    logits = jax.vmap(logit_of)(images, self._labels_or_zeros(batch))
    if not loss.probability:
      return RealScore(logits, None)
    logits = loss.real_score(logits)
    return RealScore(logits, nn.sigmoid(logits))

  def features(
    self, disc_vars: Variables, batch: Batch, phase: Phase
  ) -> dict[str, Array]:
    """Returns the activations of D's layers; see `Game.features`."""
    images = jnp.tile(batch['images'], (1, 1, 1, self.pack))
    key, names = jax.random.key(0), []

    def activations(image, label):
      found = {}

      def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        path = '/'.join(context.module.path)
        is_layer = context.method_name == '__call__' and path
        if is_layer and isinstance(output, jax.Array):
          found[path] = output[0]
        return output

      conditioning = self.conditioning(phase, label)
      with nn.intercept_methods(record):
        self.disc.apply(
          disc_vars, image[None], key[None], False, **conditioning
        )
      names[:] = found  # in the order of the layers, which vmap would sort
      return found

    labels = self._labels_or_zeros(batch)
    labels = None if labels is None else labels[:, None]
    found = jax.vmap(activations)(images, labels)
    return {name: found[name] for name in names}

  def _labels_or_zeros(self, batch: Batch) -> Float[Array, 'n classes'] | None:
    """Returns one-hot labels; zeros if an auxiliary classifier has none.

    Raises:
      UserError: D is conditional and the batch has no labels.
    """
    if not self.classes or 'labels' in batch:
      return one_hot_labels(batch, self.classes)
    if not self.auxiliary:
      raise UserError(
        'this discriminator is conditional and needs labels: use '
        'run.discriminator(images, labels=...)'
      )
    # The real/fake logit of an auxiliary classifier does not use labels.
    return jnp.zeros((len(batch['images']), self.classes))

  def __call__(
    self,
    disc_vars: Variables,
    batch: Batch,
    fake: Array,
    fake_labels: Any,
    keys: Key[Array, ' n'],
    phase: Phase,
    p: Scalar = 0.0,
  ) -> DiscOutput:
    """Applies D in training mode to the reals of a batch and to fakes.

    `p` is the current probability of the augmentations of `ada`.
    """
    real = self.reals(batch['images'], phase)
    real_labels = one_hot_labels(batch, self.classes)
    keys = jax.vmap(jax.random.split)(keys)
    if self.augment is not None:
      fold = jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, 0)))
      augment_keys = fold(keys)
      real = self.augment(real, augment_keys[:, 0], phase.values)
      fake = self.augment(fake, augment_keys[:, 1], phase.values)
      keys = keys[:: self.pack]

    def apply(variables, images, labels, keys, fixed=()):
      if self.ada is not None:
        ada_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        images = transforms.augment(images, ada_keys, p, self.ada.strengths)
      conditioning = self.conditioning(phase, labels)
      out, new = apply_training(
        self.disc, variables, images, keys, fixed, **conditioning
      )
      return (*(out if self.auxiliary else (out, None)), new)

    real_logits, real_classes, real_updates = apply(
      disc_vars, real, real_labels, keys[:, 0]
    )
    disc_vars = {**disc_vars, **real_updates}
    fake_logits, fake_classes, fake_updates = apply(
      disc_vars, fake, fake_labels, keys[:, 1], ONCE
    )
    penalty_disc = lambda labels, keys, images: apply(
      disc_vars, images, labels, keys, ONCE
    )[0]
    inputs = PenaltyInputs(
      partial(penalty_disc, real_labels, keys[:, 0]),
      real,
      fake,
      real_logits,
      fake_logits,
      keys[:, 0],
      partial(penalty_disc, fake_labels, keys[:, 1]),
    )
    collections = {**real_updates, **fake_updates}
    return DiscOutput(inputs, real_classes, fake_classes, collections)


def one_hot_labels(
  batch: Batch, classes: int
) -> Float[Array, 'n classes'] | None:
  """Returns the one-hot labels of a batch; None for an unconditional game.

  Raises:
    UserError: The batch has no labels, or several attributes per image.
  """
  if not classes:
    return None
  if 'labels' not in batch:
    raise UserError(
      f'config.data.classes={classes}, but the data has no labels: set it to '
      '0, or train on labelled images'
    )
  if batch['labels'].ndim != 1:
    raise UserError(
      f'config.data.classes={classes}: this game needs one class per image, '
      'but the data has several attributes per image'
    )
  return jax.nn.one_hot(batch['labels'], classes)


def disc_metrics(
  loss: GANLoss, real: Float[Array, 'n ...'], fake: Float[Array, 'm ...']
) -> dict[str, Array]:
  """Returns the means and the accuracies of D's logits, for the log."""
  metrics = {'real_logit': jnp.mean(real), 'fake_logit': jnp.mean(fake)}
  if loss.real_score is not None:
    metrics['real_accuracy'] = jnp.mean(loss.real_score(real) > 0)
    metrics['fake_accuracy'] = jnp.mean(loss.real_score(fake) < 0)
  return metrics


def class_loss(
  logits: Float[Array, 'n classes'], labels: Float[Array, 'n classes']
) -> Float[Array, '']:
  """Returns the cross-entropy of the classes, -E log p(class)."""
  return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))


def apply_training(
  module: nn.Module,
  variables: Variables,
  x: Array,
  keys: Key[Array, ' n'],
  fixed: tuple[str, ...] = (),
  **conditioning: Any,
) -> tuple[PyTree, Variables]:
  """Applies a network in training mode.

  Args:
    module, variables: The network.
    x: Its input: z or images.
    keys: One per example.
    fixed: Collections that are not updated.
    **conditioning: Keyword arguments of the network.

  Returns:
    The output and the new collections.
  """
  mutable = [name for name in variables if name not in ('params', *fixed)]
  return module.apply(
    variables, x, keys, train=True, mutable=mutable, **conditioning
  )
