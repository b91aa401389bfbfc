"""CIFAR-100 is read from its official files, which have their own names and labels."""

import hashlib

import numpy as np
import pytest
import torchvision

from cifar10.data.batch_files import dump_batch
from cifar10.data.sources.cifar100 import CIFAR100
from cifar10.data.sources.shapes import draw_shapes
from cifar10.errors import MissingData, UserError

THEIRS = torchvision.datasets.CIFAR100


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root with small files that pass for the official ones: 200 training and 100 test images, each class in both."""
    folder = tmp_path / "root" / THEIRS.base_folder
    folder.mkdir(parents=True)
    contents = {"meta": {b"fine_label_names": [name.encode() for name in CIFAR100.class_names]}}
    for seed, (name, count) in enumerate({"train": 200, "test": 100}.items()):
        labels = np.random.RandomState(seed).permutation(count) % 100
        contents[name] = {
            b"data": draw_shapes(count, seed)[0].reshape(count, -1),
            b"fine_labels": labels.tolist(),
            b"coarse_labels": (labels // 5).tolist(),
        }
    for name, content in contents.items():
        dump_batch(content, folder / name)
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents}
    monkeypatch.setattr(THEIRS, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(THEIRS, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(THEIRS, "meta", {**THEIRS.meta, "md5": sums["meta"]})
    monkeypatch.setattr(THEIRS, "url", "http://127.0.0.1:9/unreachable.tar.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder.parent


@pytest.mark.parametrize(("split", "count", "seed"), [("train", 200, 0), ("test", 100, 1)])
def test_images_and_fine_labels_are_torchvisions(root, split, count, seed):
    source = CIFAR100(root)
    source.prepare()
    images, labels = source.load(split)
    theirs = THEIRS(root, train=split == "train")
    assert np.array_equal(images.permute(0, 2, 3, 1), theirs.data) and labels.tolist() == theirs.targets
    assert source.class_names == tuple(theirs.classes) and np.array_equal(images, draw_shapes(count, seed)[0])


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_damaged_file_is_named(root, name):
    file = root / THEIRS.base_folder / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"^CIFAR-100 in .*: {name} does not match its md5; replace"):
        CIFAR100(root).prepare()


@pytest.mark.promise("bad inputs")
def test_without_files_and_network_one_line_names_cifar_100s_own_variable_and_folder(root, tmp_path):
    with pytest.raises(MissingData, match=r"^CIFAR-100 is not .*CIFAR100_ROOT=FOLDER .* cifar-100-python/, ") as caught:
        CIFAR100(tmp_path / "new").prepare()
    assert "\n" not in str(caught.value) and not (tmp_path / "new").exists()
    with pytest.raises(UserError, match=f"set data.root={root}, its parent$"):
        CIFAR100(root / THEIRS.base_folder).prepare()


def test_a_hundred_classes_are_trained(root, command):
    options = ["data.batch_size=80", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]
    assert command("train.py", "data=cifar100", f"data.root={root}", *options, "data.val_size=100") == 0, command.err
    assert "CIFAR-100: 100 images to train on, 100 to validate on" in command.out
