"""What a command costs as a process of its own: seconds to start, and peak memory."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cifar10.errors import UserError
from tests.benchmarks.measure import Settings, measure
from tests.benchmarks.training import B0_96, configured_fit, overrides

TRAIN = Path(__file__).parents[2] / "train.py"
LAUNCH = Path(__file__).with_name("launch.py")
ONE_STEP = ["trainer.max_epochs=1", "+trainer.limit_train_batches=1", "+trainer.limit_val_batches=1"]
RUNS = {  # by name: training images, settings, what is wanted of the peak
    "CNN": (8192, ["trainer.max_epochs=1"], "<= 1.5 GB"),
    "B0 96 px, cached, both phases": (
        1024,
        [*B0_96, "callbacks.feature_caching.views=2", "callbacks.two_phase.head_epochs=1", "trainer.max_epochs=2"],
        "<= 4 GB",
    ),
}


def startup(settings: Settings) -> Iterator[dict]:
    def seconds(*arguments: str | Path) -> Callable[[], float]:
        return lambda: launch(*arguments)["seconds"]

    for shown in (["--help"], ["--cfg", "job"]):
        yield measure(settings, "startup", " ".join(shown), "s", {"train.py": seconds(TRAIN, *shown)}, "<= 1.5 s")
    one_step = [*overrides(settings, settings.count(40_000)), *ONE_STEP]
    whole = {"train.py": seconds(TRAIN, *one_step), "import torch": seconds("-c", "import torch")}
    yield measure(settings, "startup", "a run of one step, from start to end", "s", whole)


def memory(settings: Settings) -> Iterator[dict]:
    for name, (default, extra, wanted) in RUNS.items():
        images = settings.count(default)
        title, command = f"{name}, {images:,} + {images // 4:,} images", [*overrides(settings, images), *extra]
        peak = {"peak resident": lambda command=command: launch(TRAIN, *command)["peak_bytes"] / 1e9}
        yield measure(settings, "memory", title, "GB", peak, wanted)
        if settings.device.type == "cuda":
            peak = {"peak on the GPU": lambda images=images, extra=extra: peak_on_gpu(settings, images, extra)}
            yield measure(settings, "memory", title, "GB", peak)


def peak_on_gpu(settings: Settings, images: int, extra: list[str]) -> float:
    """The most that the same run's tensors take on the GPU, in GB."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    configured_fit(settings, images, extra)
    return torch.cuda.max_memory_allocated() / 1e9


def launch(*arguments: str | Path) -> dict[str, float]:
    """Seconds and peak_bytes of Python with these arguments, in a folder of its own; UserError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", "-S", LAUNCH, sys.executable, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
        raise UserError(f"{Path(arguments[0]).name} {' '.join(map(str, arguments[1:]))}: {reason}")
    return json.loads(done.stdout)
