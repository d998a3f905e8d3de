"""Runs a peer: trains for some seconds on request, and prints images/s."""

import os
import sys
import time
from collections.abc import Callable

SECONDS = float(os.environ.get('PEER_SECONDS', 4))


def take_turns(
  run_step: Callable[[], None],
  wait: Callable[[], None],
  images: int,
  note: str = '',
) -> None:
  """Trains for each line of standard input; a step takes `images` images.

  The first line of the output is `note`, which describes the measurement.
  """

  def seconds(count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
      run_step()
    wait()
    return time.perf_counter() - start

  for _ in range(2):  # compiled and warm
    one = seconds(1)
  count = max(1, round(SECONDS / one))
  print(note, flush=True)
  for _ in sys.stdin:
    print(count * images / seconds(count), flush=True)
