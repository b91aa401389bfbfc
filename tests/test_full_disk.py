"""Disks that are full and folders that are read-only: the files of before survive, and one line says what happened."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.killing import train

RUN = ["data=shapes", "data.batch_size=20", "trainer.max_epochs=2", "hydra.run.dir=run"]


@pytest.fixture
def small_disk(tmp_path):
    """A function that makes a file system of so many bytes, with a way to fill it up to so many free bytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path, leave: int) -> None:
    """Fill the disk but for so many bytes."""
    (disk / "ballast").unlink(missing_ok=True)
    free = shutil.disk_usage(disk).free
    with (disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - leave)


def output(folder: Path) -> str:
    return (folder / "output.txt").read_text()


def assert_one_line(folder: Path, reason: str) -> None:
    assert output(folder).splitlines()[-1].startswith("error: ") and reason in output(folder).splitlines()[-1]
    assert "Traceback" not in output(folder) and "Error executing" not in output(folder), output(folder)


@pytest.mark.promise("full disks")
@pytest.mark.parametrize("leave", [0, 100_000, 1_500_000], ids=["resume, full", "resume, 100 kB", "resume, 1.5 MB"])
def test_a_full_disk_leaves_the_run_as_it_was(small_disk, shapes_root, tmp_path, leave):
    assert train(small_disk, *RUN, f"data.root={shapes_root}") == 0
    files = {
        name: small_disk / "run" / name for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "metrics.csv")
    }
    before = {name: file.read_bytes() for name, file in files.items()}
    fill(small_disk, leave)
    assert train(tmp_path, "resume=disk/run", "trainer.max_epochs=4") == 1, output(tmp_path)
    assert_one_line(tmp_path, "No space left on device")
    after = {name: file.read_bytes() for name, file in files.items() if name != "metrics.csv"}
    assert after == {name: content for name, content in before.items() if name != "metrics.csv"}
    assert not list((small_disk / "run").rglob("*.tmp"))
    (small_disk / "ballast").unlink()
    assert train(tmp_path, "resume=disk/run", "trainer.max_epochs=4") == 0, "with space again it goes on"


@pytest.mark.promise("full disks")
@pytest.mark.parametrize("leave", [0, 1_000_000], ids=["a new run, full", "a new run, 1 MB"])
def test_a_new_run_on_a_full_disk_is_one_line(small_disk, shapes_root, tmp_path, leave):
    fill(small_disk, leave)
    assert train(tmp_path, *RUN, f"data.root={shapes_root}", "hydra.run.dir=disk/run") == 1
    assert_one_line(tmp_path, "No space left on device")


@pytest.mark.promise("full disks")
@pytest.mark.parametrize("leave", [0, 20_000, 500_000], ids=["report, full", "report, 20 kB", "report, 500 kB"])
def test_a_report_is_whole_or_absent(small_disk, shapes_root, tmp_path, leave):
    assert train(small_disk, *RUN, f"data.root={shapes_root}") == 0
    fill(small_disk, leave)
    assert train(tmp_path, "run=disk/run", script="evaluate.py") == 1
    assert_one_line(tmp_path, "No space left on device")
    folder = small_disk / "run" / "evaluation"
    assert not (folder / "report.html").exists() and not list(folder.rglob("*.tmp"))
    (small_disk / "ballast").unlink()
    assert train(tmp_path, "run=disk/run", script="evaluate.py") == 0


@pytest.mark.promise("full disks")
@pytest.mark.parametrize("what", ["a new run, read-only", "resume, read-only", "report, read-only"])
def test_a_read_only_folder_is_one_line(small_disk, shapes_root, tmp_path, what):
    assert train(small_disk, *RUN, f"data.root={shapes_root}") == 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    arguments, script = {
        "a new run, read-only": (["hydra.run.dir=disk/new", *RUN[:3], f"data.root={shapes_root}"], "train.py"),
        "resume, read-only": (["resume=disk/run", "trainer.max_epochs=3"], "train.py"),
        "report, read-only": (["run=disk/run"], "evaluate.py"),
    }[what]
    assert train(tmp_path, *arguments, script=script) == 1
    assert_one_line(tmp_path, "Read-only file system")
