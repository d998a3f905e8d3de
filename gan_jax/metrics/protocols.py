"""Evaluation protocols of other codebases: `config.evaluation.protocol`.

A row sets the settings of an evaluation as the code of that name does by
default, so that scores compare with those published with it. All of them use
the Inception network of 2015 and the real images without mirroring, and the
fakes of all of them are rounded to uint8.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from gan_jax.errors import UserError
from gan_jax.registry import choose

# StudioGAN takes 50,000 fakes for sets as large as ImageNet and its subsets.
LARGE = 100_000


class Protocol(NamedTuple):
  """A row of PROTOCOLS.

  Attributes:
    features: A row of FEATURES: the network, with the resizing before it.
    num_samples: The number of fakes; None: as many as there are reals, or
      50,000 for more than LARGE.
    max_reals: The largest number of reals; None: all.
    labels: The labels of the fakes of a conditional G; a row of LABELS.
    seeds: The number of evaluations, whose mean is the score.
  """

  features: str
  num_samples: int | None = 50_000
  max_reals: int | None = None
  labels: str = 'uniform'
  seeds: int = 1

  def settings(self) -> dict[str, object]:
    """Returns the keys of `config.evaluation` that the protocol sets."""
    return {
      'features': self.features,
      'labels': self.labels,
      'num_samples': self.num_samples or 'the number of reals',
      'seeds': self.seeds,
    }


PROTOCOLS: dict[str, Protocol] = {
  # GaParmar/clean-fid, mode='clean', with all images of the data: bicubic
  # resizing with antialiasing, by Pillow.
  'clean-fid': Protocol('inception_clean'),
  # kwotsin/mimicry: the mean of three evaluations. (mimicry stretches the
  # fakes to the range of all of them before it rounds; here the range is that
  # of tanh.)
  'mimicry': Protocol('inception', max_reals=50_000, seeds=3),
  # NVlabs/stylegan2-ada-pytorch, fid50k_full.
  'stylegan': Protocol('inception', labels='data'),
  # POSTECH-CVLab/PyTorch-StudioGAN with its default, post_resizer=legacy:
  # PyTorch's bilinear resizing.
  'studiogan': Protocol('inception_torch', num_samples=None),
}


def protocol_of(block: ConfigDict) -> Protocol | None:
  """Returns the row that `config.evaluation.protocol` names; None: it is None.

  Raises:
    UserError: The name is unknown.
  """
  name = block.get('protocol')
  if name is None:
    return None
  return choose('config.evaluation.protocol', name, PROTOCOLS)


def with_protocol(block: ConfigDict, size: int, classes: int) -> ConfigDict:
  """Returns `config.evaluation` with the settings of its protocol.

  Args:
    block: The settings.
    size: The number of real images.
    classes: The number of classes of the evaluated G.
  """
  protocol = protocol_of(block)
  if protocol is None:
    return block
  block = block.copy_and_resolve_references()
  count = protocol.num_samples or (size if size <= LARGE else 50_000)
  with block.unlocked():
    block.update(
      features=protocol.features, num_samples=count, seeds=protocol.seeds
    )
    block.labels = protocol.labels if classes else None
  return block


def check_settings(name: Any, typed: Iterable[str]) -> None:
  """Raises UserError if a protocol sets one of the typed settings.

  A name of another type is left to the check of all values.
  """
  if not isinstance(name, str):
    return
  settings = choose('config.evaluation.protocol', name, PROTOCOLS).settings()
  for key in typed:
    if key in settings:
      raise UserError(
        f'evaluation.{key} conflicts with evaluation.protocol={name!r}, which '
        f'sets it to {settings[key]!r}: remove one of them'
      )
