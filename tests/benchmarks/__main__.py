"""Measure the codebase beside the usual way to do the same, in turn, on this machine.

python -m tests.benchmarks                        everything: a table, and JSON under outputs/benchmark/
python -m tests.benchmarks --only data startup    two sections of it
"""

import argparse
import sys
import time
from pathlib import Path

from cifar10.errors import UserError
from cifar10.machine import keep_freed_memory

SECTIONS = {
    "data": "images delivered ready for the network, beside torchvision's per-image transforms in two workers",
    "pictures": "a folder of photographs: first and second start, memory, and delivery, beside decoding in two workers",
    "epoch": "an epoch of the CNN, beside a bare PyTorch loop and beside plain Lightning",
    "cache": "both phases of EfficientNet-B0 with cached features, beside computing them in every step",
    "backbone": "EfficientNet-B0 at 224 px, beside a bare timm loop and the chip's matrix rate",
    "startup": "--help, --cfg job and a run of one step, beside import torch",
    "memory": "peak memory of a run of the CNN and of EfficientNet-B0",
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__.splitlines()[0],
        epilog="sections:\n" + "\n".join(f"  {name:<8}  {what}" for name, what in SECTIONS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--only", metavar="SECTION", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--images", type=int, help="training images of each measurement; each has its own default")
    parser.add_argument("--repeats", type=int, default=3, help="the median of this many is reported (default: 3)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--root", help="the folder that holds cifar-10-batches-py/ (default: CIFAR10_ROOT, or data)")
    parser.add_argument("--pictures", help="a folder of JPEG files in class folders, in place of drawn ones")
    parser.add_argument("--output", type=Path, help="JSON file (default: outputs/benchmark/DATE_TIME.json)")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that everything runs, and no more")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, write JSON after every measurement, and print the table."""
    options = parse(arguments)
    output = options.output or Path(f"outputs/benchmark/{time.strftime('%Y-%m-%d_%H-%M-%S')}.json")
    keep_freed_memory()  # as train.py does, before torch is imported
    print("loading PyTorch and Lightning", file=sys.stderr)
    from tests.benchmarks import backbone, data, pictures, processes, training
    from tests.benchmarks.measure import Settings, environment, table, write

    measure = {
        "data": data.data,
        "pictures": pictures.pictures,
        "epoch": training.epoch,
        "cache": training.cache,
        "backbone": backbone.backbone,
        "startup": processes.startup,
        "memory": processes.memory,
    }
    try:
        settings = Settings.from_options(options)
        about, results = environment(settings), []
        write(output, about, results)  # a file that cannot be written is an error now, not after ten minutes
        for name in options.only:
            for result in measure[name](settings):
                results.append(result)
                write(output, about, results)
    except UserError as error:
        sys.exit(f"error: {error}")
    print("\n".join(f"{key}: {value}" for key, value in about.items()), table(results), output, sep="\n\n")


if __name__ == "__main__":
    main()
