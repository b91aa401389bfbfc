"""cifar10.files: a write is atomic, a lock is held by one process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar10.errors import UserError
from cifar10.files import atomic_write, locked, remove_leftovers

PROJECT = Path(__file__).parent.parent


def test_a_file_appears_whole_with_the_usual_rights(tmp_path):
    with atomic_write(tmp_path / "a", "w", encoding="utf-8") as file:
        file.write("new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_text() == "new" and [path.name for path in tmp_path.iterdir()] == ["a"]
    (tmp_path / "usual").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_an_error_leaves_the_previous_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "a") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "a").write_text("old")
    full = r"a cannot be written \(No space left on device\); the previous file"
    with pytest.raises(UserError, match=full), atomic_write(tmp_path / "a"):
        raise OSError(28, os.strerror(28))
    with pytest.raises(UserError, match="nowhere/a cannot be written"), atomic_write(tmp_path / "nowhere" / "a"):
        pass


@pytest.mark.promise("kills")
def test_killed_while_a_file_is_written(tmp_path):
    (tmp_path / "a").write_text("old")
    code = (
        "import os, signal\nfrom cifar10.files import atomic_write\n"
        "with atomic_write('a') as file:\n    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert result.returncode == -signal.SIGKILL and (tmp_path / "a").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_lock_belongs_to_one_process_and_ends_with_it(tmp_path):
    code = "import time, cifar10.files as f\nwith f.locked('lock'):\n    print(flush=True); time.sleep(600)"
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    other = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(UserError, match="somebody else"), locked(tmp_path / "lock", "somebody else has it"):
            pass
    finally:
        other.kill()
        other.wait()
    with locked(tmp_path / "lock", "somebody else has it"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_link_names_is_replaced_and_not_the_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("old")
    (tmp_path / "link").symlink_to("folder/file")
    with atomic_write(tmp_path / "link", "w") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder/file").read_text() == "new"


def test_what_is_no_regular_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UserError, match="not a regular file"), atomic_write(path) as file:
            file.write(b"x")
    assert (tmp_path / "pipe").is_fifo()
