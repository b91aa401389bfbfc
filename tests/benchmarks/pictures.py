"""A folder of photographs: starting with and without a store, memory, and delivery, beside workers that decode."""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from cifar10.data.preprocessing import Preprocessing
from tests.benchmarks.data import MEAN, STD
from tests.benchmarks.measure import BATCH, Settings, measure, now
from tests.benchmarks.processes import launch

SIZE, SIDES = 224, (500, 375)  # of the network's input, and of the photographs
CLASSES = 10
WARM_UP, MOST = 1, 20_000  # batches before the clock starts, and images of an epoch that are measured
START = """
import sys
sys.path.insert(0, {project!r})
from tests.benchmarks.pictures import load
datamodule = load({folder!r}, {cache!r})
for batch in datamodule.train_dataloader() if {epoch} else ():
    datamodule.on_after_batch_transfer(batch)
"""


def pictures(settings: Settings) -> Iterator[dict]:
    """Each start is a process of its own; the last row is the beginning of an epoch in this process."""
    with contextlib.ExitStack() as stack:
        folder = settings.pictures or stack.enter_context(tempfile.TemporaryDirectory())
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        if settings.pictures is None:
            draw_photographs(Path(folder), settings.count(2000))
        count = sum(1 for _ in Path(folder).rglob("*.jpg"))
        title = f"{count:,} JPEG files of {SIDES[0]} x {SIDES[1]}"
        project = str(Path(__file__).parents[2])

        def start(epoch: bool = False) -> dict[str, float]:
            return launch("-c", START.format(project=project, folder=str(folder), cache=cache, epoch=epoch))

        first = start()
        once = {"first start": lambda: first["seconds"], "second start": lambda: start()["seconds"]}
        yield measure(settings, "pictures", title, "s", once)
        peak = {"peak resident, with an epoch": lambda: max(first["peak_bytes"], start(True)["peak_bytes"]) / 1e9}
        yield measure(settings, "pictures", title, "GB", peak, "<= 4 GB")
        both = {"data module": data_module(str(folder), cache), "torchvision, 2 workers": torchvision_workers(folder)}
        yield measure(settings, "pictures", f"{title}, delivered at {SIZE} px", "images/s", both)


def load(folder: str, cache: str):
    """The data module with random crops and flips, its store open."""
    from cifar10.data.datamodule import CIFAR10DataModule

    datamodule = CIFAR10DataModule(
        folder, "folder", batch_size=BATCH, cache=cache, test_size=1, val_size=1, crop_scale=[0.35, 1.0], flip=True
    )
    datamodule.prepare_data()
    datamodule.use_preprocessing(Preprocessing(SIZE, MEAN, STD))
    datamodule.setup("fit")
    return datamodule


def data_module(folder: str, cache: str) -> Callable[[], float]:
    datamodule = load(folder, cache)
    return delivered(datamodule.train_dataloader(), datamodule.on_after_batch_transfer)


def torchvision_workers(folder: str | Path) -> Callable[[], float]:
    """The usual way: every epoch decodes every file in two workers."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, (0.35, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    dataset = ImageFolder(folder, transform)
    return delivered(DataLoader(dataset, BATCH, shuffle=True, num_workers=2), lambda batch: batch)


def delivered(batches: Iterable[tuple], finish: Callable[[tuple], object]) -> Callable[[], float]:
    """Measures images/s over the beginning of an epoch, once it is under way."""

    def rate() -> float:
        images = 0
        for number, batch in enumerate(batches):
            if number == WARM_UP:
                begun, images = now(), 0
            images += len(finish(batch)[0])
            if images >= MOST:
                break
        return images / (now() - begun)

    return rate


def draw_photographs(folder: Path, count: int) -> None:
    """Smooth colours under fine noise, which make a JPEG file as large as a photograph's."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 6, (16, SIDES[1], SIDES[0], 1))
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
            SIDES, Image.Resampling.BICUBIC
        )
        pixels = np.clip(np.asarray(coarse) + noise[number % len(noise)], 0, 255).astype(np.uint8)
        place = folder / str(number % CLASSES) / f"{number:06d}.jpg"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place, quality=85)
