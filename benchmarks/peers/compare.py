"""Times our training step and others' in turns, and prints the ratios.

  python tests/peers/compare.py dcgan64 --batch=64 --against=torch,flax
  python tests/peers/compare.py mlp --batch=128 --against=torch
  python tests/peers/compare.py cyclegan64 --batch=1 --against=torch,torch_tuned
  python tests/peers/compare.py rrdb --batch=4 --against=torch,torch_tuned
  python tests/peers/compare.py stylegan64 --batch=8 --against=nvlabs \
    --reference=/path/to/stylegan2-ada-pytorch

The others are the same networks, batch, precision and algorithm in plain
PyTorch (`pip install torch`; `torch` is eager, as its DCGAN example has it,
`torch_tuned` with a fused Adam and D frozen in G's move, `torch_compiled`
torch.compile; all channels_last) and in Flax as one would first write it.
Of the two that are given images, `torch` is not channels_last, as their
reference code, and `torch_tuned` is. RRDB is the PSNR stage, with crops of 32
pixels.
StyleGAN2 at 64 pixels (with `_lazy`: and its lazy penalties) is compared with
the authors' code, `nvlabs`. `--python` is an interpreter that has PyTorch.
Each runs in a process of its own, and waits while another is timed.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = {
  'ours': ['ours.py'],
  'torch': ['torch_peer.py', 'eager'],
  'torch_tuned': ['torch_peer.py', 'tuned'],
  'torch_compiled': ['torch_peer.py', 'compiled'],
  'flax': ['flax_peer.py'],
  'nvlabs': ['style_peer.py'],
}
IMAGES = 'cyclegan64', 'rrdb'  # families of networks that are given images
FAMILIES = ('mlp', 'dcgan64', *IMAGES, 'stylegan64', 'stylegan64_lazy')


class Peer:
  """A process that trains for a while whenever it is asked to."""

  def __init__(self, name: str, given: tuple, python: str, *more: str):
    script, *rest = SCRIPTS[name]
    if given[0] in IMAGES:
      script = script.replace('torch_peer', 'torch_images_peer')
    command = [python, HERE / script, *given, *rest, *more]
    self.process = subprocess.Popen(
      list(map(str, command)),
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self._answer()

  def _answer(self) -> float:
    line = self.process.stdout.readline()
    if not line:
      sys.exit(f'{self.process.args[1]} has ended: see above')
    return float(line)

  def images_per_second(self) -> float:
    print('go', file=self.process.stdin, flush=True)
    return self._answer()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('family', choices=FAMILIES)
  parser.add_argument('--batch', type=int, required=True)
  parser.add_argument('--precision', default='float32')
  parser.add_argument('--against', default='torch')
  parser.add_argument('--pairs', type=int, default=7)
  parser.add_argument('--python', default=sys.executable)
  parser.add_argument('--reference', action='append', default=[])
  args = parser.parse_args()
  given = args.family, args.batch, args.precision
  ours = Peer('ours', given, sys.executable)
  for name in args.against.split(','):
    theirs = Peer(name, given, args.python, *args.reference)
    ratios = []
    for pair in range(args.pairs):
      a, b = ours.images_per_second(), theirs.images_per_second()
      ratios.append(a / b)
      print(
        f'{args.family} batch {args.batch} {args.precision}, pair {pair}: '
        f'ours {a:,.1f}, {name} {b:,.1f} images/s, ratio {a / b:.2f}',
        flush=True,
      )
    theirs.process.kill()
    print(
      f'{name}: median ratio {statistics.median(ratios):.2f} '
      f'({min(ratios):.2f} to {max(ratios):.2f})'
    )
  ours.process.kill()


if __name__ == '__main__':
  main()
