"""`python -m cifar10`: says what there is at once, and explores a data set from the first command to its end."""

import json
import subprocess
import sys

import pytest

from cifar10 import __main__ as front_door
from tests.conftest import PROJECT, TINY_BACKBONE

DOOR = "cifar10/__main__.py"


@pytest.fixture
def explore(command, shapes_root):
    """Runs the command on drawn pictures with a tiny backbone of random weights."""
    pytest.importorskip("cleanlab")

    def run(*arguments: str) -> int:
        data = ["data=shapes", f"data.root={shapes_root}", "data.val_size=40"]
        small = [f"backbone={TINY_BACKBONE}", "pretrained=false", "image_size=32", "images=60"]
        return command(DOOR, "explore", *data, *small, *arguments)

    return run


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_every_command_is_listed(command, arguments):
    assert command(DOOR, *arguments) == 0
    for name, entry in front_door.COMMANDS.items():
        assert f"  {name} " in command.out and entry.summary in command.out


def test_the_list_of_commands_needs_neither_torch_nor_a_data_set(tmp_path):
    code = "import runpy, sys; sys.argv = ['cifar10']; runpy.run_module('cifar10', run_name='__main__');"
    code += "sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(PROJECT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment).returncode == 0


def test_an_unknown_command_is_one_line_with_a_suggestion(command):
    assert command(DOOR, "explor") == "error: explor: no such command; did you mean explore?"
    assert command(DOOR, "zzz=1") == "error: zzz=1: no such command; there are: explore, predict, export, serve, cache"


@pytest.mark.parametrize("name", front_door.COMMANDS)
def test_every_command_has_settings_and_help(command, name):
    assert command(DOOR, name, "--help") == 0, command.err
    assert f"python -m cifar10 {name}" in command.out and "Settings (key=value)" in command.out


def test_explore_writes_a_page_and_says_what_to_do_next(explore, command, shapes_root, tmp_path):
    assert explore() == 0, command.err
    [page] = tmp_path.glob("outputs/explore/*/explore.html")
    assert f"the page is {page.relative_to(tmp_path)}; beside it explore.json" in command.out
    assert f"python train.py data=shapes data.root={shapes_root} data.val_size=40 model=efficientnet_b0" in command.out
    facts = json.loads((page.parent / "explore.json").read_text())
    assert facts["pictures"] == 240 and facts["looked_at_closely"] == 60
    assert [sum(each.values()) for each in facts["counts"].values()] == [160, 40, 40]
    assert {one["split"] for one in facts["label_errors"]} <= {"train", "val"}
    assert {file.name for file in page.parent.iterdir() if file.is_file()} == {"explore.html", "explore.json"}
    assert list(page.parent.glob("projector_*/projector_config.pbtxt"))
    assert not list(tmp_path.rglob(".hydra"))


def test_without_weights_and_network_the_rest_is_there(explore, command, monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("cifar10.models.backbones.timm.create_model", refuse)
    assert explore("pretrained=true", "output=page") == 0, command.err
    assert "could not be downloaded" in command.out and "weights=FILE" in command.out
    assert (tmp_path / "page" / "explore.html").is_file() and not list(tmp_path.rglob("projector*"))
    assert explore("backbone=null", "output=page") == 0, "a page is replaced"


MISTAKES = {
    "imges=3": "imges: no such setting; did you mean images",
    "images=1": "images=1: must be at least 2",
    "images=many": "images=many: must be a whole number",
    "image_size=0": "image_size=0: must be at least one pixel",
    "label_splits=[training]": "label_splits: training is no split; there are train, val, test",
    "label_splits=train": "label_splits=train: must be a list of texts",
    "backbone=efficientnet_b00": "backbone=efficientnet_b00: timm has no such model; did you mean",
    "weights=none.pth": "weights=none.pth: no such file",
    "data.root=null": "data.root=None: must be text",
    "data.batch=3": "data.batch: no such setting; did you mean",
}


@pytest.mark.promise("configurations")
@pytest.mark.parametrize("argument", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(explore, command, tmp_path, argument):
    assert explore(argument) == 1
    assert command.err.strip().splitlines()[-1].startswith(f"error: {MISTAKES[argument]}"), command.err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_found_out_before_the_work(explore, command, tmp_path):
    (tmp_path / "file").write_text("")
    assert explore("output=file/page") == 1
    assert "name a writable folder: output=FOLDER" in command.err and "features" not in command.out


def test_the_cache_is_listed_and_cleared(command, monkeypatch, tmp_path):
    cache = pytest.importorskip("cifar10.data.store.cache")
    store = cache.Listed(tmp_path / "a", "photos", 1200, 224, 180_633_600, 86_400.0 * 15)
    monkeypatch.setattr(cache, "list_stores", lambda folder: [store] if folder == tmp_path else [])
    monkeypatch.setattr(cache, "clear_cache", lambda folder: 180_633_600)
    assert command(DOOR, "cache", f"cache={tmp_path}") == 0, command.err
    assert "180.6 MB  1,200 pictures of photos at 224 px, last used 1970-01-1" in command.out
    assert command(DOOR, "cache", f"cache={tmp_path}", "clear=true") == 0, command.err
    assert f"{tmp_path}: 180.6 MB removed" in command.out and "photos" not in command.out
    assert command(DOOR, "cache", f"cache={tmp_path}", "clear=maybe") == 1
    assert command.err == "error: clear=maybe: must be true or false\n"
