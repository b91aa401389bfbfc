"""What a command costs as a process of its own: seconds to start, and peak memory."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cifar10.errors import UserError
from tests.benchmarks.results import Result, Series, in_turn
from tests.benchmarks.settings import Settings
from tests.benchmarks.training import configured_epoch, overrides

TRAIN = Path(__file__).parents[2] / "train.py"
LAUNCH = Path(__file__).with_name("launch.py")
ONE_STEP = ["trainer.max_epochs=1", "+trainer.limit_train_batches=1", "+trainer.limit_val_batches=1"]
B0 = [
    "model=efficientnet_b0",
    "model.pretrained=false",
    "model.weights=null",
    "data.image_size=96",
    "callbacks.feature_caching.views=2",
    "callbacks.two_phase.head_epochs=1",
    "trainer.max_epochs=2",
]


def startup(settings: Settings) -> Iterator[Result]:
    one_step = run_arguments(settings, settings.count(40_000), ONE_STEP)
    shown = Series("train.py --help", "s", lambda: launch(TRAIN, "--help")["seconds"])
    composed = Series("train.py --cfg job", "s", lambda: launch(TRAIN, "--cfg", "job")["seconds"])
    stepped = Series("train.py", "s", lambda: launch(TRAIN, *one_step)["seconds"])
    imported = Series("import torch", "s", lambda: launch("-c", "import torch")["seconds"])
    in_turn("startup", settings.repeats, shown, composed, stepped, imported)
    yield Result("startup", "help", shown, wanted="<= 1.5 s")
    yield Result("startup", "configuration", composed)
    yield Result("startup", "a run of one step, from start to end", stepped, imported)


def memory(settings: Settings) -> Iterator[Result]:
    runs = (
        ("CNN", settings.count(8192), [], "<= 1.5 GB"),
        ("B0 96 px, cached, both phases", settings.count(1024), B0, "<= 4 GB"),
    )
    for name, images, extra, wanted in runs:
        peak = Series("peak resident", "GB", peak_resident(run_arguments(settings, images, extra)))
        peaks = [peak]
        if settings.device.type == "cuda":
            peaks.append(Series("peak on the GPU", "GB", peak_on_gpu(settings, images, extra)))
        title = f"{name}, an epoch of {images:,} + {images // 4:,}"
        in_turn(f"memory, {title}", settings.repeats, *peaks)
        yield Result("memory", title, peak, wanted=wanted)
        yield from (Result("memory", title, other) for other in peaks[1:])


def run_arguments(settings: Settings, images: int, extra: list[str]) -> list[str]:
    """Arguments of train.py, for one epoch unless `extra` says otherwise, in the current folder."""
    return [*overrides(settings, images), "hydra.run.dir=run", *(extra or ["trainer.max_epochs=1"])]


def launch(*arguments: str | Path) -> dict[str, float]:
    """Seconds and peak_bytes of Python with these arguments, in a folder of its own; UserError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", "-S", LAUNCH, sys.executable, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
        raise UserError(f"{Path(arguments[0]).name} {' '.join(map(str, arguments[1:]))}: {reason}")
    return json.loads(done.stdout)


def peak_resident(arguments: list[str]) -> Callable[[], float]:
    """Measures the peak memory of train.py in GB."""
    return lambda: launch(TRAIN, *arguments)["peak_bytes"] / 1e9


def peak_on_gpu(settings: Settings, images: int, extra: list[str]) -> Callable[[], float]:
    """Measures the most that the same run's tensors take on the GPU, in GB."""

    def measure() -> float:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        configured_epoch(settings, images, extra)
        return torch.cuda.max_memory_allocated() / 1e9

    return measure
