"""What a peer does: trains for some seconds when asked, tells images/s."""

import sys
import time
from collections.abc import Callable

SECONDS = 4.0


def take_turns(
  play: Callable[[], None], wait: Callable[[], None], images: int
) -> None:
  """Plays for each line of standard input; `images` are shown by one play."""

  def seconds(count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
      play()
    wait()
    return time.perf_counter() - start

  for _ in range(2):  # compiled, and warm
    one = seconds(1)
  count = max(1, round(SECONDS / one))
  print(0, flush=True)
  for _ in sys.stdin:
    print(count * images / seconds(count), flush=True)
