"""What a convolution is, beside its arrays."""

from typing import NamedTuple

LAYOUT = ('NHWC', 'HWIO', 'NHWC')


class Window(NamedTuple):
  """What is not to be seen from the arrays: of both axes of an image.

  Attributes:
    kernel: kh, kw.
    stride: In both directions.
    padding: Zeros before and after, for each axis.
    size: H, W.
  """

  kernel: tuple[int, int]
  stride: int
  padding: tuple[tuple[int, int], tuple[int, int]]
  size: tuple[int, int]
