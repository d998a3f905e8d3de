"""The networks in PyTorch, as its users write it: the reference DCGAN's loop.

`tuned` is what a careful user adds: a fused Adam, which all have on GPUs, and
no gradients of D's weights in G's update. `compiled` also uses torch.compile,
and `graphs` CUDA graphs. Where channels_last cannot be compiled, they are NCHW.
"""

import sys

import torch
from torch import nn
from turns import take_turns

family, batch, precision, mode = sys.argv[1:]
batch = int(batch)
device = 'cuda' if torch.cuda.is_available() else 'cpu'


def mlp():
  gen, disc, width = [], [], 64
  for units in (256, 512, 1024):
    gen += [nn.Linear(width, units), nn.ReLU(inplace=True)]
    width = units
  gen += [nn.Linear(width, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28))]
  disc, width = [nn.Flatten()], 784
  for units in (1024, 512, 256):
    disc += [nn.Linear(width, units), nn.LeakyReLU(0.2, inplace=True)]
    disc += [nn.Dropout(0.3)]
    width = units
  disc += [nn.Linear(width, 1), nn.Flatten(0)]
  return nn.Sequential(*gen), nn.Sequential(*disc), (64,), (1, 28, 28), 0.0


def dcgan64(features=64):
  gen = [nn.ConvTranspose2d(100, features * 8, 4, 1, 0, bias=False)]
  for width in (8, 4, 2):
    gen += [nn.BatchNorm2d(features * width), nn.ReLU(inplace=True)]
    doubled = features * width, features * width // 2
    gen += [nn.ConvTranspose2d(*doubled, 4, 2, 1, bias=False)]
  gen += [nn.BatchNorm2d(features), nn.ReLU(inplace=True)]
  gen += [nn.ConvTranspose2d(features, 3, 4, 2, 1, bias=False), nn.Tanh()]
  disc = [nn.Conv2d(3, features, 4, 2, 1, bias=False)]
  disc += [nn.LeakyReLU(0.2, inplace=True)]
  for width in (1, 2, 4):
    halved = features * width, features * width * 2
    disc += [nn.Conv2d(*halved, 4, 2, 1, bias=False)]
    disc += [nn.BatchNorm2d(halved[1]), nn.LeakyReLU(0.2, inplace=True)]
  disc += [nn.Conv2d(features * 8, 1, 4, 1, 0, bias=False), nn.Flatten(0)]
  gen, disc = nn.Sequential(*gen), nn.Sequential(*disc)
  return gen, disc, (100, 1, 1), (3, 64, 64), 0.5


def make_step(layout):
  """Returns () -> None: one training step in this memory layout."""
  torch.manual_seed(0)
  gen, disc, latent, image, b1 = {'mlp': mlp, 'dcgan64': dcgan64}[family]()
  gen = gen.to(device, memory_format=layout)
  disc = disc.to(device, memory_format=layout)
  fused = device == 'cuda' or mode != 'eager'
  adam = {'lr': 2e-4, 'betas': (b1, 0.999), 'fused': fused or None}
  gen_tx = torch.optim.Adam(gen.parameters(), **adam)
  disc_tx = torch.optim.Adam(disc.parameters(), **adam)
  criterion = nn.BCEWithLogitsLoss()
  one, zero = (
    torch.ones(batch, device=device),
    torch.zeros(batch, device=device),
  )
  data = torch.randint(0, 256, (1024, *image), dtype=torch.uint8, device=device)
  data = data.contiguous(memory_format=layout)
  # A CUDA graph reuses its memory: gradients are added to buffers of our own.
  is_graph = mode == 'graphs'
  if is_graph:
    for p in (*gen.parameters(), *disc.parameters()):
      p.grad = torch.zeros_like(p)
  if mode in ('compiled', 'graphs'):
    options = {'mode': 'reduce-overhead'} if is_graph else {}
    gen, disc = torch.compile(gen, **options), torch.compile(disc, **options)

  def update(real, z):
    with torch.autocast(
      device, torch.bfloat16, enabled=precision == 'bfloat16'
    ):
      disc_tx.zero_grad(set_to_none=not is_graph)
      criterion(disc(real).float(), one).backward()
      fake = gen(z)
      criterion(disc(fake.detach()).float(), zero).backward()
      disc_tx.step()
      gen_tx.zero_grad(set_to_none=not is_graph)
      disc.requires_grad_(mode == 'eager')
      criterion(disc(fake).float(), one).backward()
      disc.requires_grad_(True)
      gen_tx.step()

  def step():
    if is_graph:
      torch.compiler.cudagraph_mark_step_begin()
    real = data[torch.randint(0, len(data), (batch,), device=device)]
    real = (real.float() / 127.5 - 1).contiguous(memory_format=layout)
    update(real, torch.randn(batch, *latent, device=device))

  return step


def wait():
  if device == 'cuda':
    torch.cuda.synchronize()


def first_that_runs():
  """Returns a step, and a note of its layout."""
  layouts = {'NCHW': torch.contiguous_format}
  if family == 'dcgan64':
    layouts = {'channels_last': torch.channels_last, **layouts}
  for name, layout in layouts.items():
    try:
      step = make_step(layout)
      step()
      wait()
    except Exception:
      if name == 'NCHW' or mode in ('eager', 'tuned'):
        raise
      torch.compiler.reset()
      continue
    return step, name if family == 'dcgan64' else ''


step, note = first_that_runs()
take_turns(step, wait, batch, note)
