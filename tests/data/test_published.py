"""The readers of CIFAR-10-C and CIFAR-10.1 on small files of the same format, and on damaged ones."""

import re

import numpy as np
import pytest
import torch

from cifar10.data.corruptions import CORRUPTIONS
from cifar10.data.corruptions.published import PUBLISHED_CORRUPTIONS, available_cifar10c, load_cifar10c
from cifar10.data.sources.cifar101 import CIFAR101
from cifar10.errors import UserError

COUNT = 4  # images of a severity


def random_images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def cifar10c(tmp_path):
    """A root with two of the files."""
    np.save(tmp_path / "fog.npy", random_images(5 * COUNT))
    np.save(tmp_path / "frost.npy", random_images(5 * COUNT, seed=1))
    np.save(tmp_path / "labels.npy", np.tile(np.array([9, 0, 3, 3], np.uint8), 5))
    return tmp_path


@pytest.fixture
def cifar101(tmp_path):
    for version, count in (("v6", 6), ("v4", 7)):
        np.save(tmp_path / f"cifar10.1_{version}_data.npy", random_images(count))
        np.save(tmp_path / f"cifar10.1_{version}_labels.npy", np.arange(count, dtype=np.int32))
    return tmp_path


def load(name, root):
    """The images and labels of one of the two data sets."""
    return load_cifar10c(root, "fog", 2) if name == "cifar10c" else CIFAR101(root).load("test")


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_a_severity_is_its_fifth_of_the_file(cifar10c, severity):
    images, labels = load_cifar10c(cifar10c, "fog", severity)
    part = random_images(5 * COUNT)[(severity - 1) * COUNT : severity * COUNT]
    assert images.dtype == torch.uint8 and images.is_contiguous() and labels.dtype == torch.int64
    assert torch.equal(images, torch.from_numpy(part).permute(0, 3, 1, 2))
    assert labels.tolist() == [9, 0, 3, 3]


def test_what_was_read_is_a_copy_that_may_be_written_to(cifar10c):
    images, labels = load_cifar10c(cifar10c, "fog", 1)
    images.zero_()
    labels.zero_()
    again, labels_again = load_cifar10c(cifar10c, "fog", 1)
    assert again.any() and labels_again.any()


@pytest.mark.parametrize("severity", [0, 6])
def test_a_severity_outside_1_to_5_is_refused(cifar10c, severity):
    with pytest.raises(ValueError, match=r"^severity="):
        load_cifar10c(cifar10c, "fog", severity)


def test_files_are_found_in_the_papers_order(cifar10c):
    assert available_cifar10c(cifar10c) == ["frost", "fog"]
    for name in ("saturate", "gaussian_noise", "unheard_of"):
        np.save(cifar10c / f"{name}.npy", random_images(5))
    assert available_cifar10c(str(cifar10c)) == ["gaussian_noise", "frost", "fog", "saturate"]


def test_the_published_corruptions_are_the_computed_ones_frost_and_four_more():
    assert [name for name in CORRUPTIONS if name in PUBLISHED_CORRUPTIONS[:15]] == [
        name for name in PUBLISHED_CORRUPTIONS[:15] if name != "frost"
    ]
    assert len(set(PUBLISHED_CORRUPTIONS)) == 19


@pytest.mark.promise("bad inputs")
def test_a_folder_without_the_files_is_told_where_to_get_them(tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="zenodo record 2535967") as error:
            available_cifar10c(root)
        assert str(root) in str(error.value)


@pytest.mark.parametrize(("version", "count"), [("v6", 6), ("v4", 7)])
def test_cifar101_is_read_whole_in_either_version(cifar101, version, count):
    images, labels = CIFAR101(cifar101, version).load("test")
    assert torch.equal(images, torch.from_numpy(random_images(count)).permute(0, 3, 1, 2))
    assert images.is_contiguous() and labels.dtype == torch.int64 and labels.tolist() == list(range(count))


IMAGE_FILES = {"cifar10c": "fog.npy", "cifar101": "cifar10.1_v6_data.npy"}
LABEL_FILES = {"cifar10c": "labels.npy", "cifar101": "cifar10.1_v6_labels.npy"}
both = pytest.mark.parametrize("name", ["cifar10c", "cifar101"])


def assert_refused(name, root, file, reason=""):
    with pytest.raises(UserError, match=re.escape(str(root / file))) as error:
        load(name, root)
    assert "\n" not in str(error.value) and re.search(reason, str(error.value))


@both
@pytest.mark.parametrize("files", [IMAGE_FILES, LABEL_FILES], ids=["images", "labels"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "pickled", "zipped", "code"])
@pytest.mark.promise("bad inputs")
def test_a_damaged_file_is_named(name, files, damage, request, tmp_path):
    root, file = request.getfixturevalue(name), files[name]
    path, content = root / file, np.load(root / file)
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "text":
        path.write_text("<html>not found</html>\n")
    elif damage == "pickled":
        np.save(path, content.astype(object), allow_pickle=True)
    elif damage == "zipped":
        with path.open("wb") as into:
            np.savez(into, content)
    else:
        path.write_bytes(b"cos\nmkdir\n(V" + str(tmp_path / "executed").encode() + b"\ntR.")  # a pickle that makes it
    assert_refused(name, root, file)
    assert not (tmp_path / "executed").exists()


@both
@pytest.mark.parametrize("change", [
    lambda images: images.astype(np.float32),
    lambda images: images.transpose(0, 3, 1, 2),
    lambda images: images[..., 0],
    lambda images: images[:, :28, :28],
    lambda images: images[:0],
], ids=["float", "channels first", "grey", "small", "none"])  # fmt: skip
@pytest.mark.promise("bad inputs")
def test_images_of_another_shape_or_type_are_refused(name, change, request):
    root, file = request.getfixturevalue(name), IMAGE_FILES[name]
    np.save(root / file, np.ascontiguousarray(change(np.load(root / file))))
    assert_refused(name, root, file)


@both
@pytest.mark.parametrize("change", [
    lambda labels: labels.astype(float),
    lambda labels: labels[:, None],
    lambda labels: np.where(labels == labels[0], 10, labels),
    lambda labels: np.where(labels == labels[0], -1, labels.astype(int)),
    lambda labels: labels > 3,
], ids=["float", "two axes", "ten", "negative", "bool"])  # fmt: skip
@pytest.mark.promise("bad inputs")
def test_labels_that_are_not_classes_are_refused(name, change, request):
    root, file = request.getfixturevalue(name), LABEL_FILES[name]
    np.save(root / file, change(np.load(root / file)))
    assert_refused(name, root, file, "instead of integers|labels outside 0 to 9")


@both
@pytest.mark.promise("bad inputs")
def test_fewer_labels_than_images_are_refused(name, request):
    root = request.getfixturevalue(name)
    labels = np.load(root / LABEL_FILES[name])
    np.save(root / LABEL_FILES[name], labels[:-1])
    assert_refused(name, root, IMAGE_FILES[name], f"has {len(labels)} images but .* has {len(labels) - 1} labels")


@pytest.mark.promise("bad inputs")
def test_images_that_are_not_five_equal_parts_are_refused(cifar10c):
    np.save(cifar10c / "fog.npy", random_images(5 * COUNT - 1))
    assert_refused("cifar10c", cifar10c, "fog.npy", "19 images cannot be divided into 5")


def test_only_the_requested_severity_is_read(cifar10c, monkeypatch):
    read = []
    copy = np.array
    monkeypatch.setattr(np, "array", lambda part: read.append(len(part)) or copy(part))
    mapped = []
    load_file = np.load
    monkeypatch.setattr(np, "load", lambda *a, **k: mapped.append(load_file(*a, **k)) or mapped[-1])
    load_cifar10c(cifar10c, "fog", 3)
    assert all(isinstance(array, np.memmap) for array in mapped) and read == [COUNT]
