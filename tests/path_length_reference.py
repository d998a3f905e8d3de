"""Prints the golden numbers of tests/test_path_length.py, from NVlabs' code.

  python tests/path_length_reference.py /path/to/stylegan2-ada-pytorch

This needs what style_reference.py needs. The reference's sampler runs in
float64 on the G of `skip_resnet` without noise, with given latents and t, and
with pixels of unit length in place of VGG.
"""

import json
import sys

import numpy as np
import style_reference as style

SPEC = style.SPECS['skip_resnet']
N = 4
# Numbers for the mean without the lowest and the highest percent.
LENGTHS = np.exp(style.random('lengths', 250))


def paths():
  """Returns z at both ends, labels, and t of the full paths."""
  z = style.random('z', (2, N, style.Z))
  return *z, np.eye(2)[np.arange(N) % 2], np.linspace(0.1, 0.9, N)


def without_noise(arrays):
  """Returns the arrays with a noise strength of 0."""
  return {n: x * (not n.endswith('noise_strength')) for n, x in arrays.items()}


def main(folder):
  networks = style._networks(folder)
  import torch
  from metrics import perceptual_path_length

  gen, _, side, channels, classes, clamp, _ = SPEC
  g = networks.Generator(
    style.Z, classes, style.W, side, channels, {'num_layers': style.LAYERS},
    {'channel_base': style.FEATURES, 'channel_max': style.MOST,
     'conv_clamp': clamp, 'architecture': gen},
  ).double()  # fmt: skip
  shapes = {k: tuple(v.shape) for k, v in g.state_dict().items()}
  arrays = style.weights(
    {k: s for k, s in shapes.items() if 'resample' not in k}
  )
  tensors = {k: torch.tensor(v) for k, v in without_noise(arrays).items()}
  g.load_state_dict(tensors, strict=False)
  a, b, labels, t = (torch.tensor(x) for x in paths())

  def unit(images, **_):
    flat = (images / 127.5 - 1).permute(0, 2, 3, 1).flatten(1)
    return flat / flat.norm(dim=1, keepdim=True)

  unit.eval = lambda: unit
  golden = {}
  torch.rand = lambda *_, **__: t
  torch.randn = lambda *_, **__: torch.cat([a, b])
  for space in ('w', 'z'):
    for sampling in ('end', 'full'):
      sampler = perceptual_path_length.PPLSampler(
        g, {}, 1e-4, space, sampling, False, unit
      )
      golden[f'ppl_{space}_{sampling}'] = sampler(labels).tolist()
  # The last lines of the reference's compute_ppl.
  low = np.percentile(LENGTHS, 1, method='lower')
  high = np.percentile(LENGTHS, 99, method='higher')
  kept = np.logical_and(low <= LENGTHS, high >= LENGTHS)
  golden['mean'] = float(np.extract(kept, LENGTHS).mean())
  print(json.dumps(golden, indent=2))


if __name__ == '__main__':
  main(sys.argv[1])
