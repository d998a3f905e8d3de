r"""Times our training step and those of peers in turns, and prints the ratios.

  python benchmarks/peers/compare.py dcgan64 --batch=64 --against=torch,flax
  python benchmarks/peers/compare.py mlp --batch=128 --against=torch
  python benchmarks/peers/compare.py cyclegan64 --batch=1 \
    --against=torch,torch_tuned
  python benchmarks/peers/compare.py rrdb --batch=4 --against=torch,torch_tuned
  python benchmarks/peers/compare.py stylegan64 --batch=8 --against=nvlabs \
    --reference=/path/to/stylegan2-ada-pytorch

The peers are the same networks, batch, precision and algorithm in plain
PyTorch (`pip install torch`; `torch` is eager, as its DCGAN example has it,
`torch_tuned` with a fused Adam and D frozen in G's update, `torch_compiled`
with torch.compile too, `torch_graphs` with CUDA graphs; all channels_last, or
NCHW where that does not compile) and in Flax as one would first write it.
Of the two whose inputs are images, `torch` is not channels_last, as their
reference code, and `torch_tuned` is. RRDB is the PSNR stage, with crops of 32
pixels.
StyleGAN2 at 64 pixels (with `_lazy`: and its lazy penalties) is compared with
the authors' code, `nvlabs`. `--python` is an interpreter that has PyTorch.
Each runs in a process of its own, and waits while another is timed. A failed
peer is reported, and the others go on. PEER_SECONDS is the length of a turn.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = {
  'ours': ['ours.py'],
  'torch': ['torch_peer.py', 'eager'],
  'torch_tuned': ['torch_peer.py', 'tuned'],
  'torch_compiled': ['torch_peer.py', 'compiled'],
  'torch_graphs': ['torch_peer.py', 'graphs'],
  'flax': ['flax_peer.py'],
  'nvlabs': ['style_peer.py'],
}
IMAGES = 'cyclegan64', 'rrdb'  # families of networks whose inputs are images
FAMILIES = ('mlp', 'dcgan64', *IMAGES, 'stylegan64', 'stylegan64_lazy')


class Ended(Exception):
  """A peer has ended; the message is the last line of its errors."""


class Peer:
  """A process that trains for a while on request.

  Attributes:
    note: The first line of its output, which describes it.

  Raises:
    Ended: It cannot run.
  """

  def __init__(self, name: str, given: tuple, python: str, *more: str):
    script, *rest = SCRIPTS[name]
    if given[0] in IMAGES:
      script = script.replace('torch_peer', 'torch_images_peer')
    command = [python, HERE / script, *given, *rest, *more]
    self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115
    try:
      self.process = subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._errors,
        text=True,
      )
    except OSError as error:
      self._errors.close()
      raise Ended(f'cannot start {python}: {error.strerror}') from error
    self.note = self._answer()

  def _answer(self) -> str:
    line = self.process.stdout.readline()
    if not line:
      self._errors.seek(0)
      errors = self._errors.read()
      self.close()
      raise Ended(reason(errors))
    return line.strip()

  def close(self) -> None:
    """Ends the peer."""
    self.process.kill()
    self.process.communicate()
    self._errors.close()

  def images_per_second(self) -> float:
    print('go', file=self.process.stdin, flush=True)
    return float(self._answer())


def reason(errors: str) -> str:
  """Returns a line of what a failed program wrote to stderr: the reason."""
  for sign in ('RESOURCE_EXHAUSTED', 'OutOfMemoryError', 'MemoryError'):
    if sign in errors:
      return f'out of memory ({sign})'
  lines = [line.strip() for line in errors.splitlines() if line.strip()]
  # Other lines may follow that of the exception.
  named = [x for x in lines if re.match(r'[\w.]+(Error|Exception)\b', x)]
  return (named or lines or ['it was killed'])[-1][:200]


def compare(
  ours: Peer, theirs: Peer, pairs: int, log: Callable[[str], None]
) -> dict[str, Any]:
  """Times two peers in turns; returns the median ratio and its range."""
  figures = []
  for pair in range(pairs):
    a, b = ours.images_per_second(), theirs.images_per_second()
    figures.append((a / b, a, b))
    log(f'pair {pair}: ours {a:,.1f}, {b:,.1f} images/s, ratio {a / b:.2f}')
  ratios, mine, others = zip(*figures, strict=True)
  return {
    'ratio': statistics.median(ratios),
    'range': [min(ratios), max(ratios)],
    'ours_images_per_second': statistics.median(mine),
    'images_per_second': statistics.median(others),
    'note': theirs.note,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('family', choices=FAMILIES)
  parser.add_argument('--batch', type=int, required=True)
  parser.add_argument('--precision', default='float32')
  parser.add_argument('--against', default='torch')
  parser.add_argument('--pairs', type=int, default=7)
  parser.add_argument('--python', default=sys.executable)
  parser.add_argument('--reference', action='append', default=[])
  parser.add_argument('--json', action='store_true')
  args = parser.parse_args()
  given = args.family, args.batch, args.precision
  log = lambda line: None if args.json else print(line, flush=True)
  try:
    ours = Peer('ours', given, sys.executable)
  except Ended as error:
    sys.exit(f'ours: {error}')
  for name in args.against.split(','):
    log(f'{args.family} batch {args.batch} {args.precision}, against {name}:')
    theirs = None
    try:
      theirs = Peer(name, given, args.python, *args.reference)
      found = compare(ours, theirs, args.pairs, log)
      low, high = found['range']
      log(
        f'{name}: median ratio {found["ratio"]:.2f} ({low:.2f} to {high:.2f})'
        f' {found["note"]}'
      )
    except Ended as error:
      found = {'problem': str(error)}
      log(f'{name}: {error}')
    if theirs is not None:
      theirs.close()
    if args.json:
      print(json.dumps({name: found}), flush=True)
  ours.close()


if __name__ == '__main__':
  main()
