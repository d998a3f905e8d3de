"""What a peer does: trains for some seconds when asked, tells images/s."""

import os
import sys
import time
from collections.abc import Callable

SECONDS = float(os.environ.get('PEER_SECONDS', 4))


def take_turns(
  play: Callable[[], None],
  wait: Callable[[], None],
  images: int,
  note: str = '',
) -> None:
  """Plays for each line of standard input; `images` are shown by one play.

  The first line of the output is `note`, of how it is timed.
  """

  def seconds(count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
      play()
    wait()
    return time.perf_counter() - start

  for _ in range(2):  # compiled, and warm
    one = seconds(1)
  count = max(1, round(SECONDS / one))
  print(note, flush=True)
  for _ in sys.stdin:
    print(count * images / seconds(count), flush=True)
