"""CIFAR-10 and image folders are read correctly; what is wrong with them is named and left alone."""

import functools
import hashlib
import http.server
import importlib
import logging
import os
import pickle
import pkgutil
import re
import socket
import sys
import tarfile
import threading
import urllib.error

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image

from cifar10.data import sources
from cifar10.data.batch_files import META_FILE, TEST_FILE, TRAIN_FILES
from cifar10.data.sources import find_source
from cifar10.data.sources.cifar10 import CIFAR10
from cifar10.data.sources.shapes import draw_shapes, write_cifar10_files
from cifar10.errors import MissingData, UserError

BATCHES = "cifar-10-batches-py"


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def tree(folder):
    """Every path under `folder`, with the content of the files."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A root with small files that pass for the official ones."""
    folder = tmp_path / "root" / BATCHES
    write_cifar10_files(folder, images_per_batch=10)
    theirs = torchvision.datasets.CIFAR10
    monkeypatch.setattr(theirs, "train_list", [[name, md5(folder / name)] for name in TRAIN_FILES])
    monkeypatch.setattr(theirs, "test_list", [[TEST_FILE, md5(folder / TEST_FILE)]])
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": md5(folder / META_FILE)})
    return folder.parent


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/unreachable.tar.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def archive_of(root, archive, monkeypatch):
    """Pack the root's files as the official archive."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / BATCHES, BATCHES)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5(archive))


@pytest.fixture
def served(official, tmp_path, monkeypatch):
    """The archive of `official`, offered by a server on this machine."""
    archive = tmp_path / "served" / torchvision.datasets.CIFAR10.filename
    archive.parent.mkdir()
    archive_of(official, archive, monkeypatch)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=archive.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # a client that has all it wants may go before the server is done
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)
        yield archive
        server.shutdown()


def test_intact_files_are_read_in_order_and_left_alone(official):
    before = tree(official)
    source = CIFAR10(str(official))
    source.prepare()
    images, labels = source.load("train")
    drawn = [draw_shapes(10, seed) for seed in range(1, 6)]
    assert np.array_equal(images, np.concatenate([batch for batch, _ in drawn]))
    assert np.array_equal(labels, np.concatenate([batch_labels for _, batch_labels in drawn]))
    assert images.dtype == torch.uint8 and images.is_contiguous() and labels.dtype == torch.int64
    assert np.array_equal(source.load("test")[0], draw_shapes(10, seed=0)[0])
    assert tree(official) == before


@pytest.mark.parametrize("name", [TRAIN_FILES[2], TEST_FILE, META_FILE])
@pytest.mark.parametrize("fault", ["is missing", "does not match its md5"])
@pytest.mark.promise("bad inputs")
def test_a_missing_or_damaged_file_is_named_and_nothing_is_touched(official, name, fault):
    file = official / BATCHES / name
    file.unlink() if fault == "is missing" else file.write_bytes(file.read_bytes()[:-1])
    before = tree(official)
    with pytest.raises(UserError, match=f"{name} {fault}; replace .* or delete the folder") as caught:
        CIFAR10(official).prepare()
    assert tree(official) == before and "\n" not in str(caught.value)
    assert not isinstance(caught.value, MissingData)


@pytest.mark.promise("bad inputs")
def test_a_renamed_file_is_missing_and_swapped_files_do_not_match(official):
    one, two, three = (official / BATCHES / name for name in TRAIN_FILES[:3])
    one.rename(one.with_suffix(".bin"))
    swapped = two.read_bytes()
    two.write_bytes(three.read_bytes())
    three.write_bytes(swapped)
    before = tree(official)
    with pytest.raises(UserError) as caught:
        CIFAR10(official).prepare()
    assert "data_batch_1 is missing, data_batch_2 does not match its md5, data_batch_3 does not" in str(caught.value)
    assert tree(official) == before


@pytest.mark.promise("bad inputs")
def test_a_file_that_may_not_be_read_is_named(official, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources.cifar10.tv_utils, "calculate_md5", refuse)
    with pytest.raises(UserError, match=r"test_batch cannot be read \(Permission denied\)"):
        CIFAR10(official).prepare()


@pytest.mark.promise("bad inputs")
def test_the_batches_folder_given_as_root_is_answered_with_its_parent_and_not_downloaded(official):
    with pytest.raises(UserError, match=f"set data.root={official}, its parent$"):
        CIFAR10(official / BATCHES).prepare()


def test_a_download_ends_in_verified_files_and_nothing_else(served, official, tmp_path, caplog, capfd):
    root = tmp_path / "new" / "root"
    with caplog.at_level(logging.INFO):
        CIFAR10(root).prepare()
    assert caplog.messages == [f"downloading CIFAR-10 (170 MB) to {root}"]
    assert [entry.name for entry in root.iterdir()] == [BATCHES]
    assert tree(root / BATCHES).keys() == {root / BATCHES / name for name in (*TRAIN_FILES, TEST_FILE, META_FILE)}
    assert torch.equal(CIFAR10(root).load("train")[0], CIFAR10(official).load("train")[0])
    assert capfd.readouterr() == ("", "")


@pytest.mark.promise("bad inputs")
def test_an_archive_downloaded_by_hand_is_used_and_kept(official, tmp_path, monkeypatch):
    archive = tmp_path / torchvision.datasets.CIFAR10.filename
    archive_of(official, archive, monkeypatch)
    CIFAR10(tmp_path).prepare()
    assert archive.exists() and len(CIFAR10(tmp_path).load("test")[0]) == 10


def assert_missing(root, cause):
    """Preparing fails in one line that names the alternatives, and changes nothing on disk."""
    before = tree(root.parent.parent)
    with pytest.raises(MissingData, match=cause) as caught:
        CIFAR10(root).prepare()
    message = str(caught.value)
    assert all(way in message for way in ("data.root=FOLDER", "CIFAR10_ROOT=FOLDER", "data=shapes"))
    assert "\n" not in message and tree(root.parent.parent) == before


@pytest.mark.promise("bad inputs")
def test_a_download_without_a_network_leaves_nothing_and_names_the_alternatives(tmp_path, monkeypatch):
    timeouts = []

    def fail_halfway(url, folder, filename, md5):
        timeouts.append(socket.getdefaulttimeout())
        (folder / filename).write_bytes(b"half an archive")
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(sources.cifar10.tv_utils, "download_and_extract_archive", fail_halfway)
    assert_missing(tmp_path / "new" / "root", "Name or service not known")
    (tmp_path / "there").mkdir()
    assert_missing(tmp_path / "there", "Name or service not known")
    assert timeouts == [30, 30] and socket.getdefaulttimeout() is None


@pytest.mark.promise("bad inputs")
def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(url, folder, filename, md5):
        (folder / filename).write_bytes(b"half an archive")
        raise KeyboardInterrupt

    monkeypatch.setattr(sources.cifar10.tv_utils, "download_and_extract_archive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        CIFAR10(tmp_path / "root").prepare()
    assert tree(tmp_path) == {}


@pytest.mark.promise("bad inputs")
def test_a_damaged_download_leaves_nothing(served, tmp_path):
    served.write_bytes(served.read_bytes()[:-1])
    assert_missing(tmp_path / "new" / "root", "corrupted")


@pytest.mark.promise("bad inputs")
def test_an_archive_with_other_files_in_it_leaves_nothing(served, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", [[TEST_FILE, "0" * 32]])
    assert_missing(tmp_path / "new" / "root", "test_batch does not match its md5")


@pytest.mark.promise("bad inputs")
def test_a_root_that_cannot_be_created_is_missing_data(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert_missing(tmp_path / "file" / "root", "Not a directory")


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.promise("hostile files")
def test_code_in_a_batch_file_is_not_executed(official, tmp_path):
    target = tmp_path / "executed"
    for payload in (Bomb(target), {b"data": Bomb(target), b"labels": [0]}):
        (official / BATCHES / TEST_FILE).write_bytes(pickle.dumps(payload, protocol=2))
        with pytest.raises(UserError, match=r"test_batch as a CIFAR batch .*mkdir"):
            CIFAR10(official).load("test")
    assert not target.exists()


DATA = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {b"data": DATA},
        {b"data": DATA, b"labels": [0]},
        {b"data": DATA, b"labels": [0, 10]},
        {b"data": DATA, b"labels": [0, -1]},
        {b"data": DATA, b"labels": [0.0, 1.0]},
        {b"data": DATA, b"labels": 3},
        {b"data": DATA.astype(float), b"labels": [0, 1]},
        {b"data": DATA[:, :-1], b"labels": [0, 1]},
        {b"data": DATA.tolist(), b"labels": [0, 1]},
        {b"data": DATA[:0], b"labels": []},
    ],
    ids=["batch that is a list", "batch without labels", "batch with a label too few", "batch with a label of 10",
         "batch with a negative label", "batch with labels that are floats", "batch with one number for labels",
         "batch of floats", "batch of rows a byte too short", "batch of lists", "batch of no image"],
)  # fmt: skip
@pytest.mark.promise("bad inputs")
def test_a_malformed_batch_is_an_error_that_names_the_file(official, batch):
    (official / BATCHES / TEST_FILE).write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(UserError, match="test_batch as a CIFAR batch") as caught:
        CIFAR10(official).load("test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["empty batch", "batch of garbage", "absent batch"])
@pytest.mark.promise("bad inputs")
def test_an_empty_damaged_or_absent_batch_is_an_error_that_names_the_file(official, content):
    file = official / BATCHES / "data_batch_4"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(UserError, match="data_batch_4 as a CIFAR batch"):
        CIFAR10(official).load("train")


@pytest.mark.promise("bad inputs")
def test_training_batches_of_unequal_length_are_an_error_that_names_the_file(official):
    batch = {b"data": DATA, b"labels": [0, 1]}
    (official / BATCHES / "data_batch_3").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(UserError, match="data_batch_3 has 2 images but data_batch_1 has 10"):
        CIFAR10(official).load("train")


@pytest.mark.skipif("CIFAR10_ROOT" not in os.environ, reason="needs the real CIFAR-10 in CIFAR10_ROOT")
@pytest.mark.parametrize(("split", "per_class"), [("train", 5_000), ("test", 1_000)])
def test_the_real_files_load_balanced_and_equal_torchvisions_pixels(split, per_class):
    root = os.environ["CIFAR10_ROOT"]
    source = CIFAR10(root)
    source.prepare()
    images, labels = source.load(split)
    assert images.shape == (10 * per_class, 3, 32, 32) and labels.bincount().tolist() == [per_class] * 10
    theirs = torchvision.datasets.CIFAR10(root, train=split == "train")
    assert tuple(theirs.classes) == source.class_names and theirs.targets == labels.tolist()
    for index in (0, 1, 9_999, len(images) - 1):
        assert np.array_equal(images[index].permute(1, 2, 0), theirs.data[index])


def save(path, colour, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes, black cats and white dogs, in files of several kinds."""
    for split in ("train", "test"):
        save(tmp_path / split / "dog" / "a.png", "white")
        save(tmp_path / split / "cat" / "b.JPG", "black")
        save(tmp_path / split / "cat" / "deep" / "er.png", "black", (20, 50))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".cache").mkdir()
    return tmp_path


# finding and adding a source

NAMES = sorted(module.name for module in pkgutil.iter_modules(sources.__path__))


@pytest.mark.parametrize("name", NAMES)
def test_every_module_is_a_source_that_names_itself_and_says_whether_it_is_drawn(name, folder):
    pq.write_table(pa.table({"image": [b"", b""], "label": ["cat", "dog"]}), folder / "train.parquet")
    source = find_source(name)(str(folder))
    assert isinstance(source.name, str) and source.synthetic is (name == "shapes")
    assert len(set(source.class_names)) == len(source.class_names) >= 2


@pytest.mark.parametrize("name", ["shape", "", "os", "cifar10.tv_utils", "../cifar10"])
@pytest.mark.promise("bad inputs")
def test_an_unknown_source_is_refused_with_those_that_exist(name):
    hint = "did you mean shapes? " if name == "shape" else ""
    with pytest.raises(ValueError, match=re.escape(f"source={name}: no such source; {hint}")) as caught:
        find_source(name)
    assert str(caught.value).endswith(f"available: {', '.join(NAMES)}")


DIGITS = '''"""Handwritten digits of 8 x 8 pixels (Alpaydin & Kaynak 1998), which come with scikit-learn."""

import torch
from sklearn.datasets import load_digits


class Digits:
    name = "scikit-learn's digits"
    synthetic = False
    class_names = tuple("0123456789")

    def __init__(self, root):
        pass

    def prepare(self):
        pass

    def load(self, split):
        digits = load_digits()
        images = torch.from_numpy(digits.images * 255 / 16).to(torch.uint8)[:, None].repeat(1, 3, 1, 1)
        part = slice(1500) if split == "train" else slice(1500, None)
        return images[part].contiguous(), torch.from_numpy(digits.target[part])
'''
DIGITS_YAML = """# Handwritten digits, from scikit-learn.
defaults:
  - cifar10
  - _self_
source: digits
crop_padding: 1
flip: false
"""


@pytest.fixture
def add_source(tmp_path, monkeypatch):
    """Adds a module to `cifar10.data.sources` as a file in its folder would."""
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "sources")])
    before = set(sys.modules)

    def add(name, code):
        (tmp_path / "sources").mkdir(exist_ok=True)
        (tmp_path / "sources" / f"{name}.py").write_text(code)
        importlib.invalidate_caches()

    yield add
    for name in {name for name in sys.modules if name.startswith(f"{sources.__name__}.")} - before:
        delattr(sources, name.rpartition(".")[2])
        del sys.modules[name]


def test_a_data_set_is_added_by_a_module_and_a_yaml_file(command, add_source, tmp_path):
    add_source("digits", DIGITS)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "digits.yaml").write_text(DIGITS_YAML)
    few = ["data.train_size=100", "data.val_size=50", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    assert command("train.py", "--config-dir=conf", "data=digits", *few, "hydra.run.dir=run") == 0, command.err
    assert "scikit-learn's digits: 100 images" in command.out
    assert (tmp_path / "run" / "run.json").is_file()


def test_a_source_needs_a_library_only_where_it_is_used(command, add_source, tmp_path):
    add_source("rare", "import a_library_that_is_not_installed\n\n\nclass Rare:\n    pass\n")
    assert find_source("shapes").name
    assert command("train.py", "data=shapes", "data.source=rare", "hydra.run.dir=run") == 1
    assert command.err == "error: data: No module named 'a_library_that_is_not_installed'\n"


def test_a_module_with_several_public_classes_is_a_bug_that_is_named(add_source):
    add_source("two", "class One:\n    pass\n\n\nclass Two:\n    pass\n")
    with pytest.raises(TypeError, match=r"sources\.two must define one public class, the source, but defines 2"):
        find_source("two")
