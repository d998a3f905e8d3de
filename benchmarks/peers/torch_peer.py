"""The same in PyTorch, as its users write it: the reference DCGAN's loop.

`tuned` is what a careful one adds: a fused Adam, which on GPUs all have, and no
gradients of D's weights in G's move.
"""

import sys

import torch
from torch import nn
from turns import take_turns

family, batch, precision, mode = sys.argv[1:]
batch = int(batch)
device = 'cuda' if torch.cuda.is_available() else 'cpu'
torch.manual_seed(0)


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


gen, disc, latent, image, b1 = {'mlp': mlp, 'dcgan64': dcgan64}[family]()
layout = torch.channels_last if family == 'dcgan64' else torch.contiguous_format
gen = gen.to(device, memory_format=layout)
disc = disc.to(device, memory_format=layout)
fused = device == 'cuda' or mode == 'tuned'
adam = {'lr': 2e-4, 'betas': (b1, 0.999), 'fused': fused or None}
gen_tx = torch.optim.Adam(gen.parameters(), **adam)
disc_tx = torch.optim.Adam(disc.parameters(), **adam)
criterion = nn.BCEWithLogitsLoss()
one, zero = torch.ones(batch, device=device), torch.zeros(batch, device=device)
data = torch.randint(0, 256, (1024, *image), dtype=torch.uint8, device=device)
data = data.contiguous(memory_format=layout)


def losses_and_grads(real, z):
  with torch.autocast(device, torch.bfloat16, enabled=precision == 'bfloat16'):
    disc_tx.zero_grad()
    criterion(disc(real).float(), one).backward()
    fake = gen(z)
    criterion(disc(fake.detach()).float(), zero).backward()
    disc_tx.step()
    gen_tx.zero_grad()
    disc.requires_grad_(mode != 'tuned')
    criterion(disc(fake).float(), one).backward()
    disc.requires_grad_(True)
    gen_tx.step()


if mode == 'compiled':
  gen, disc = torch.compile(gen), torch.compile(disc)


def step():
  real = data[torch.randint(0, len(data), (batch,), device=device)]
  real = (real.float() / 127.5 - 1).contiguous(memory_format=layout)
  losses_and_grads(real, torch.randn(batch, *latent, device=device))


def wait():
  if device == 'cuda':
    torch.cuda.synchronize()


take_turns(step, wait, batch)
