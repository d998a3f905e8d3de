"""The step of StyleGAN2 in the authors' PyTorch code, without augmentation.

Its networks and its loss, from a clone of NVlabs/stylegan2-ada-pytorch, with
the PyTorch forms of its operations on CPUs. With `_lazy` one turn has 16
iterations, with the path length penalty and R1.
"""

import contextlib
import sys
import types

import torch
from turns import take_turns

sys.path.insert(0, sys.argv[4])

from training import loss, networks

family, batch, precision, _ = sys.argv[1:]
assert precision == 'float32', 'the fp16 mode is not compared'
batch, lazy = int(batch), family.endswith('_lazy')
device = 'cuda' if torch.cuda.is_available() else 'cpu'
torch.manual_seed(0)
# `ddp_sync` acts only on several GPUs; reports go to no file.
loss.misc.ddp_sync = lambda *_: contextlib.nullcontext()
loss.training_stats = types.SimpleNamespace(report=lambda *_: None)
width = {'channel_base': 2048, 'channel_max': 512, 'conv_clamp': 256}
gen = networks.Generator(
  512, 0, 512, 64, 3, {'num_layers': 2}, {**width, 'num_fp16_res': 0}
)
disc = networks.Discriminator(
  0, 64, 3, **width, num_fp16_res=0, epilogue_kwargs={'mbstd_group_size': 4}
)
gen, disc = gen.to(device).train(), disc.to(device).train()
ema = [p.detach().clone() for p in gen.parameters()]
gen_tx, disc_tx = (
  torch.optim.Adam(net.parameters(), lr=2.5e-3, betas=(0.0, 0.99), eps=1e-8)
  for net in (gen, disc)
)
step_loss = loss.StyleGAN2Loss(
  device, gen.mapping, gen.synthesis, disc, r1_gamma=0.1
)
data = torch.randint(0, 256, (1024, 3, 64, 64), dtype=torch.uint8).to(device)
labels = torch.zeros(batch, 0, device=device)


def update(net, tx, phase, gain):
  real = data[torch.randint(0, len(data), (batch,), device=device)]
  real = real.float() / 127.5 - 1
  z = torch.randn(batch, 512, device=device)
  tx.zero_grad(set_to_none=True)
  net.requires_grad_(True)
  step_loss.accumulate_gradients(phase, real, labels, z, labels, True, gain)
  net.requires_grad_(False)
  tx.step()


def iteration(number):
  update(gen, gen_tx, 'Gmain', 1)
  if lazy and number % 4 == 0:
    update(gen, gen_tx, 'Greg', 4)
  update(disc, disc_tx, 'Dmain', 1)
  if lazy and number % 16 == 0:
    update(disc, disc_tx, 'Dreg', 16)
  with torch.no_grad():
    for mean, p in zip(ema, gen.parameters(), strict=True):
      mean.lerp_(p, 1e-3)


def run_iterations():
  for number in range(16 if lazy else 4):
    iteration(number)


def wait():
  if device == 'cuda':
    torch.cuda.synchronize()


gen.requires_grad_(False)
disc.requires_grad_(False)
take_turns(run_iterations, wait, batch * (16 if lazy else 4))
