"""cifar10.training.run: what a run leaves in its folder for others to read."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytorch_lightning as pl

from cifar10.inference.finished_runs import open_run
from cifar10.training import run


class Watcher(pl.Callback):
    changes_training = False


class Unknown(pl.Callback):
    pass


def test_a_callback_makes_another_recipe_unless_it_says_that_it_only_watches(command, tiny):
    small = [*tiny, "logger=null", "callbacks.dashboard=null"]
    own = [f"+callbacks.{name.lower()}={{_target_: tests.training.test_run.{name}}}" for name in ("Watcher", "Unknown")]
    for folder, added in (("plain", []), ("watched", own[:1]), ("changed", own)):
        assert command("train.py", *small, *added, f"hydra.run.dir={folder}") == 0, command.err
    assert json.loads(Path("watched/run.json").read_text())["watchers"][-1] == "watcher"
    plain, watched, changed = (open_run(Path(folder)).recipe for folder in ("plain", "watched", "changed"))
    assert watched == plain
    assert changed.keys() - plain.keys() == {"callbacks.unknown._target_"}


def test_only_the_first_process_concludes_a_run():
    """The others have no Hydra, and would end the first one by their error while it is still at work."""
    assert run.conclude(None, None, None, SimpleNamespace(is_global_zero=False), {}, None) is None
