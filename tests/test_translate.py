"""Tests of applying image-to-image runs to arrays, tiles and folders."""

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
  """Averages 5x5 pixels, with zero padding, and doubles the size."""
  padded = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
  height, width = images.shape[1:3]
  shifted = [
    padded[:, i : i + height, j : j + width] for i in range(5) for j in range(5)
  ]
  return (sum(shifted) / 25).repeat(2, 1).repeat(2, 2)


def fake_run(functions, scale=1, channels=1, resolution=8):
  """Returns a run whose outputs are functions, named by their target set."""
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
def upscaling_run():
  return fake_run({'images': blur_and_double}, scale=2)


def noise(*shape):
  return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize('size', [(40, 56), (16, 100), (61, 43), (5, 3)])
def test_upscaling_by_tiles_is_seamless(upscaling_run, size):
  """With an overlap of the receptive field, the whole image is reproduced."""
  image = noise(*size, 1)
  extended = np.pad(
    image, ((0, -size[0] % 4), (0, -size[1] % 4), (0, 0)), mode='edge'
  )
  once = np.float32(extended[None]) / 127.5 - 1
  expected = to_uint8(blur_and_double(once))[0, : 2 * size[0], : 2 * size[1]]
  for tiles in ({'tile': 16, 'overlap': 2}, {}):
    upscaled = upscale(upscaling_run, image, **tiles)
    # (A value between two bytes may round either way.)
    np.testing.assert_allclose(upscaled.astype(int), expected, atol=1)
    assert (upscaled != expected).mean() < 0.01


def test_too_small_overlap_gives_seams(upscaling_run):
  image = noise(40, 40, 1)
  whole = upscale(upscaling_run, image).astype(int)
  tiled = upscale(upscaling_run, image, tile=16, overlap=0)
  assert abs(tiled - whole).max() > 10


def test_upscale_takes_pil_images_and_large_images(upscaling_run):
  picture = Image.fromarray(noise(9, 7, 3))
  assert upscale(upscaling_run, picture).shape == (18, 14, 1)
  assert (
    upscale(upscaling_run, noise(TILE + 300, 10, 1)).shape[0] == 2 * TILE + 600
  )


def test_upscale_scores_of_a_folder(upscaling_run, tmp_path):
  """Images are cropped to even sides; the baseline is bicubic."""
  picture = Image.fromarray(noise(41, 30, 1)[..., 0]).resize((41, 30))
  picture.save(tmp_path / 'one.png')
  (tmp_path / 'broken.png').write_bytes(b'\x89PNG')
  table = upscale_scores(upscaling_run, tmp_path)
  assert list(table.index) == ['one.png', 'mean']
  target = np.asarray(picture)[None, :30, :40, None]
  assert table.psnr['one.png'] < table.bicubic_psnr['one.png']  # it blurs
  assert 5 < table.bicubic_psnr['mean'] < 40
  assert target.shape == (1, 30, 40, 1)
  assert paired.psnr(target, target)[0] == np.inf


def test_translate_selects_the_output_by_name():
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


def test_apply_to_folder_writes_pngs(tmp_path, capsys):
  """Paths are kept; unreadable files are reported and skipped."""
  run, source, output = fake_run({'b': lambda x: -x}), *_folders(tmp_path)
  apply_to_folder(run, source, output)
  assert 'broken.png' in capsys.readouterr().err
  names = sorted(p.relative_to(output).as_posix() for p in output.rglob('*.*'))
  assert names == ['deep/2.png', 'one.png']
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


def test_apply_to_folder_preprocesses_as_training_does(tmp_path):
  """Files of any size and mode, for a run of RGB images."""
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


def test_super_resolution_of_a_folder_scales_each_size(upscaling_run, tmp_path):
  source, output = _folders(tmp_path)
  apply_to_folder(upscaling_run, source, output)
  with Image.open(output / 'deep' / '2.png') as image:
    assert image.size == (60, 20)


def test_invalid_folders_raise(upscaling_run, tmp_path):
  with pytest.raises(UserError, match='has no images'):
    apply_to_folder(upscaling_run, tmp_path, tmp_path / 'out')
  source, output = _folders(tmp_path)
  Image.new('L', (4, 4)).save(source / 'one.png')
  with pytest.raises(UserError, match='same name without the suffix'):
    apply_to_folder(upscaling_run, source, output)
  with pytest.raises(UserError, match='needs --input=FOLDER and --output'):
    apply(tmp_path)


@pytest.mark.slow
def test_trained_runs_translate_and_upscale(tmp_path):
  """CycleGAN translates both ways; SRGAN enlarges."""
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
  with Image.open(output / 'one.png') as written:
    assert written.size == (24, 20)
