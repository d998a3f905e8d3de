"""The page of a run of images: samples, curves, and a walk through its latents.

It only reads: nothing is written into the run's folder, and the process has the
lowest priority, so that it takes no time from a training in progress.
"""

import asyncio
import base64
import functools
import io
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree, UInt8
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gan_jax import config as cfg
from gan_jax import devices
from gan_jax.data.toys import has_points
from gan_jax.errors import UserError
from gan_jax.lab import interface
from gan_jax.lab.security import Guard
from gan_jax.lab.server import static_routes
from gan_jax.plots.grid import to_pil
from gan_jax.runs.run import Run, load
from gan_jax.training import checkpoint
from gan_jax.training.schedule import make_schedule

# Runs that stay open, one for each checkpoint of the time slider.
MAX_OPEN = 4
# The niceness of the process: the scheduler prefers all others.
NICENESS = 19
# Limits of a request: samples, steps of a walk, sliders, neighbours.
MAX_SAMPLES, MAX_STEPS, NUM_SLIDERS, MAX_NEIGHBORS = 64, 16, 6, 8
# Images that are generated at once.
ROWS = 24
# Bytes of metrics in one answer.
MAX_METRICS = 2**20
# Images are enlarged to at least this width, in pixels.
WIDTH = 64
SAMPLE = re.compile(r'[\w-]+\.png')


class Viewer:
  """Reads a run; each method answers one kind of request.

  Raises:
    UserError: `workdir` holds no run of images.
  """

  def __init__(self, workdir: Path):
    self.workdir = workdir
    self.config = cfg.read(workdir)
    if has_points(self.config):
      raise UserError(
        f'{workdir} is a run of a toy, which the lab does not open: open its '
        'samples and training.gif, or train it in the lab by --config'
      )
    self._schedule = make_schedule(self.config)
    self._open: OrderedDict[int, Run] = OrderedDict()
    # One computation at a time.
    self._lock = threading.Lock()

  def run(self, step: int | None) -> Run:
    """Opens a checkpoint; None: the newest."""
    steps = checkpoint.steps(self.workdir)
    if not steps:
      raise UserError('the run has no checkpoint yet: wait for the first')
    step = steps[-1] if step is None else step
    if step not in self._open:
      self._open[step] = load(self.workdir, step)
      while len(self._open) > MAX_OPEN:
        self._open.popitem(last=False)
    self._open.move_to_end(step)
    return self._open[step]

  def describe(self) -> dict[str, Any]:
    """Describes the run: its length, checkpoints, classes and latents."""
    schedule, config = self._schedule, self.config
    game = config.game
    return {
      'workdir': str(self.workdir),
      'source': config.data.get('source') or config.game.name,
      'resolution': config.data.resolution,
      'total_images': schedule.images(schedule.total_steps),
      'classes': config.data.get('classes', 0),
      'truncation': game.get('latent') == 'gaussian',
      'latents': 'latent' in game,
      'sliders': NUM_SLIDERS,
      'checkpoints': [
        {'step': step, 'images': schedule.images(step)}
        for step in checkpoint.steps(self.workdir)
      ],
      'samples': self.samples(),
    }

  def samples(self) -> list[str]:
    """Lists the sample grids, the oldest first."""
    folder = self.workdir / 'samples'
    names = [path.name for path in folder.glob('*.png') if path.is_file()]
    return sorted(name for name in names if SAMPLE.fullmatch(name))

  def sample_file(self, name: str) -> bytes | None:
    """Reads a sample grid; None: there is none of this name."""
    if name not in self.samples():
      return None
    return (self.workdir / 'samples' / name).read_bytes()

  def metrics(self, offset: int) -> dict[str, Any]:
    """Reads whole lines of metrics from a byte on."""
    path, rows = self.workdir / 'metrics.jsonl', []
    if not path.is_file() or offset > path.stat().st_size:
      return {'rows': [], 'offset': 0}
    with path.open('rb') as file:
      file.seek(offset)
      text = file.read(MAX_METRICS)
    end = text.rfind(b'\n') + 1
    for line in text[:end].splitlines():
      try:
        rows.append(json.loads(line, parse_constant=lambda name: None))
      except ValueError:
        continue  # the file was rewritten meanwhile
    return {'rows': rows, 'offset': offset + end}

  def grid(
    self,
    step: int | None,
    n: int,
    seed: int,
    truncation: float | None,
    label: int | None,
  ) -> list[str]:
    """Generates samples, each as a PNG in base64."""
    run = self.run(step)
    inputs = run.inputs(n, seed, truncation, label)
    return [encode(image) for image in images_of(run, inputs)]

  def walk(
    self,
    step: int | None,
    ends: tuple[int, int],
    count: int,
    seed: int,
    truncation: float | None,
    label: int | None,
  ) -> list[str]:
    """Generates images from one sample of `grid` to another."""
    run = self.run(step)
    inputs = run.inputs(max(ends) + 1, seed, truncation, label)
    a, b = (
      jax.tree.map(lambda x, i=i: jnp.repeat(x[i : i + 1], count, 0), inputs)
      for i in ends
    )
    between = interface.between(run, a, b, jnp.linspace(0.0, 1.0, count))
    return [encode(image) for image in images_of(run, between)]

  def move(
    self,
    step: int | None,
    index: int,
    moves: list[float],
    seed: int,
    truncation: float | None,
    label: int | None,
  ) -> list[str]:
    """Moves one sample of `grid` along fixed orthogonal directions."""
    run = self.run(step)
    inputs = run.inputs(index + 1, seed, truncation, label)
    inputs = jax.tree.map(lambda x: x[index : index + 1], inputs)
    if not isinstance(inputs, dict) or 'z' not in inputs:
      raise UserError('this game has no latents to move')
    z = inputs['z']
    moved = z + jnp.asarray([moves]) @ directions(z.shape[1], len(moves))
    return [encode(images_of(run, {**inputs, 'z': moved})[0])]

  def nearest(self, step: int | None, n: int, seed: int, k: int) -> list[str]:
    """Shows samples beside their nearest training images, as one picture."""
    picture = self.run(step).nearest(n, seed, k, features='pixels')
    return [_png(picture)]

  def locked(self, function: Callable[..., Any], *args: Any) -> Any:
    """Calls one function at a time."""
    with self._lock:
      return function(*args)


def images_of(run: Run, inputs: PyTree) -> UInt8[np.ndarray, 'n h w c']:
  """Generates images in batches of one size, so that one program suffices."""
  count = len(jax.tree.leaves(inputs)[0])
  rows = np.minimum(np.arange(-(-count // ROWS) * ROWS), count - 1)
  padded = jax.tree.map(lambda x: x[rows], inputs)
  parts = [
    run.generate(jax.tree.map(lambda x, i=i: x[i : i + ROWS], padded))
    for i in range(0, len(rows), ROWS)
  ]
  return np.concatenate(parts)[:count]


@functools.cache
def directions(dim: int, count: int) -> Float[np.ndarray, 'count dim']:
  """Returns random orthogonal directions of length 1, always the same."""
  random = np.random.default_rng(0).standard_normal((dim, min(count, dim)))
  rows = np.linalg.qr(random)[0].T
  missing = np.zeros((count - len(rows), dim))
  return np.concatenate([rows, missing]).astype(np.float32)


def encode(image: UInt8[np.ndarray, 'h w c']) -> str:
  """Encodes an image as a PNG in base64; small ones are enlarged."""
  factor = max(1, WIDTH // image.shape[1])
  return _png(to_pil(image.repeat(factor, 0).repeat(factor, 1)))


def _png(picture: Image.Image) -> str:
  buffer = io.BytesIO()
  picture.save(buffer, 'PNG')
  return base64.b64encode(buffer.getvalue()).decode()


class Query:
  """The parameters of a request, within limits."""

  def __init__(self, request: Request):
    self._values = request.query_params

  def integer(
    self, name: str, default: int | None, high: int, low: int = 0
  ) -> int | None:
    """Returns an integer parameter.

    Raises:
      UserError: It is not an integer from `low` to `high`.
    """
    text = self._values.get(name, '')
    if not text:
      return default
    if not re.fullmatch(r'\d{1,12}', text) or not low <= int(text) <= high:
      raise UserError(f'{name} must be an integer from {low} to {high}')
    return int(text)

  def number(self, name: str) -> float | None:
    """Returns a number, from -100 to 100."""
    text = self._values.get(name, '')
    if not text:
      return None
    if not re.fullmatch(r'-?\d{0,3}(\.\d{0,12})?', text) or not any(
      character.isdigit() for character in text
    ):
      raise UserError(f'{name} must be a number from -100 to 100')
    return float(text)

  def common(self) -> tuple[int, float | None, int | None]:
    """Returns the seed, the truncation and the label."""
    return (
      self.integer('seed', 0, 2**31 - 1),
      self.number('truncation'),
      self.integer('label', None, 2**20),
    )


def answer(viewer: Viewer, name: str, query: Query) -> list[str]:
  """Makes the images of one request of the page."""
  step = query.integer('step', None, 2**31)
  seed, truncation, label = query.common()
  if name == 'grid':
    n = query.integer('n', 16, MAX_SAMPLES, 1)
    return viewer.grid(step, n, seed, truncation, label)
  if name == 'walk':
    ends = (
      query.integer('a', 0, MAX_SAMPLES),
      query.integer('b', 1, MAX_SAMPLES),
    )
    count = query.integer('count', 9, MAX_STEPS, 2)
    return viewer.walk(step, ends, count, seed, truncation, label)
  if name == 'move':
    index = query.integer('a', 0, MAX_SAMPLES)
    moves = [query.number(f'd{i}') or 0.0 for i in range(NUM_SLIDERS)]
    return viewer.move(step, index, moves, seed, truncation, label)
  n = query.integer('n', 6, MAX_NEIGHBORS, 1)
  return viewer.nearest(step, n, seed, query.integer('k', 4, MAX_NEIGHBORS, 1))


def open_run(workdir: str | Path, token: str, hosts: list[str]) -> Guard:
  """Makes the application that shows a run.

  It uses the CPU only, at the lowest priority: accelerators belong to training.

  Raises:
    UserError: The workdir holds no run of images on this machine.
  """
  devices.use_cpu_only()
  if hasattr(os, 'nice'):
    os.nice(NICENESS)
  return make_app(Viewer(Path(workdir)), token, hosts)


def make_app(viewer: Viewer, token: str, hosts: list[str]) -> Guard:
  """Makes the application around a viewer."""

  async def describe(request: Request) -> Response:
    return JSONResponse(await asyncio.to_thread(viewer.describe))

  async def metrics(request: Request) -> Response:
    offset = Query(request).integer('offset', 0, 2**50)
    return JSONResponse(await asyncio.to_thread(viewer.metrics, offset))

  async def sample(request: Request) -> Response:
    name = request.path_params['name']
    raw = await asyncio.to_thread(viewer.sample_file, name)
    if raw is None:
      return JSONResponse({'error': 'there is no such file'}, 404)
    return Response(raw, media_type='image/png')

  async def images(request: Request) -> Response:
    name = request.path_params['name']
    if name not in ('grid', 'walk', 'move', 'nearest'):
      return JSONResponse({'error': 'there is no such page'}, 404)
    make = functools.partial(answer, viewer, name, Query(request))
    return JSONResponse(
      {'images': await asyncio.to_thread(viewer.locked, make)}
    )

  async def user_error(request: Request, error: Exception) -> Response:
    return JSONResponse({'error': str(error)}, 400)

  app = Starlette(
    routes=[
      *static_routes('run.html'),
      Route('/describe', describe),
      Route('/metrics', metrics),
      Route('/samples/{name}', sample),
      Route('/images/{name}', images),
    ],
    exception_handlers={UserError: user_error},
  )
  return Guard(app, token, hosts)
