"""Reading of runs that map images to images: arrays, tiles, folders."""

from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from runs import get_config

import gan_jax
from gan_jax.errors import UserError
from gan_jax.games.game import Output
from gan_jax.metrics import paired
from gan_jax.modes.apply import apply
from gan_jax.ops.pixels import to_uint8
from gan_jax.runs.translate import apply_to_folder, translate
from gan_jax.runs.upscale import TILE, upscale, upscale_scores
from gan_jax.training import loop


def blur_and_double(images):
  """Means of 5x5 pixels, with zeros beyond the border; then twice as large."""
  padded = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
  height, width = images.shape[1:3]
  shifted = [
    padded[:, i : i + height, j : j + width] for i in range(5) for j in range(5)
  ]
  return (sum(shifted) / 25).repeat(2, 1).repeat(2, 2)


def fake_run(functions, scale=1, channels=1, resolution=8):
  """A run whose outputs, by the set that they translate to, are functions."""
  outputs = {
    f'to_{name}': Output(
      sample=lambda variables, inputs, phase, f=function: f(inputs['images']),
      reference=name,
      inputs_of=lambda images, keys: {'images': images, 'keys': keys},
      scale=scale,
    )
    for name, function in functions.items()
  }
  first = next(iter(outputs))

  def generate(inputs, output=first):
    return to_uint8(outputs[output].sample({}, inputs, None))

  data = {'channels': channels, 'resolution': resolution, 'crop': None}
  return SimpleNamespace(
    workdir='runs/fake', outputs=outputs, main_output=outputs[first],
    generate=generate, has_points=False, config=ConfigDict({'data': data}),
  )  # fmt: skip


@pytest.fixture
def enlarging():
  return fake_run({'images': blur_and_double}, scale=2)


def noise(*shape):
  return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize('size', [(40, 56), (16, 100), (61, 43), (5, 3)])
def test_tiles_are_seamless(enlarging, size):
  """With an overlap of the receptive field, as if enlarged at once."""
  image = noise(*size, 1)
  extended = np.pad(
    image, ((0, -size[0] % 4), (0, -size[1] % 4), (0, 0)), mode='edge'
  )
  once = np.float32(extended[None]) / 127.5 - 1
  expected = to_uint8(blur_and_double(once))[0, : 2 * size[0], : 2 * size[1]]
  for tiles in ({'tile': 16, 'overlap': 2}, {}):
    made = upscale(enlarging, image, **tiles)
    # (A value between two bytes may round either way.)
    np.testing.assert_allclose(made.astype(int), expected, atol=1)
    assert (made != expected).mean() < 0.01


def test_an_overlap_that_is_too_small_shows(enlarging):
  image = noise(40, 40, 1)
  whole = upscale(enlarging, image).astype(int)
  made = upscale(enlarging, image, tile=16, overlap=0)
  assert abs(made - whole).max() > 10


def test_pictures_and_photographs(enlarging):
  picture = Image.fromarray(noise(9, 7, 3))
  assert upscale(enlarging, picture).shape == (18, 14, 1)
  assert upscale(enlarging, noise(TILE + 300, 10, 1)).shape[0] == 2 * TILE + 600


def test_scores_of_whole_images(enlarging, tmp_path):
  """Cropped to even sides; the bicubic baseline by its own functions."""
  picture = Image.fromarray(noise(41, 30, 1)[..., 0]).resize((41, 30))
  picture.save(tmp_path / 'one.png')
  (tmp_path / 'broken.png').write_bytes(b'\x89PNG')
  table = upscale_scores(enlarging, tmp_path)
  assert list(table.index) == ['one.png', 'mean']
  target = np.asarray(picture)[None, :30, :40, None]
  assert table.psnr['one.png'] < table.bicubic_psnr['one.png']  # it blurs
  assert 5 < table.bicubic_psnr['mean'] < 40
  assert target.shape == (1, 30, 40, 1)
  assert paired.psnr(target, target)[0] == np.inf


def test_translation_by_name():
  run = fake_run({'b': lambda x: -x, 'a': lambda x: x})
  images = noise(20, 6, 8, 1)
  np.testing.assert_array_equal(translate(run, images), 255 - images)
  np.testing.assert_array_equal(translate(run, images, to='a'), images)
  with pytest.raises(UserError, match="to='c': this run translates to='b' or"):
    translate(run, images, to='c')
  for wrong in (images.astype(float), images[0], images[..., [0, 0]]):
    with pytest.raises(UserError, match='expected images uint8'):
      translate(run, wrong)
  with pytest.raises(UserError, match='does not enlarge'):
    upscale(run, images[0])


def test_a_folder(tmp_path, capsys):
  """PNG files of the same paths; unreadable files are named and skipped."""
  run, source, output = fake_run({'b': lambda x: -x}), *_folders(tmp_path)
  apply_to_folder(run, source, output)
  assert 'broken.png' in capsys.readouterr().err
  made = sorted(p.relative_to(output).as_posix() for p in output.rglob('*.*'))
  assert made == ['deep/2.png', 'one.png']
  with Image.open(output / 'one.png') as image:
    assert np.asarray(image).mean() == 205
    assert image.size == (8, 8)  # the run's resolution
  # Nothing is overwritten without the flag.
  (output / 'one.png').write_bytes(b'mine')
  with pytest.raises(UserError, match=r'2 files exist .*--overwrite'):
    apply_to_folder(run, source, output)
  assert (output / 'one.png').read_bytes() == b'mine'
  apply_to_folder(run, source, output, overwrite=True)
  assert (output / 'one.png').read_bytes() != b'mine'


def test_photographs_and_grey_files(tmp_path):
  """Of any size and mode, by a run of RGB: what training would see of them."""
  (tmp_path / 'in').mkdir()
  # 16 bits, grey with transparency, a palette, and one pixel.
  grey = Image.new('LA', (5, 4), (0, 0))
  modes = {
    'photo.jpg': Image.new('RGB', (4000, 3000), (200, 100, 50)),
    'grey.png': Image.new('L', (50, 40), 90),
    'deep.png': Image.new('I;16', (9, 9), 90 * 256),
    'clear.png': grey,
    'palette.gif': Image.new('P', (30, 20)),
    'one.bmp': Image.new('RGB', (1, 1), (9, 9, 9)),
  }
  for name, image in modes.items():
    image.save(tmp_path / 'in' / name, quality=100)
  run = fake_run({'b': lambda x: -x}, channels=3)
  apply_to_folder(run, tmp_path / 'in', tmp_path / 'out')
  found = {}
  for path in (tmp_path / 'out').iterdir():
    with Image.open(path) as image:
      assert image.size == (8, 8)
      found[path.stem] = tuple(np.asarray(image.convert('RGB'))[3, 3])
  np.testing.assert_allclose(found.pop('photo'), (55, 155, 205), atol=3)
  assert {name: rgb[0] for name, rgb in found.items()} == {
    'grey': 165, 'deep': 165, 'clear': 0, 'palette': 255, 'one': 246,
  }  # fmt: skip
  assert all(len({*rgb}) == 1 for rgb in found.values())


def _folders(tmp_path: Path):
  source = tmp_path / 'in'
  (source / 'deep').mkdir(parents=True)
  Image.new('L', (12, 10), 50).save(source / 'one.jpg', quality=100)
  Image.new('L', (30, 10), 90).save(source / 'deep' / '2.bmp')
  (source / 'broken.png').write_bytes(b'\x89PNG')
  return source, tmp_path / 'out'


def test_super_resolution_of_a_folder_keeps_the_sizes(enlarging, tmp_path):
  source, output = _folders(tmp_path)
  apply_to_folder(enlarging, source, output)
  with Image.open(output / 'deep' / '2.png') as image:
    assert image.size == (60, 20)


def test_errors_of_folders(enlarging, tmp_path):
  with pytest.raises(UserError, match='has no images'):
    apply_to_folder(enlarging, tmp_path, tmp_path / 'out')
  source, output = _folders(tmp_path)
  Image.new('L', (4, 4)).save(source / 'one.png')
  with pytest.raises(UserError, match='same name without the suffix'):
    apply_to_folder(enlarging, source, output)
  with pytest.raises(UserError, match='needs --input=FOLDER and --output'):
    apply(tmp_path)


@pytest.mark.slow
def test_runs_of_both_kinds(tmp_path):
  """A trained CycleGAN translates both ways; SRGAN enlarges."""
  for name in ('cyclegan_folder', 'srgan_folder'):
    loop.train(get_config(name, 'tiny'), tmp_path / name)
  run = gan_jax.load(tmp_path / 'cyclegan_folder')
  images = noise(3, 16, 20, 1)
  to_b, to_a = (run.translate(images, to=name) for name in 'ba')
  assert to_b.shape == to_a.shape == images.shape
  assert (to_a != to_b).any()
  run = gan_jax.load(tmp_path / 'srgan_folder')
  image = noise(70, 45, 1)
  whole = run.upscale(image)
  assert whole.shape == (140, 90, 1)
  tiled = run.upscale(image, tile=32, overlap=12)
  assert abs(whole.astype(int) - tiled).max() <= 1
  source, output = _folders(tmp_path)
  apply(tmp_path / 'srgan_folder', input=str(source), output=str(output))
  with Image.open(output / 'one.png') as made:
    assert made.size == (24, 20)
