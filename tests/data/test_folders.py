"""Pictures in folders: what is read, in which order and size, and what is refused in one line."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from qkd_qiskit import Data, DataSpec, load_data
from qkd_qiskit.data.folders import folder_digest, read_folder
from qkd_qiskit.errors import DataError, RecipeError


def picture(seed, *, shape=(6, 4, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder, count, *, shape=(6, 4, 3), seed=0, ending="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(picture(seed + number, shape=shape)).save(folder / f"{number}.{ending}")


@pytest.fixture
def root(tmp_path):
    """Two classes of nine colour pictures of 6x4 pixels."""
    write(tmp_path / "cats", 9)
    write(tmp_path / "dogs", 9, seed=100)
    return tmp_path


def test_pixels_and_classes_are_those_of_the_files(root):
    source = read_folder(root)
    assert source.images.dtype == np.uint8  # a byte each, not four
    assert source.images.shape == (18, 3, 6, 4)
    assert source.class_names == ("cats", "dogs")
    np.testing.assert_array_equal(source.images[2], picture(2).transpose(2, 0, 1))
    np.testing.assert_array_equal(source.images[9], picture(100).transpose(2, 0, 1))
    assert source.labels.tolist() == [0] * 9 + [1] * 9
    assert source.test is None


def test_data_is_floats_of_a_third_held_out(root):
    data = Data.from_folder(root, seed=3)
    assert data.image_shape == (3, 6, 4)
    assert [len(part) for part in (data.pool, data.validation, data.test)] == [10, 2, 6]
    everything = torch.cat([data.pool.images, data.validation.images, data.test.images])
    assert everything.dtype == torch.float32
    expected = read_folder(root).images.astype(np.float32) / np.float32(255)
    kept = {image.tobytes() for image in everything.numpy()}
    assert kept == {image.tobytes() for image in expected}
    spec = DataSpec(name="folder", root=str(root))
    assert load_data(spec, seed=3).fingerprint == data.fingerprint
    assert data.name == root.name


def test_splits_of_its_own(tmp_path):
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        for number, name in enumerate(("b", "a")):
            write(tmp_path / split / name, count, seed=10 * number)
    data = Data.from_folder(tmp_path)
    assert data.class_names == ("a", "b")
    assert [len(part) for part in (data.pool, data.validation, data.test)] == [10, 4, 6]
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("layout", ["classes", "splits"])
def test_pictures_of_no_known_class(layout, tmp_path):
    parts = ("",) if layout == "classes" else ("train", "test")
    for number, name in enumerate(("cats", "dogs")):
        for part in parts:
            write(tmp_path / part / name, 9, seed=100 * number)
    before = Data.from_folder(tmp_path)
    digest = folder_digest(tmp_path)
    write(tmp_path / "unlabelled", 5, seed=300)
    data = Data.from_folder(tmp_path)
    assert data.class_names == ("cats", "dogs")
    assert data.pool.fingerprint == before.pool.fingerprint
    assert before.unlabelled is None
    expected = torch.from_numpy(picture(302).transpose(2, 0, 1).astype(np.float32)) / 255
    assert data.unlabelled.shape == (5, 3, 6, 4)
    assert torch.equal(data.unlabelled[2], expected)
    assert folder_digest(tmp_path) != digest
    read_folder(tmp_path, digest=folder_digest(tmp_path))
    shutil.rmtree(tmp_path / "unlabelled")
    (tmp_path / "unlabelled" / "inner").mkdir(parents=True)
    with pytest.raises(DataError, match=r"unlabelled holds no pictures \(\.png"):
        read_folder(tmp_path)


def test_numbers_are_classes_in_their_order(tmp_path):
    for name in ("10", "2", "1"):
        write(tmp_path / name, 4)
    assert read_folder(tmp_path).class_names == ("1", "2", "10")
    data = load_data(DataSpec(name="folder", root=str(tmp_path), classes=(10, 1)))
    assert data.class_names == ("10", "1")


def test_sizes_are_brought_to_one_with_the_middle_cut_out(tmp_path):
    # Halves of black and white: the middle of the wide one is half of each.
    wide = np.zeros((8, 16), np.uint8)
    wide[:, 8:] = 255
    tall = np.full((32, 16), 7, np.uint8)
    for name, pixels in (("a", wide), ("b", tall)):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    source = read_folder(tmp_path, size=(4, 4))
    assert source.images.shape == (6, 1, 4, 4)
    assert source.images[0, 0, :, 0].max() == 0
    assert source.images[0, 0, :, 3].min() == 255
    assert (source.images[3] == 7).all()
    with pytest.raises(DataError, match=r"a/0\.png is 8x16, .*b/0\.png 32x16; give data\.size"):
        read_folder(tmp_path)


def test_grey_where_all_are_and_colour_where_one_is(tmp_path):
    write(tmp_path / "a", 3, shape=(4, 4))
    write(tmp_path / "b", 3, shape=(4, 4))
    assert read_folder(tmp_path).images.shape[1] == 1
    assert read_folder(tmp_path, channels="rgb").images.shape[1] == 3
    write(tmp_path / "b", 1, shape=(4, 4, 3))
    coloured = read_folder(tmp_path)
    assert coloured.images.shape[1] == 3
    grey = read_folder(tmp_path, channels="grey").images[3, 0].astype(float)
    weights = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, as Pillow converts
    np.testing.assert_allclose(grey, picture(0, shape=(4, 4, 3)) @ weights, atol=1)


def test_pictures_of_cameras_are_turned_and_palettes_read(tmp_path):
    pixels = picture(5, shape=(2, 5, 3))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        turned, exif = Image.fromarray(pixels), Image.Exif()
        exif[0x0112] = 6  # to be looked at after a quarter turn to the right
        turned.save(tmp_path / name / "turned.png", exif=exif)
        upright = Image.fromarray(np.rot90(pixels, 3).copy()).quantize(16)
        upright.save(tmp_path / name / "palette.gif")
    source = read_folder(tmp_path)
    assert source.images.shape == (4, 3, 5, 2)
    np.testing.assert_array_equal(source.images[1].transpose(1, 2, 0), np.rot90(pixels, 3))


def test_scale_is_of_each_channel(root):
    data = Data.from_folder(root, scale="standard")
    pixels = data.pool.images.double()
    torch.testing.assert_close(
        pixels.mean(dim=(0, 2, 3)), torch.zeros(3).double(), atol=1e-6, rtol=0
    )
    spread = pixels.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(spread, torch.ones(3).double(), atol=1e-6, rtol=0)


def test_a_changed_picture_is_seen(root):
    digest = folder_digest(root)
    read_folder(root, digest=digest)
    Image.fromarray(picture(7)).save(root / "cats" / "0.png")
    with pytest.raises(DataError, match=r"have changed since the run began \(data\.digest\)"):
        read_folder(root, digest=digest)
    assert folder_digest(root) != digest


def empty_class(root):
    (root / "fish").mkdir()


def one_class(root):
    for path in (root / "dogs").iterdir():
        path.unlink()
    (root / "dogs").rmdir()


def no_picture(root):
    (root / "cats" / "3.png").write_text("no picture")


def cut_short(root):
    path = root / "dogs" / "8.png"
    path.write_bytes(path.read_bytes()[:60])


def deep_pixels(root):
    Image.fromarray(np.zeros((6, 4), np.uint16)).save(root / "dogs" / "0.png")


def other_test_classes(root):
    for name in ("cats", "dogs", "fish"):
        write(root / "train" / name, 2)
    for name in ("cats", "fish"):
        write(root / "test" / name, 2)
    for name in ("cats", "dogs"):
        shutil.rmtree(root / name)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (empty_class, r"fish holds no pictures \(\.png, .*; fill or remove it"),
        (one_class, r"holds one class, 'cats'; give a folder for each of two or more"),
        (no_picture, r"cats/3\.png cannot be read as a picture \(cannot identify image file"),
        (cut_short, r"dogs/8\.png cannot be read as a picture"),
        (deep_pixels, r"dogs/0\.png has pixels of more than 8 bits \(mode I(;16)?\)"),
        (other_test_classes, r"test has no class 'dogs', .*train has it; give folders of the same"),
    ],
)
def test_what_cannot_be_read_is_one_line(root, spoil, line):
    spoil(root)
    with pytest.raises(DataError, match=line) as refused:
        read_folder(root)
    assert "\n" not in str(refused.value)


def test_no_folders(tmp_path):
    with pytest.raises(DataError, match=r"missing cannot be read: No such file or directory; give"):
        read_folder(tmp_path / "missing")
    with pytest.raises(DataError, match=r"holds no folders; give ROOT/CLASS/\*\.png"):
        read_folder(tmp_path)
    Image.fromarray(picture(0)).save(tmp_path / "0.png")
    with pytest.raises(DataError, match="holds pictures and no folders"):
        read_folder(tmp_path)


def test_files_that_are_no_pictures_are_passed_over_and_said(root, caplog):
    (root / "cats" / "notes.txt").write_text("a note")
    (root / "cats" / ".hidden.png").write_text("")
    assert len(read_folder(root).images) == 18
    assert "1 files that are no pictures by their ending are passed over" in caplog.text


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"name": "folder"}, r"data\.root: None is not accepted; give the folder with a folder"),
        ({"size": (1, 2, 3)}, r"data\.size: .* give one whole number, or \[height, width\]"),
        ({"size": 0}, r"data\.size: 0 is not accepted"),
    ],
)
def test_specifications(values, line):
    with pytest.raises(RecipeError, match=line):
        DataSpec(**values)


def test_size_and_channels_of_any_data_set():
    plain = load_data(DataSpec(name="digits"))
    large = load_data(DataSpec(name="digits", size=(16, 12), channels="rgb"))
    assert large.image_shape == (3, 16, 12)
    torch.testing.assert_close(large.pool.images[:, 0], large.pool.images[:, 2])
    assert torch.equal(large.pool.labels, plain.pool.labels)
    vectors = np.random.default_rng(0).random((12, 5)).astype(np.float32)
    data = Data.from_arrays(vectors, np.arange(12) % 2)
    with pytest.raises(DataError, match="holds feature vectors, no images"):
        data.through(torch.nn.Flatten())
