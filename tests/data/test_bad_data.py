"""Data that is damaged, incomplete or prepared twice at once: one line names the file, nothing is left half done."""

import functools
import hashlib
import http.server
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from cifar10.data import sources
from cifar10.data.batch_files import META_FILE, TEST_FILE, TRAIN_FILES
from cifar10.data.sources.cifar10 import CIFAR10
from cifar10.data.sources.folder import ImageFolder
from cifar10.data.sources.shapes import Shapes, write_cifar10_files
from cifar10.errors import UserError
from cifar10.evaluation import steps as reporting
from cifar10.report.groups import Run

pytestmark = pytest.mark.promise("bad inputs")
BATCHES = "cifar-10-batches-py"
THEIRS = torchvision.datasets.CIFAR10
ONCE = ["data.batch_size=80", "trainer.max_epochs=1"]


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Small files that pass for the official ones; their folder."""
    folder = tmp_path / "root" / BATCHES
    write_cifar10_files(folder, images_per_batch=40)
    monkeypatch.setattr(THEIRS, "train_list", [[name, md5(folder / name)] for name in TRAIN_FILES])
    monkeypatch.setattr(THEIRS, "test_list", [[TEST_FILE, md5(folder / TEST_FILE)]])
    monkeypatch.setattr(THEIRS, "meta", {**THEIRS.meta, "md5": md5(folder / META_FILE)})
    monkeypatch.setattr(THEIRS, "url", "http://127.0.0.1:9/unreachable.tar.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


def refused(command, script, *arguments, words="", code=1):
    with warnings.catch_warnings(record=True) as warned:
        assert command(script, *arguments) == code, command.err
    assert command.err.startswith("error: ") and len(command.err.splitlines()) == 1, command.err
    assert words in command.err, command.err
    assert not warned, "a warning is a line as well"


# --- CIFAR-10's files


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def replace_by(kind):
    def damage(file):
        file.unlink()
        if kind == "folder":
            file.mkdir()
        elif kind == "link":
            file.symlink_to("nowhere")
        elif kind == "pipe":
            os.mkfifo(file)

    return damage


DAMAGES = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "padded": lambda file: file.write_bytes(file.read_bytes() + b"\0" * 100),
    "bit-flipped": flip_a_bit,
    "empty": lambda file: file.write_bytes(b""),
    "zeroed": lambda file: file.write_bytes(b"\0" * file.stat().st_size),
    "renamed": lambda file: file.rename(file.with_name(f"{file.name}.bak")),
    "swapped": lambda file: shutil.copy(file.with_name("data_batch_3"), file),
    "a web page": lambda file: file.write_text("<html>404</html>"),
    "missing": replace_by("nothing"),
    "a folder": replace_by("folder"),
    "a dangling link": replace_by("link"),
    "a pipe": replace_by("pipe"),
}
FILES = ("data_batch_1", "data_batch_5", TEST_FILE, META_FILE)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [pytest.param(damage, id=f"{name}:") for name, damage in DAMAGES.items()])
def test_an_official_file_that_is(official, damage, name):
    damage(official / name)
    before = tree(official.parent)
    with pytest.raises(UserError, match=f"{name} (is missing|does not match its md5)") as caught:
        CIFAR10(official.parent).prepare()
    assert "\n" not in str(caught.value) and tree(official.parent) == before


@pytest.mark.parametrize("damage", ["truncated", "missing", "a folder", "a dangling link"])
def test_training_on_official_files_of_which_one_is(command, official, tmp_path, damage):
    DAMAGES[damage](official / "data_batch_2")
    before = tree(tmp_path)
    words = f"{official} is incomplete or damaged: data_batch_2 "
    refused(command, "train.py", f"data.root={official.parent}", *ONCE, words=words)
    assert tree(tmp_path) == before


def test_an_official_file_on_a_failing_disk(official, monkeypatch):
    def fail(path, chunk_size=0):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sources.cifar10.tv_utils, "calculate_md5", fail)
    with pytest.raises(UserError, match=r"data_batch_1 cannot be read \(Input/output error\)"):
        CIFAR10(official.parent).prepare()


@pytest.mark.parametrize("kind", ["a file", "a dangling link", "an empty folder", "a folder in a folder"])
def test_in_place_of_the_batches_folder(official, kind):
    kept = official.rename(official.with_name("kept"))
    if kind == "a file":
        official.write_text("x")
    elif kind == "a dangling link":
        official.symlink_to("nowhere")
    else:
        official.mkdir()
    if kind == "a folder in a folder":
        kept.rename(official / BATCHES)
    before = tree(official.parent)
    with pytest.raises(UserError, match=f"{official} is incomplete or damaged") as caught:
        CIFAR10(official.parent).prepare()
    assert "\n" not in str(caught.value) and tree(official.parent) == before


@pytest.mark.parametrize("name", ["data_batch_2", TEST_FILE])
@pytest.mark.parametrize("damage", [
    pytest.param(DAMAGES[name], id=f"{name}:")
    for name in ("truncated", "cut in half", "empty", "zeroed", "a web page", "a folder")
])  # fmt: skip
def test_a_file_of_drawn_images_that_is(tmp_path, damage, name):
    folder = tmp_path / "shapes" / BATCHES
    write_cifar10_files(folder, images_per_batch=20)
    damage(folder / name)
    source = Shapes(tmp_path)
    source.prepare()
    with pytest.raises(UserError, match=f"cannot read {folder / name} as a CIFAR batch") as caught:
        source.load("test" if name == TEST_FILE else "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "renamed", "a dangling link", "a pipe"])
def test_drawn_images_are_drawn_again_where_a_file_is(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(
        sources.shapes, "write_cifar10_files", functools.partial(write_cifar10_files, images_per_batch=20)
    )
    source = Shapes(tmp_path)
    source.prepare()
    before = (source.folder / "data_batch_2").read_bytes()
    DAMAGES[damage](source.folder / "data_batch_2")
    source.prepare()
    assert (source.folder / "data_batch_2").read_bytes() == before
    assert [entry.name for entry in source.folder.parent.iterdir()] == [BATCHES]


@pytest.mark.parametrize("damage", ["truncated", "empty", "zeroed", "a folder"])
def test_evaluating_a_run_whose_test_images_are_by_now(command, trained, shapes_root, tmp_path, damage):
    shutil.copytree(shapes_root, tmp_path / "d")
    shutil.copytree(trained, tmp_path / "run")
    file = tmp_path / "d" / "shapes" / BATCHES / TEST_FILE
    DAMAGES[damage](file)
    refused(command, "evaluate.py", "run=run", f"data_root={tmp_path / 'd'}", words=f"cannot read {file}")
    assert not (tmp_path / "run" / "evaluation").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_official_files_that_may_not_be_read(official):
    (official / TEST_FILE).chmod(0)
    with pytest.raises(UserError, match="test_batch cannot be read"):
        CIFAR10(official.parent).prepare()


# --- downloads


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`; `fault` says how badly. Counts the requests."""

    content, fault, asked = b"", "", 0
    release: threading.Event

    def do_GET(self):
        type(self).asked += 1
        if self.fault == "an error of the server":
            return self.send_error(503)
        self.send_response(200)
        whole = len(self.content)
        self.send_header("Content-Length", str(whole))
        self.end_headers()
        if self.fault == "a web page":
            return self.wfile.write(b"<html>login</html>".ljust(whole))
        if self.fault in ("a connection that breaks", "a kill in the middle"):
            self.wfile.write(self.content[: whole // 2])
            self.wfile.flush()
            if self.fault == "a kill in the middle":
                self.release.wait(20)
            return self.connection.close()
        if self.fault == "fewer bytes than were announced":
            return self.wfile.write(self.content[:-1000])
        if self.fault == "another archive":
            return self.wfile.write(b"\1" * whole)
        if self.fault == "slow":
            time.sleep(1)  # for the other process to arrive meanwhile
        self.wfile.write(self.content)
        return None

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(official, tmp_path, monkeypatch):
    """The archive of `official`, offered by a server on this machine; the handler's class."""
    archive = tmp_path / THEIRS.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(official, BATCHES)
    monkeypatch.setattr(THEIRS, "tgz_md5", md5(archive))
    handler = type("Handler", (Server,), {"content": archive.read_bytes(), "release": threading.Event()})
    archive.unlink()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *arguments: None  # clients may hang up
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(THEIRS, "url", f"http://127.0.0.1:{server.server_port}/{THEIRS.filename}")
        yield handler
        handler.release.set()
        server.shutdown()


FAULTS = ["an error of the server", "fewer bytes than were announced", "a web page", "a connection that breaks",
          "another archive"]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_download_that_brings(command, served, tmp_path, fault):
    served.fault = fault
    before = tree(tmp_path)
    refused(command, "train.py", "data.root=new", *ONCE, words="could not be downloaded", code=66)
    assert tree(tmp_path) == before
    served.fault = ""
    CIFAR10(tmp_path / "new").prepare()  # starts afresh
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == [BATCHES]


@pytest.mark.parametrize("size", [0, 1000, -1], ids=["an empty archive", "half an archive", "an archive but a byte"])
def test_a_damaged_archive_in_the_root_is_not_trusted(served, tmp_path, caplog, size):
    root = tmp_path / "new"
    root.mkdir()
    (root / THEIRS.filename).write_bytes(served.content[:size])
    CIFAR10(root).prepare()
    assert f"{THEIRS.filename} is incomplete or damaged: ignored" in caplog.text
    assert len(CIFAR10(root).load("train")[0]) == 200
    assert {entry.name for entry in root.iterdir()} == {BATCHES, THEIRS.filename}


def prepare_in_a_process(root, *prepared):
    """A process that prepares sources in `root` once it is told to `go`, with torchvision's constants as here."""
    code = (
        "import functools, sys, torchvision\n"
        f"theirs = torchvision.datasets.CIFAR10\n"
        f"theirs.url, theirs.tgz_md5 = {THEIRS.url!r}, {THEIRS.tgz_md5!r}\n"
        f"theirs.train_list, theirs.test_list = {THEIRS.train_list!r}, {THEIRS.test_list!r}\n"
        f"theirs.meta = {THEIRS.meta!r}\n"
        "from cifar10.data.sources import find_source, shapes\n"
        "write = shapes.write_cifar10_files\n"
        "def counted(folder):\n"
        "    print('drawn', flush=True)\n"
        "    write(folder, images_per_batch=2000)\n"
        "shapes.write_cifar10_files = counted\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        f"for name in {prepared!r}:\n"
        f"    find_source(name)({str(root)!r}).prepare()\n"
    )
    project = str(Path(__file__).parent.parent.parent)
    environment = os.environ | {"PYTHONPATH": project, "no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def go(process):
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_download_that_was_killed_is_not_trusted_and_its_leftovers_are_removed(served, tmp_path):
    served.fault = "a kill in the middle"
    process = prepare_in_a_process(tmp_path / "new", "cifar10")
    go(process)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "new").glob(f".unfinished-*/{THEIRS.filename}")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list((tmp_path / "new").glob(".unfinished-*")) and not (tmp_path / "new" / BATCHES).exists()
    served.fault = ""
    served.release.set()
    CIFAR10(tmp_path / "new").prepare()
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == [BATCHES]


def test_two_processes_sharing_an_empty_root_create_its_folders_once(served, tmp_path, record_property):
    served.fault = "slow"
    processes = [prepare_in_a_process(tmp_path / "new", "cifar10", "shapes") for _ in range(2)]
    for process in processes:
        go(process)
    drawn = ""
    for process in processes:
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        drawn += output
    asked, served.asked = served.asked, 0
    CIFAR10(tmp_path / "another").prepare()
    assert asked == served.asked, "torchvision asks twice for a download: where it is, and for it"
    assert drawn == "drawn\n"
    assert {entry.name for entry in (tmp_path / "new").iterdir()} == {BATCHES, "shapes"}
    assert [entry.name for entry in (tmp_path / "new" / "shapes").iterdir()] == [BATCHES]
    record_property("tried", "two processes that download at once")
    record_property("tried", "two processes that draw at once")


def test_an_intact_root_is_not_locked(official, shapes_root, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("locked")

    monkeypatch.setattr("cifar10.files.locked", refuse)  # a read-only file system would refuse as well
    CIFAR10(official.parent).prepare()
    Shapes(shapes_root).prepare()


# --- folders of pictures


def save(path, image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (40, 30), "white")).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of six pictures a split; their root."""
    for split in ("train", "test"):
        for name, colour in (("cat", "black"), ("dog", "white")):
            for number in range(6):
                save(tmp_path / "p" / split / name / f"{number}.png", Image.new("RGB", (32, 32), colour))
    return tmp_path / "p"


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side):
    """A PNG of a few bytes that claims to have side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN = {
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:60]),
    "of no byte": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("no picture"),
    "a web page": lambda file: file.write_text("<html>404</html>"),
    "zeros": lambda file: file.write_bytes(b"\0" * 1000),
    "with a flipped bit": flip_a_bit,
    "a bomb of 10^10 pixels": lambda file: file.write_bytes(bomb(100_000)),
    "a bomb of 10^18 pixels": lambda file: file.write_bytes(bomb(2**30)),
    "without pixels": lambda file: file.write_bytes(bomb(8)),
    "a dangling link": replace_by("link"),
    "of floats": lambda file: Image.fromarray(np.full((8, 8), 300, np.float32)).save(file, "TIFF"),
    "of negative numbers": lambda file: Image.fromarray(np.full((8, 8), -1, np.int32)).save(file, "TIFF"),
    "an SVG": lambda file: file.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>'),
}


def test_broken_pictures_that_came_after_a_run_are_not_in_its_way(command, pictures):
    assert command("train.py", "data=folder", f"data.root={pictures}", *ONCE, "hydra.run.dir=run") == 0, command.err
    for number in range(3):
        (pictures / "test" / "cat" / f"late {number}.png").write_bytes(b"not a picture")
    assert command("evaluate.py", "run=run") == 0, command.err


@pytest.mark.parametrize("damage", [pytest.param(damage, id=f"picture {name}") for name, damage in BROKEN.items()])
def test_a_picture_that_is(command, pictures, tmp_path, damage):
    file = pictures / "train" / "cat" / "3.png"
    damage(file)
    settings = ("data=folder", f"data.root={pictures}", *ONCE, "hydra.run.dir=run")
    words = "1 of 12 pictures of the class cat cannot be read (train/cat/3.png: "
    refused(command, "train.py", *settings, "data.max_unreadable=0", words=words)
    assert (tmp_path / "run" / "unreadable.csv").read_text().startswith("file,reason\ntrain/cat/3.png,")
    assert not (tmp_path / "run" / "split.csv").exists()
    assert (
        command("train.py", *settings, "+trainer.fast_dev_run=true") == 0 and "1 picture cannot be read" in command.out
    )


@pytest.mark.parametrize("damage", ["cut short", "a dangling link"])
def test_a_test_picture_that_is_broken_after_training(command, pictures, tmp_path, damage):
    assert command("train.py", "data=folder", f"data.root={pictures}", "data.batch_size=5", "trainer.max_epochs=1",
                   "hydra.run.dir=run") == 0  # fmt: skip
    file = pictures / "test" / "dog" / "0.png"
    BROKEN[damage](file)
    assert command("evaluate.py", "run=run") == 0 and "test/dog/0.png: " in command.out


def outsiders(pictures):
    """name -> (a change to the folder, words of the message or None if nothing is wrong)."""
    train, test = pictures / "train", pictures / "test"
    return {
        "an empty class": (lambda: [f.unlink() for f in (train / "cat").iterdir()], f"{train / 'cat'} has no pictures"),
        "a class of text files": (
            lambda: [f.rename(f.with_suffix(".txt")) for f in (train / "cat").iterdir()],
            f"{train / 'cat'} has no pictures",
        ),
        "a class more in test": (lambda: save(test / "bird" / "0.png"), "train lacks, 'bird'"),
        "a class missing in test": (lambda: shutil.rmtree(test / "cat"), None),
        "an empty class in test": (lambda: [f.unlink() for f in (test / "dog").iterdir()], None),
        "a file in a class's place": (
            lambda: (shutil.rmtree(train / "cat"), (train / "cat").write_text("x")),
            "train lacks, 'cat'",
        ),
        "a dangling link in a class's place": (
            lambda: (shutil.rmtree(train / "cat"), (train / "cat").symlink_to("nowhere")),
            "train lacks, 'cat'",
        ),
        "one class": (lambda: [shutil.rmtree(split / "cat") for split in (train, test)], "only one class"),
        "no class": (lambda: [shutil.rmtree(split) for split in (train, test)], f"{pictures} has no pictures"),
        "a class name of two lines": (
            lambda: [(split / "cat").rename(split / "c\nat") for split in (train, test)],
            "whose name cannot be printed, 'c\\nat'",
        ),
        "a class name that is no text": (
            lambda: [os.rename(os.fsencode(split / "cat"), os.fsencode(split) + b"/c\xff") for split in (train, test)],
            "whose name cannot be printed",
        ),
        "class names of other scripts": (
            lambda: [(split / "cat").rename(split / "кошка 猫 ñ $x^2$ 😀") for split in (train, test)],
            None,
        ),
        "files of other kinds": (
            lambda: [(split / "notes.txt").write_text("x") for split in (train, train / "cat")],
            None,
        ),
        "a link in a circle": (lambda: (train / "cat" / "self").symlink_to(train / "cat"), None),
        "a folder with a picture's name": (lambda: (train / "cat" / "x.png").mkdir(), None),
        "names in capitals": (lambda: (train / "cat" / "0.png").rename(train / "cat" / "0.PNG"), None),
        "names of other scripts": (lambda: (train / "cat" / "0.png").rename(train / "cat" / "猫\n.png"), None),
    }


@pytest.mark.parametrize("case", outsiders(Path()))
def test_a_folder_of_pictures_with(command, pictures, tmp_path, case):
    change, words = outsiders(pictures)[case]
    change()
    if words is None:
        listed = ImageFolder(pictures).pictures()
        assert np.bincount(listed.labels[listed.splits == "train"]).tolist() == [6, 6]
        return
    before = {path for path in tmp_path.rglob("*") if path.is_dir()}
    refused(command, "train.py", "data=folder", f"data.root={pictures}", *ONCE, words=words)
    assert {path for path in tmp_path.rglob("*") if path.is_dir()} == before


# --- the user's own labels


def wrong_labels():
    right = np.arange(40) % 10
    return {
        "too few": right[1:],
        "too many": np.append(right, 0),
        "of two axes": right[:, None],
        "of no axis": np.array(3),
        "none": right[:0],
        "floats": right.astype(float),
        "booleans": right > 3,
        "text": right.astype(str),
        "dates": right.astype("datetime64[s]"),
        "records": np.zeros(40, [("a", int)]),
        "beyond the classes": right + 1,
        "below -1": right - 2,
        "all left out": np.full(40, -1),
    }


def test_the_users_labels_that_do_not_fit(trained, tmp_path, record_property):
    nothing = np.zeros((40, 10), np.float32)
    run = Run("cnn", 0, str(trained), {}, list("abcdefghij"), nothing, np.arange(40) % 10, nothing, np.arange(40) % 10)
    file = tmp_path / "labels.npy"
    np.save(file, np.arange(40) % 10)
    assert reporting.read_labels(str(file), run).tolist() == (np.arange(40) % 10).tolist()
    whole = file.read_bytes()
    contents = {"cut short": whole[:-1], "a header alone": whole[:128], "half a header": whole[:50], "empty": b"",
                "text": b"0 1 2 3", "a zip": b"PK\3\4" + bytes(50)}  # fmt: skip
    for name, wrong in {**wrong_labels(), **contents}.items():
        np.save(file, wrong) if isinstance(wrong, np.ndarray) else file.write_bytes(wrong)
        with pytest.raises(UserError, match=f"labels={file}: ") as caught:
            reporting.read_labels(str(file), run)
        assert "\n" not in str(caught.value)
        record_property("tried", f"labels=FILE.npy: {name}")
