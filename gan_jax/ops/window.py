"""The static parameters of a convolution."""

from typing import NamedTuple

LAYOUT = ('NHWC', 'HWIO', 'NHWC')


class Window(NamedTuple):
  """The static parameters of a convolution, `ops.conv` of x with w.

  Attributes:
    kernel: kh, kw.
    stride: Stride along both axes.
    padding: Zeros before and after, for each axis.
    size: H, W of x.
    groups: Number of groups of channels that are convolved separately.
  """

  kernel: tuple[int, int]
  stride: int
  padding: tuple[tuple[int, int], tuple[int, int]]
  size: tuple[int, int]
  groups: int = 1
