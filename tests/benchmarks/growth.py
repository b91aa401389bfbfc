"""How seconds grow with the number of images, and how images/s fall with their size."""

from collections.abc import Iterator

from tests.benchmarks.delivery import data_module
from tests.benchmarks.fine_tuning import frozen_inference
from tests.benchmarks.results import Result, Series, in_turn
from tests.benchmarks.settings import Settings
from tests.benchmarks.training import configured_epoch

COUNTS = (1_000, 5_000, 10_000, 50_000)
SIZES = (32, 64, 96, 128, 224)


def growth(settings: Settings) -> Iterator[Result]:
    counts = (64, 128) if settings.quick else [count for count in COUNTS if count <= settings.total]
    yield from series(settings, "data path, 32 px", [delivery_seconds(settings, count) for count in counts])
    longest = max(settings.images or 0, 10_000)
    counts = [count for count in counts if count <= min(longest, settings.total * 4 // 5)]
    yield from series(settings, "CNN, epoch with validation", [epoch_seconds(settings, count) for count in counts])

    sizes, images = SIZES[:2] if settings.quick else SIZES, settings.count(256)
    delivered = [Series(f"{size} px", "images/s", data_module(settings, images, size)) for size in sizes]
    yield from series(settings, "data path", delivered)
    frozen = [Series(f"{size} px", "images/s", frozen_inference(settings, images, size)) for size in sizes]
    yield from series(settings, "B0, frozen", frozen)


def series(settings: Settings, name: str, measured: list[Series]) -> list[Result]:
    """Measured in turn; each beside the first."""
    in_turn(f"growth, {name}", settings.repeats, *measured)
    first, *others = measured
    return [Result("growth", name, first), *(Result("growth", name, other, first) for other in others)]


def delivery_seconds(settings: Settings, count: int) -> Series:
    rate = data_module(settings, count, 32)
    return Series(f"{count:,} images", "s", lambda: count / rate(), count)


def epoch_seconds(settings: Settings, count: int) -> Series:
    total = count + count // 4
    return Series(f"{count:,} + {count // 4:,} images", "s", lambda: configured_epoch(settings, count).seconds, total)
