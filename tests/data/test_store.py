"""The store: decoded once, the same pixels wherever they come from, and whole or resumable whatever happens."""

import logging
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cifar10.data import store
from cifar10.data.pictures import Pictures, squares, stream
from cifar10.data.pictures.squares import Square, load_square
from cifar10.data.store import files as store_files
from cifar10.data.store import open_store
from cifar10.data.store.cache import clear_cache, default_cache, list_stores
from cifar10.errors import UserError
from cifar10.signals import Interrupted, signals

FORKED = multiprocessing.get_context("fork")
BAD = 7  # the picture that is cut off
GREY = (128, 128, 128)


def pictures_in(folder: Path, count: int = 24, pause: float = 0.0) -> Pictures:
    paths = [folder / f"{number}.png" for number in range(count)]
    return Pictures(
        tuple(path.name for path in paths), np.zeros(count, int), np.full(count, ""), partial(read, paths, pause), "f1"
    )


def read(paths: list[Path], pause: float, index: int) -> Path:
    time.sleep(pause)
    return paths[index]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """24 pictures of random pixels and shapes; number 7 is cut off, and number 9 a copy of number 8."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(24):
        height, width = rng.integers(4, 20, 2)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number}.png")
    content = (folder / f"{BAD}.png").read_bytes()
    (folder / f"{BAD}.png").write_bytes(content[: len(content) // 2])
    shutil.copy(folder / "8.png", folder / "9.png")
    return folder


@pytest.fixture(scope="module")
def direct(folder) -> torch.Tensor:
    square = Square(8, "pad", GREY)
    rows = [load_square(folder / f"{n}.png", square) if n != BAD else torch.zeros(3, 8, 8) for n in range(24)]
    return torch.stack([row.to(torch.uint8) for row in rows])


KINDS = ["in memory", "in a file", "no room"]


@pytest.fixture(scope="module", params=KINDS)
def opened(request, folder, tmp_path_factory):
    """The store in each of the places where its pixels may be."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(squares, "FEW", 20)  # batches of more are decoded by processes
        return open_as(request.param, folder, tmp_path_factory.mktemp("cache"), monkeypatch)


def open_as(kind, folder, cache, monkeypatch):
    if kind == "in a file":
        monkeypatch.setattr(store, "IN_MEMORY", 0)
    if kind == "no room":
        monkeypatch.setattr(store.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    opened = open_store(pictures_in(folder), 8, "pad", GREY, cache)
    assert isinstance(opened.images, torch.Tensor) == (kind == "in memory")
    assert isinstance(opened.images, store.DecodedImages) == (kind == "no room")
    return opened


def test_it_looks_like_a_tensor(opened, direct):
    images = opened.images
    assert images.shape == direct.shape and len(images) == 24 and images.nbytes == direct.nbytes
    assert images.device == direct.device
    assert torch.equal(images[:], direct) and torch.equal(images[3:20:4], direct[3:20:4])
    assert torch.equal(images[-1], direct[-1]) and torch.equal(images.to("cpu"), direct)
    assert images[torch.tensor([], dtype=torch.int64)].shape == (0, 3, 8, 8)
    with pytest.raises(IndexError):
        images[torch.tensor([24])]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.integers(0, 23), min_size=1, max_size=8), max_size=5))
def test_any_batches_are_what_decoding_gives(opened, direct, batches):
    batches = [torch.tensor(batch) for batch in batches]
    expected = [direct[batch] for batch in batches]
    for found in (list(stream(opened.images, batches)), [opened.images[batch] for batch in batches]):
        assert len(found) == len(expected)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_processes_give_the_same_pixels_and_leave_random_numbers_alone(opened, direct, monkeypatch):
    monkeypatch.setattr(squares, "FEW", 0)
    order, state = torch.arange(23, -1, -1).split(5), torch.get_rng_state()
    assert torch.equal(torch.cat(list(stream(opened.images, order))), direct.flip(0))
    assert torch.equal(torch.get_rng_state(), state)
    for _ in stream(opened.images, order):
        break
    assert not multiprocessing.active_children()


def test_it_can_be_sent_to_another_process(opened, direct):
    assert torch.equal(pickle.loads(pickle.dumps(opened.images))[:], direct)


def test_unreadable_pictures_are_named_and_copies_have_equal_digests(opened):
    assert list(opened.errors) == [BAD] and opened.errors[BAD]
    assert opened.images[BAD].sum() == 0
    assert opened.digests[8] == opened.digests[9] and len(set(opened.digests.tolist())) == 23
    assert opened.sizes.dtype == np.int32 and (np.delete(opened.sizes, BAD, 0) >= 4).all()


def test_it_reads_two_batches_ahead_and_no_more(folder, tmp_path, monkeypatch):
    images = open_as("in a file", folder, tmp_path, monkeypatch).images
    asked = []

    def batches():
        for number in range(10):
            asked.append(number)
            yield torch.tensor([number])

    stream = images.stream(batches())
    next(stream)
    assert asked == [0, 1, 2]
    stream.close()
    monkeypatch.setattr(images, "read", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(images.stream([torch.tensor([0])]))


def test_pictures_are_decoded_once(folder, tmp_path, monkeypatch, caplog):
    open_store(pictures_in(folder), 8, "crop", GREY, tmp_path)
    monkeypatch.setattr(store_files, "load_square", None)
    with caplog.at_level(logging.INFO):
        open_store(pictures_in(folder), 8, "crop", GREY, tmp_path)
    assert "found 24 pictures at 8 px in" in caplog.text and "nothing to decode" in caplog.text


@pytest.mark.parametrize("change", [{"size": 9}, {"resize": "squash"}, {"background": (0, 0, 0)}])
def test_other_settings_have_their_own_store(folder, tmp_path, change):
    arguments = {"size": 8, "resize": "pad", "background": GREY}
    for chosen in (arguments, arguments | change):
        open_store(pictures_in(folder), **chosen, cache=tmp_path)
    assert len(list_stores(tmp_path)) == 2


@pytest.mark.parametrize("name", [store_files.IMAGES, store_files.RECORDS, store_files.ABOUT])
def test_a_damaged_store_is_built_anew(folder, tmp_path, direct, name):
    open_store(pictures_in(folder), 8, "pad", GREY, tmp_path)
    (path,) = tmp_path.glob(f"*/{name}")
    path.unlink() if name == store_files.ABOUT else os.truncate(path, 100)
    assert torch.equal(open_store(pictures_in(folder), 8, "pad", GREY, tmp_path).images[:], direct)


def test_a_journal_of_nonsense_gives_no_more_pictures_than_there_are(folder, tmp_path):
    open_store(pictures_in(folder), 8, "pad", GREY, tmp_path)
    (about,) = tmp_path.glob(f"*/{store_files.ABOUT}")
    about.unlink()
    (unfinished := about.parent.with_suffix(store_files.UNFINISHED)).mkdir()
    for name in (store_files.IMAGES, store_files.RECORDS):
        (about.parent / name).rename(unfinished / name)
    with (unfinished / store_files.RECORDS).open("ab") as journal:
        journal.write(b"\1" * 10 * store_files.RECORD.itemsize)
    assert len(open_store(pictures_in(folder), 8, "pad", GREY, tmp_path).digests) == 24


# killed and interrupted


def make_store(folder: Path, cache: Path, pause: float) -> None:
    store_files.SECONDS, squares.FEW, store_files.AT_ONCE = 0.0, 0, 2
    os.dup2(os.open(cache / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    logging.basicConfig(level=logging.INFO, stream=os.fdopen(2, "w", closefd=False), force=True)
    with signals.watched():
        open_store(pictures_in(folder, pause=pause), 8, "pad", GREY, cache)


def start(folder: Path, cache: Path, pause: float = 0.06):
    process = FORKED.Process(target=make_store, args=(folder, cache, pause))
    process.start()
    return process


def wait_for_records(cache: Path, count: int) -> None:
    end = time.monotonic() + 60
    while not any(store_files.finished(path.parent) >= count for path in cache.glob("*/pictures.bin")):
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.promise("kills")
def test_a_build_that_is_killed_again_and_again_ends_in_the_same_bytes(folder, tmp_path, direct):
    rng, cache = random.Random(0), tmp_path / "killed"
    cache.mkdir()
    for count in (1, 5, 11):
        process = start(folder, cache)
        wait_for_records(cache, count)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        for journal in cache.glob("*/pictures.bin"):  # a record that was being written
            with journal.open("ab") as file:
                file.write(b"\1" * rng.randrange(1, 150))
    process = start(folder, cache)
    process.join(60)
    assert process.exitcode == 0 and "pictures are decoded already" in (cache / "output.txt").read_text()
    whole = open_store(pictures_in(folder), 8, "pad", GREY, tmp_path / "whole")
    found = open_store(pictures_in(folder), 8, "pad", GREY, cache)
    assert torch.equal(found.images[:], direct) and found.errors == whole.errors
    for name in (store_files.IMAGES, store_files.RECORDS):
        (one,), (other,) = cache.glob(f"*/{name}"), (tmp_path / "whole").glob(f"*/{name}")
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.promise("signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_stops_it_and_its_processes_and_the_next_start_goes_on(folder, tmp_path, direct, name):
    process = start(folder, tmp_path)
    wait_for_records(tmp_path, 3)
    assert (children := psutil.Process(process.pid).children(recursive=True))
    os.kill(process.pid, getattr(signal, name))
    process.join(60)
    assert process.exitcode == 128 + getattr(signal, name)
    assert not psutil.wait_procs(children, timeout=2)[1]
    assert "Traceback" not in (tmp_path / "output.txt").read_text()
    assert torch.equal(open_store(pictures_in(folder), 8, "pad", GREY, tmp_path).images[:], direct)


def test_an_interruption_leaves_no_process_to_this_one(folder, tmp_path, monkeypatch):
    def interrupted(progress, count):
        raise Interrupted(2)

    monkeypatch.setattr(squares, "FEW", 0)
    monkeypatch.setattr(store_files.Progress, "update", interrupted)
    with pytest.raises(Interrupted):
        open_store(pictures_in(folder), 8, "pad", GREY, tmp_path)
    assert not multiprocessing.active_children()


def test_two_processes_at_once_build_once(folder, tmp_path):
    first = start(folder, tmp_path, pause=0.1)
    wait_for_records(tmp_path, 1)
    second = start(folder, tmp_path)
    first.join(60), second.join(60)
    text = (tmp_path / "output.txt").read_text()
    assert first.exitcode == second.exitcode == 0
    assert text.count("decoded 24 pictures") == 1
    assert "another process is decoding the same pictures" in text and "decoded by another process" in text


# disks


def test_without_room_a_line_says_what_is_needed(folder, tmp_path, monkeypatch, caplog):
    open_as("no room", folder, tmp_path, monkeypatch)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "take 0.0 MB" in line and str(tmp_path) in line and "0.0 MB free" in line and "data.cache=FOLDER" in line


@pytest.mark.promise("full disks")
def test_a_full_disk_is_one_line_and_the_next_start_goes_on(folder, tmp_path, monkeypatch, direct):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_files, "_append", full)
        with pytest.raises(UserError, match=r"No space left on device.*data\.cache=FOLDER") as caught:
            open_store(pictures_in(folder), 8, "pad", GREY, tmp_path)
    assert "\n" not in str(caught.value)
    assert torch.equal(open_store(pictures_in(folder), 8, "pad", GREY, tmp_path).images[:], direct)


@pytest.mark.promise("full disks")
def test_a_complete_store_is_read_from_a_read_only_disk(folder, tmp_path, direct):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        open_store(pictures_in(folder), 8, "pad", GREY, disk)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert torch.equal(open_store(pictures_in(folder), 8, "pad", GREY, disk).images[:], direct)
        with pytest.raises(UserError, match="Read-only file system"):
            open_store(pictures_in(folder), 9, "pad", GREY, disk)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


# the cache folder


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("CIFAR10_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache() == Path("/home/me/.cache/cifar10")
    monkeypatch.setenv("XDG_CACHE_HOME", "/other")
    assert default_cache() == Path("/other/cifar10")
    monkeypatch.setenv("CIFAR10_CACHE", "~/own")
    assert default_cache() == Path("/home/me/own")


def test_clearing_takes_our_stores_but_not_what_is_in_use(folder, tmp_path, monkeypatch):
    (tmp_path / "precious").mkdir()
    open_store(pictures_in(folder), 8, "crop", GREY, tmp_path, name="of cats")
    in_use = open_as("in a file", folder, tmp_path, monkeypatch)
    assert {(found.name, found.count, found.size) for found in list_stores(tmp_path)} == {
        ("of cats", 24, 8),
        ("", 24, 8),
    }
    freed = {found.name: found.nbytes for found in list_stores(tmp_path)}["of cats"]
    assert clear_cache(tmp_path) == freed > 24 * 192
    assert [found.name for found in list_stores(tmp_path)] == [""]
    in_use.images.file.close()
    assert clear_cache(tmp_path) > 0 and [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert list_stores(tmp_path / "nowhere") == [] and clear_cache(tmp_path / "nowhere") == 0


@pytest.mark.parametrize("text", ["", "[]", "3", '{"pictures": "many"}', "{"])
def test_a_store_whose_description_is_damaged_is_listed_and_can_be_cleared(folder, tmp_path, text):
    open_store(pictures_in(folder), 8, "crop", GREY, tmp_path, name="of cats")
    (about,) = tmp_path.glob(f"*/{store_files.ABOUT}")
    about.write_text(text)
    assert [(found.name, found.count) for found in list_stores(tmp_path)] == [("", 0)]
    assert clear_cache(tmp_path) > 0 and not list(tmp_path.iterdir())


def test_a_folder_that_goes_while_it_is_read_is_no_fault_of_its_pictures(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "there")
    pictures = pictures_in(moved)
    moved.rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"^0\.png could not be read \(No such file or directory\), though"):
        open_store(pictures, 8, "pad", GREY, tmp_path / "cache")
    (tmp_path / "away").rename(moved)
    assert list(open_store(pictures, 8, "pad", GREY, tmp_path / "cache").errors) == [BAD]


@pytest.mark.parametrize("few", [0, 100])
def test_a_picture_that_goes_in_mid_training_is_not_taken_for_a_black_one(folder, tmp_path, monkeypatch, few):
    pictures = pictures_in(shutil.copytree(folder, tmp_path / "there"))
    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        opened = open_store(pictures, 8, "pad", GREY, tmp_path / "cache")
    (tmp_path / "there" / "3.png").unlink()
    monkeypatch.setattr(squares, "FEW", few)
    with pytest.raises(UserError, match=r"^3\.png: No such file or directory: it could be read before; put it back"):
        list(opened.images.stream([torch.tensor([BAD, 3])]))
