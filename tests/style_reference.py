"""Prints the golden numbers of tests/test_style.py, from the reference code.

  python tests/style_reference.py /path/to/stylegan2-ada-pytorch

This needs PyTorch (2.14 was used) and a clone of NVlabs/stylegan2-ada-pytorch.
Its networks run on the CPU with their PyTorch operations, in float64: where
their source says float32, this script reads float64.
"""

import json
import sys
import types
import zlib
from pathlib import Path

import numpy as np

# Architectures of G and D, resolution, channels of images, classes, clamp,
# channels of the minibatch standard deviation.
SPECS = {
  'skip_resnet': ('skip', 'resnet', 8, 3, 2, None, 1),
  'orig_orig': ('orig', 'orig', 8, 1, 0, 0.7, 2),
  'resnet_skip': ('resnet', 'skip', 16, 3, 0, 256.0, 0),
}
Z, W, FEATURES, MOST, LAYERS, N = 5, 6, 128, 8, 2, 2


def random(name, shape, scale=1.0):
  """Returns random numbers that depend only on the name and the shape."""
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  return scale * rng.standard_normal(shape)


def weights(shapes):
  """Returns random weights of the reference's names and shapes."""

  def scale(name):
    small = 0.3 if name.endswith(('bias', 'noise_strength')) else 1.0
    # The parameters of the mapping are stored divided by their multiplier.
    return small * (100 if 'mapping.fc' in name else 1)

  return {n: random(n, shape, scale(n)) for n, shape in shapes.items()}


def data(spec):
  """Returns z, one-hot labels, reals, and noise of the path length: NCHW."""
  _, _, side, channels, classes, *_ = spec
  labels = np.eye(classes)[np.arange(N) % classes] if classes else None
  shape = N, channels, side, side
  return random('z', (N, Z)), labels, random('real', shape), random('y', shape)


def number(arrays):
  """Returns one number of several arrays."""
  return float(
    sum(np.sum(random(k, np.shape(a)) * a) for k, a in arrays.items())
  )


def _networks(folder):
  """Returns the reference's modules, with float64 in place of float32."""
  import torch

  sys.path.insert(0, str(folder))
  from torch_utils.ops import conv2d_resample, upfirdn2d
  from training import networks

  filtered = upfirdn2d._upfirdn2d_ref

  def upfirdn(x, f, impl=None, **rest):
    return filtered(x, f.to(torch.float32), **rest)

  upfirdn2d.upfirdn2d = upfirdn
  for module, old, new in (
    (conv2d_resample, 'and f.dtype == torch.float32', ''),
    (networks, 'torch.float32', 'torch.float64'),
  ):
    source = Path(module.__file__).read_text('utf-8-sig').replace(old, new)
    exec(compile(source, module.__file__, 'exec'), module.__dict__)
  return networks


def main(folder):
  import torch

  networks = _networks(folder)
  golden = {}
  for key, spec in SPECS.items():
    gen, disc, side, channels, classes, clamp, stddev = spec
    width = {'channel_base': FEATURES, 'channel_max': MOST, 'conv_clamp': clamp}
    g = networks.Generator(
      Z, classes, W, side, channels, {'num_layers': LAYERS},
      {**width, 'architecture': gen},
    )  # fmt: skip
    d = networks.Discriminator(
      classes, side, channels, architecture=disc, **width,
      epilogue_kwargs={'mbstd_group_size': N, 'mbstd_num_channels': stddev},
    )  # fmt: skip
    for net in (g, d):
      net.double().train()
      shapes = {k: tuple(v.shape) for k, v in net.state_dict().items()}
      parameters = {k: s for k, s in shapes.items() if 'resample' not in k}
      tensors = {k: torch.tensor(v) for k, v in weights(parameters).items()}
      net.load_state_dict(tensors, strict=False)
    z, c, real, y = (None if x is None else torch.tensor(x) for x in data(spec))
    golden[key] = _golden(g, d, z, c, real, y)
  print(json.dumps(golden, indent=2))


def _golden(g, d, z, c, real, y):
  import torch

  log = torch.nn.functional.softplus
  found = types.SimpleNamespace()
  gradient = lambda loss, net: number(
    {
      name: 0.0 if grad is None else grad.numpy()
      for (name, _), grad in zip(
        net.named_parameters(),
        torch.autograd.grad(
          loss, list(net.parameters()), retain_graph=True, allow_unused=True
        ),
        strict=True,
      )
    }
  )
  ws = g.mapping(z, c, skip_w_avg_update=True)
  images = g.synthesis(ws, noise_mode='const')
  plain = g.synthesis(ws, noise_mode='none')
  cut = g.mapping(z, c, 0.6, 3, skip_w_avg_update=True)
  logits = d(images, c)
  vjp = torch.autograd.grad((images * y).sum(), ws, create_graph=True)[0]
  lengths = vjp.square().sum(2).mean(1).sqrt()
  real.requires_grad_(True)
  real_logits = d(real, c)
  gradients = torch.autograd.grad(real_logits.sum(), real, create_graph=True)[0]
  r1 = gradients.square().sum([1, 2, 3]).mean() / 2
  found.images = number({'images': images.detach().numpy()})
  found.no_noise = number({'images': plain.detach().numpy()})
  found.truncated = number({'ws': cut.detach().numpy()})
  found.logits = number({'logits': logits[:, 0].detach().numpy()})
  found.lengths = number({'lengths': lengths.detach().numpy()})
  found.r1 = r1.item()
  found.gen_gradient = gradient(log(-logits).mean(), g)
  found.disc_gradient = gradient(log(-real_logits).mean(), d)
  found.path_gradient = gradient((lengths - 0.5).square().mean(), g)
  found.r1_gradient = gradient(r1, d)
  return vars(found)


if __name__ == '__main__':
  main(sys.argv[1])
