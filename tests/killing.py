"""Runs train.py in processes of their own, which are killed at chosen moments or at random ones.

The processes are forked from one that has PyTorch loaded, so that a short run takes a second or two.
"""

import contextlib
import csv
import io
import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar10.signals import signals

PROJECT = Path(__file__).parent.parent
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.killing", "cifar10.training.run", "cifar10.training.build"])


def start(folder: Path, *arguments: str, kill: str | None = None, script: str = "train.py") -> multiprocessing.Process:
    """`python SCRIPT ARGUMENTS` in a folder; its output goes to `output.txt` there. kill: a name in `MOMENTS`."""
    process = CONTEXT.Process(target=_run, args=(script, str(folder), arguments, kill))
    process.start()
    return process


def train(folder: Path, *arguments: str, kill: str | None = None, script: str = "train.py") -> int:
    """Start it and wait; the exit code is negative for a signal."""
    process = start(folder, *arguments, kill=kill, script=script)
    process.join(300)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def _run(script: str, folder: str, arguments: tuple[str, ...], kill: str | None) -> None:
    os.chdir(folder)
    os.environ.pop("CIFAR10_WEIGHTS", None)
    for descriptor in (1, 2):
        os.dup2(os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    torch.set_num_threads(1)
    sys.argv = [script, *arguments]
    if kill is not None:
        moment, _, count = kill.partition(" #")
        count, *environment = count.split() or ["1"]
        os.environ.update(variable.split("=", 1) for variable in environment)
        MOMENTS[moment](int(count))
    try:
        runpy.run_path(str(PROJECT / script), run_name="__main__")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def die(*arguments: object, **options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(place: str, count: int, then: Callable = die, only: Callable = lambda *arguments: True) -> None:
    """Kill before the count-th call of a function or method, named `module.Class.method`, that `only` holds for."""
    parts = place.split(".")
    module = next(n for n in range(len(parts) - 1, 0, -1) if ".".join(parts[:n]) in sys.modules)
    owner = sys.modules[".".join(parts[:module])]
    for name in parts[module:-1]:
        owner = getattr(owner, name)
    original, calls = getattr(owner, parts[-1]), 0

    def wrapped(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += only(*arguments)
        if calls == count and only(*arguments):
            then(*arguments, **options)
        return original(*arguments, **options)

    setattr(owner, parts[-1], wrapped)


def half_written(source: Path, target: Path) -> None:
    """Leave half of a file that was about to replace another, as if it had died while writing it."""
    os.truncate(source, os.path.getsize(source) // 2)
    die()


def wait_for_a_signal(*arguments: object, **options: object) -> None:
    """Say that the moment has come, and wait for a signal: until it has been noted, or raises its exception."""
    Path("here").touch()
    while signals.received is None and not Path("go on").exists():
        time.sleep(0.01)


def wait_for_ever(*arguments: object, **options: object) -> None:
    Path("here").touch()
    while True:
        time.sleep(0.01)


def of(*names: str) -> Callable[..., bool]:
    """Whether a file of one of these names is replaced."""
    return lambda source, target: Path(target).name in names


MODULE = "cifar10.models.classifier.ImageClassifier"
TWO_PHASE = "cifar10.callbacks.two_phase.TwoPhaseFineTuning"
CHECKPOINT = "cifar10.callbacks.checkpoint"
REPLACE = "os.replace"  # the last step of every atomic write
MOMENTS: dict[str, Callable[[int], None]] = {
    "before a step": lambda n: at_call(f"{MODULE}.training_step", n),
    "after a backward pass": lambda n: at_call("torch.optim.optimizer.Optimizer.zero_grad", n),
    "during validation": lambda n: at_call(f"{MODULE}.validation_step", n),
    "after validation": lambda n: at_call(f"{CHECKPOINT}.Checkpoint.on_train_epoch_end", n),
    "as an epoch begins": lambda n: at_call(f"{MODULE}.on_train_epoch_start", n),
    "with a checkpoint half written": lambda n: at_call(REPLACE, n, half_written, of("best.ckpt", "last.ckpt")),
    "before a checkpoint is in its place": lambda n: at_call(REPLACE, n, only=of("last.ckpt")),
    "before best.ckpt is in its place": lambda n: at_call(REPLACE, n, only=of("best.ckpt")),
    "between best.ckpt and last.ckpt": lambda n: at_call(f"{CHECKPOINT}.Checkpoint._copy", n),
    "before metrics.csv is in its place": lambda n: at_call(REPLACE, n, only=of("metrics.csv")),
    "at the switch": lambda n: at_call(f"{TWO_PHASE}._switch", n),
    "behind the switch": lambda n: at_call(f"{MODULE}.on_train_epoch_start", n),
    "while features are computed": lambda n: at_call("cifar10.data.feature_cache.FeatureCache.write", n),
    "after the last epoch": lambda n: at_call("cifar10.training.run.training_seconds", n),
    "before run.json is in its place": lambda n: at_call(REPLACE, n, only=of("run.json")),
    # no kills: the process waits for signals
    "waits in a step": lambda n: at_call(f"{MODULE}.training_step", n, wait_for_a_signal),
    "never ends a step": lambda n: at_call(f"{MODULE}.training_step", n, wait_for_ever),
    "waits in validation": lambda n: at_call(f"{MODULE}.validation_step", n, wait_for_a_signal),
    "waits while features are computed": lambda n: at_call(
        "cifar10.data.feature_cache.FeatureCache.write", n, wait_for_ever
    ),
    "environment": lambda n: None,
}


def outcome(run: Path) -> dict[str, object]:
    """Everything that a run leaves but its times: checkpoints, metrics, TensorBoard's events, summary."""
    found: dict[str, object] = {}
    for name in ("last", "best"):
        checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        checkpoint["callbacks"] = {key: value for key, value in checkpoint["callbacks"].items() if "Timer" not in key}
        log = next(value for key, value in checkpoint["callbacks"].items() if "EpochLog" in key)
        del log["elapsed"]
        log["rows"] = [{key: value for key, value in row.items() if key != "seconds"} for row in log["rows"]]
        found |= flat(checkpoint, name)
    with (run / "metrics.csv").open() as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    found["metrics.csv"] = rows
    for stage in sorted(folder.name for folder in (run / "tensorboard").iterdir()):  # without validation, only train
        events = EventAccumulator(str(run / "tensorboard" / stage), size_guidance={"scalars": 0, "images": 0})
        with contextlib.redirect_stderr(io.StringIO()):
            events.Reload()
        for tag in events.Tags()["scalars"]:
            found[f"tensorboard {stage} {tag}"] = [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["images"]:
            found[f"tensorboard {stage} {tag}"] = [(e.step, e.encoded_image_string) for e in events.Images(tag)]
    summary = json.loads((run / "run.json").read_text())
    for timed in (summary, *summary["cost"]["phases"]):
        del timed["seconds"]
    return found | {"run.json": summary}


def flat(value: object, name: str) -> dict[str, object]:
    """The leaves of nested dicts and lists by path; tensors as bytes with dtype and shape, so that NaN equals NaN."""
    if isinstance(value, torch.Tensor):
        return {name: (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())}
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: leaf for key, item in pairs for path, leaf in flat(item, f"{name}.{key}").items()}
    return {name: value}


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
