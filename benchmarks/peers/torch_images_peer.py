"""CycleGAN and RRDB in PyTorch, as their reference code has them.

`tuned` adds a fused Adam and channels_last.
"""

import itertools
import random
import sys

import torch
from torch import nn
from torch.nn import functional as F
from turns import take_turns

family, batch, precision, mode = sys.argv[1:]
batch, tuned = int(batch), mode == 'tuned'
assert precision == 'float32' and mode in ('eager', 'tuned')
layout = torch.channels_last if tuned else torch.contiguous_format
torch.manual_seed(0)


def place(*modules):
  return [module.to(memory_format=layout) for module in modules]


def adam(rate, betas, *modules):
  params = itertools.chain(*(module.parameters() for module in modules))
  return torch.optim.Adam(params, rate, betas, fused=tuned or None)


def noise(size, count=1024):
  data = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
  return data.contiguous(memory_format=layout)


def crops(data, size):
  """Returns random crops of random images, mirrored or not, in [-1, 1]."""
  found = []
  for index in torch.randint(0, len(data), (batch,)):
    top, left = (random.randint(0, data.shape[-1] - size) for _ in range(2))
    image = data[index, :, top : top + size, left : left + size]
    found.append(image.flip(-1) if random.random() < 0.5 else image)
  images = torch.stack(found).float() / 127.5 - 1
  return images.contiguous(memory_format=layout)


# -- CycleGAN --


class Block(nn.Module):
  def __init__(self, width):
    super().__init__()
    layers = []
    for _ in range(2):
      layers += [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3)]
      layers += [nn.InstanceNorm2d(width), nn.ReLU(True)]
    self.layers = nn.Sequential(*layers[:-1])

  def forward(self, x):
    return x + self.layers(x)


def resnet(width=64, blocks=6):
  normed = lambda width: [nn.InstanceNorm2d(width), nn.ReLU(True)]
  layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), *normed(width)]
  for k in (1, 2):
    layers += [nn.Conv2d(k * width, 2 * k * width, 3, 2, 1)]
    layers += normed(2 * k * width)
  layers += [Block(4 * width) for _ in range(blocks)]
  for k in (4, 2):
    layers += [nn.ConvTranspose2d(k * width, k * width // 2, 3, 2, 1, 1)]
    layers += normed(k * width // 2)
  return nn.Sequential(
    *layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()
  )


def patchgan(width=64):
  layers = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
  for k, stride in ((1, 2), (2, 2), (4, 1)):
    layers += [nn.Conv2d(k * width, 2 * k * width, 4, stride, 1)]
    layers += [nn.InstanceNorm2d(2 * k * width), nn.LeakyReLU(0.2, True)]
  return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


class Pool:
  def __init__(self, size=50):
    self.size, self.images = size, []

  def query(self, images):
    returned = []
    for image in images.detach():
      if len(self.images) < self.size:
        self.images.append(image.clone())
      elif random.random() < 0.5:
        slot = random.randrange(self.size)
        image, self.images[slot] = self.images[slot], image.clone()
      returned.append(image)
    return torch.stack(returned)


def cyclegan64():
  to_b, to_a, disc_a, disc_b = place(resnet(), resnet(), patchgan(), patchgan())
  gen_tx = adam(2e-4, (0.5, 0.999), to_b, to_a)
  disc_tx = adam(2e-4, (0.5, 0.999), disc_a, disc_b)
  data_a, data_b, pool_a, pool_b = noise(72), noise(72), Pool(), Pool()
  is_real = lambda logits: (logits - 1).square().mean()

  def step():
    a, b = crops(data_a, 64), crops(data_b, 64)
    fake_b, fake_a = to_b(a), to_a(b)
    cycled_a, cycled_b = to_a(fake_b), to_b(fake_a)
    for disc in (disc_a, disc_b):
      disc.requires_grad_(False)
    gen_tx.zero_grad()
    loss = is_real(disc_b(fake_b)) + is_real(disc_a(fake_a))
    loss += 10 * F.l1_loss(cycled_a, a) + 10 * F.l1_loss(cycled_b, b)
    loss += 5 * F.l1_loss(to_a(a), a) + 5 * F.l1_loss(to_b(b), b)
    loss.backward()
    gen_tx.step()
    disc_tx.zero_grad()
    for disc, real, fake, pool in (
      (disc_a, a, fake_a, pool_a), (disc_b, b, fake_b, pool_b)
    ):  # fmt: skip
      disc.requires_grad_(True)
      on_fake = disc(pool.query(fake)).square().mean()
      ((is_real(disc(real)) + on_fake) / 2).backward()
    disc_tx.step()

  return step


# -- RRDB --


class Dense(nn.Module):
  def __init__(self, width, growth):
    super().__init__()
    self.convs = nn.ModuleList(
      nn.Conv2d(width + i * growth, growth if i < 4 else width, 3, 1, 1)
      for i in range(5)
    )

  def forward(self, x):
    features = x
    for conv in self.convs[:4]:
      new = F.leaky_relu(conv(features), 0.2, inplace=True)
      features = torch.cat([features, new], 1)
    return x + 0.2 * self.convs[4](features)


class RRDB(nn.Module):
  def __init__(self, width=64, blocks=23, growth=32):
    super().__init__()
    dense = lambda: nn.Sequential(*(Dense(width, growth) for _ in range(3)))
    self.first = nn.Conv2d(3, width, 3, 1, 1)
    self.blocks = nn.ModuleList(dense() for _ in range(blocks))
    self.convs = nn.ModuleList(
      nn.Conv2d(width, width, 3, 1, 1) for _ in range(4)
    )
    self.last = nn.Conv2d(width, 3, 3, 1, 1)

  def forward(self, x):
    first = x = self.first(x)
    for block in self.blocks:
      x = x + 0.2 * block(x)
    x = first + self.convs[0](x)
    for conv in self.convs[1:3]:
      x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2)), 0.2, True)
    return self.last(F.leaky_relu(self.convs[3](x), 0.2, True))


def rrdb():
  (gen,) = place(RRDB())
  tx, data = adam(2e-4, (0.9, 0.99), gen), noise(64)

  def step():
    large = crops(data, 32)
    small = F.interpolate(large, scale_factor=0.25, mode='bicubic',
                          antialias=True)  # fmt: skip
    tx.zero_grad()
    F.l1_loss(gen(small), large).backward()
    tx.step()

  return step


step = {'cyclegan64': cyclegan64, 'rrdb': rrdb}[family]()
take_turns(step, lambda: None, batch)
