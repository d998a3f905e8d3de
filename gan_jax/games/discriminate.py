"""What D is shown in a step of a game of images, and what it says."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.errors import UserError
from gan_jax.games.augment import Sight
from gan_jax.games.game import Batch, Phase, RealScore
from gan_jax.games.losses import GANLoss
from gan_jax.games.penalties import PenaltyInputs
from gan_jax.pair import Variables

# Collections that are kept from D's pass over the reals alone, so that they
# move once in a step: the power iteration of spectral normalisation.
ONCE = ('spectral',)


class DiscOutput(NamedTuple):
  """What D says in a step.

  Attributes:
    shown: What it was shown, and its logits.
    real_classes, fake_classes: Its logits of each class, if it gives them.
    collections: Its new ones, after both passes.
  """

  shown: PenaltyInputs
  real_classes: Float[Array, 'n classes'] | None
  fake_classes: Float[Array, 'n classes'] | None
  collections: Variables


class Discriminate(NamedTuple):
  """How D is asked.

  Reals and fakes go through it in separate passes, so that their BatchNorm
  statistics do not mix.

  Attributes:
    disc: D; as of `image_game`.
    told: (phase, labels) -> what it is told besides images.
    reals: (images, phase) -> the reals as they are shown.
    sight: What is made of reals and fakes before D sees them.
    pack: Images in what D judges as one, by `sight`.
    classes: How many, if D is told them.
    sorts: Whether D says also what class an image is of.
  """

  disc: nn.Module
  told: Callable[[Phase | None, Any], dict[str, Any]]
  reals: Callable[[Array, Phase], Array]
  sight: Sight | None
  pack: int
  classes: int
  sorts: bool

  def init(self, key: Key[Array, ''], batch: Batch, keys: Any) -> Variables:
    """D's variables; of as many images as it judges as one."""
    batch = {name: x[: self.pack] for name, x in batch.items()}
    images, keys = batch['images'], keys[: self.pack]
    if self.sight is not None:
      images = self.sight(images, keys, {})
    how = self.told(None, one_hot_labels(batch, self.classes))
    return self.disc.init(key, images, keys[:1], False, **how)

  def alone(
    self, loss: GANLoss, disc_vars: Variables, batch: Batch, phase: Phase
  ) -> RealScore:
    """As `Game.judge`."""
    images = jnp.tile(batch['images'], (1, 1, 1, self.pack))
    key = jax.random.key(0)  # of nothing: D is as in evaluation

    def of_one(image, label):
      # By itself, so that no other one matters to minibatch statistics.
      labels = None if label is None else label[None]
      how = self.told(phase, labels)
      said = self.disc.apply(disc_vars, image[None], key[None], False, **how)
      return (said[0] if self.sorts else said)[0]

    logits = jax.vmap(of_one)(images, self._labels_alone(batch))
    if not loss.probability:
      return RealScore(logits, None)
    logits = loss.real_score(logits)
    return RealScore(logits, nn.sigmoid(logits))

  def _labels_alone(self, batch: Batch) -> Float[Array, 'n classes'] | None:
    """The labels of a batch that may have none."""
    if not self.classes or 'labels' in batch:
      return one_hot_labels(batch, self.classes)
    if not self.sorts:
      raise UserError(
        'this D is conditional: it needs the labels of the images, as in '
        'run.discriminator(images, labels=...)'
      )
    # Its logit of "real" does not depend on them.
    return jnp.zeros((len(batch['images']), self.classes))

  def __call__(
    self,
    disc_vars: Variables,
    batch: Batch,
    fake: Array,
    fake_labels: Any,
    keys: Key[Array, ' n'],
    phase: Phase,
  ) -> DiscOutput:
    """Asks D about the reals of a batch, and about fakes."""
    real = self.reals(batch['images'], phase)
    real_labels = one_hot_labels(batch, self.classes)
    keys = jax.vmap(jax.random.split)(keys)
    if self.sight is not None:
      own = jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, 0)))(keys)
      real = self.sight(real, own[:, 0], phase.values)
      fake = self.sight(fake, own[:, 1], phase.values)
      keys = keys[:: self.pack]

    def look(variables, images, labels, keys, fixed=()):
      how = self.told(phase, labels)
      said, new = apply_training(
        self.disc, variables, images, keys, fixed, **how
      )
      return (*(said if self.sorts else (said, None)), new)

    logits, real_classes, new = look(disc_vars, real, real_labels, keys[:, 0])
    disc_vars = {**disc_vars, **new}
    fake_logits, fake_classes, newer = look(
      disc_vars, fake, fake_labels, keys[:, 1], ONCE
    )
    judge = lambda x: look(disc_vars, x, real_labels, keys[:, 0], ONCE)[0]
    shown = PenaltyInputs(judge, real, fake, logits, fake_logits, keys[:, 0])
    return DiscOutput(shown, real_classes, fake_classes, {**new, **newer})


def one_hot_labels(
  batch: Batch, classes: int
) -> Float[Array, 'n classes'] | None:
  """1 for the class of each example, 0 for the others; None: there are none."""
  if not classes:
    return None
  if 'labels' not in batch:
    raise UserError('the game is of classes, and the data has no labels')
  if batch['labels'].ndim != 1:
    raise UserError('an image is of one class in this game, not of several')
  return jax.nn.one_hot(batch['labels'], classes)


def disc_metrics(loss: GANLoss, shown: PenaltyInputs) -> dict[str, Array]:
  """How D tells reals from fakes, for the log."""
  real, fake = shown.real_logits, shown.fake_logits
  metrics = {'real_logit': jnp.mean(real), 'fake_logit': jnp.mean(fake)}
  if loss.real_score is not None:
    metrics['real_accuracy'] = jnp.mean(loss.real_score(real) > 0)
    metrics['fake_accuracy'] = jnp.mean(loss.real_score(fake) < 0)
  return metrics


def class_loss(
  logits: Float[Array, 'n classes'], labels: Float[Array, 'n classes']
) -> Float[Array, '']:
  """-E log of the probability that D gives to the class."""
  return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))


def apply_training(
  module: nn.Module,
  variables: Variables,
  x: Array,
  keys: Key[Array, ' n'],
  fixed: tuple[str, ...] = (),
  **how: Any,
) -> tuple[PyTree, Variables]:
  """Applies a network as in training: its output, its new collections.

  The collections named in `fixed` stay as they are.
  """
  mutable = [name for name in variables if name not in ('params', *fixed)]
  return module.apply(variables, x, keys, train=True, mutable=mutable, **how)
