"""Measure the codebase beside the usual way to do the same, on this machine.

python -m tests.benchmarks                        everything: a table, and JSON under outputs/benchmark/
python -m tests.benchmarks --only data,startup    two sections of it
"""

import argparse
import difflib
import sys
import time
from pathlib import Path
from typing import NoReturn

from cifar10.commandline.command import fail
from cifar10.errors import UserError, cause_of
from cifar10.machine import keep_freed_memory

SECTIONS = {
    "data": "images delivered ready for the network, beside torchvision's per-image transforms in two workers",
    "step": "an epoch of the CNN, beside a bare PyTorch loop and beside plain Lightning",
    "cache": "both phases of EfficientNet-B0 with cached features, beside computing them in every step",
    "backbone": "EfficientNet-B0 at 224 px, beside a bare timm loop and the chip's matrix rate",
    "startup": "--help, --cfg job and a run of one step, beside import torch",
    "memory": "peak memory of an epoch of the CNN and of EfficientNet-B0",
    "growth": "how seconds grow with the number of images and with their size",
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    try:
        options = parse(arguments)
        run(options)
    except UserError as error:
        fail(error)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; UserError for a mistake in them."""
    listed = "\n".join(f"  {name:<8}  {what}" for name, what in SECTIONS.items())
    parser = Parser(
        prog="python -m tests.benchmarks",
        description="Measure the codebase beside the usual way to do the same, in turn, on this machine.",
        epilog=f"sections:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--only", metavar="A,B,...", help="sections to measure; all of them without it")
    parser.add_argument("--images", type=int, help="training images of each measurement; each has its own default")
    parser.add_argument("--repeats", type=int, default=3, help="of which the median counts (default: 3)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--root", help="the folder that holds cifar-10-batches-py/ (default: CIFAR10_ROOT, or data)")
    parser.add_argument("--output", help="JSON file (default: outputs/benchmark/DATE_TIME.json)")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that everything runs, and no more")
    options = parser.parse_args(arguments)
    options.only = [name for name in (options.only or ",".join(SECTIONS)).split(",") if name]
    for name in options.only:
        if name not in SECTIONS:
            near = difflib.get_close_matches(name, SECTIONS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"--only {name}: no such section; there are: {', '.join(SECTIONS)}{hint}")
    if options.repeats < 1:
        raise UserError(f"--repeats {options.repeats}: at least one")
    return options


def run(options: argparse.Namespace) -> None:
    """Measure, write JSON after every measurement, and print the table."""
    output = Path(options.output or f"outputs/benchmark/{time.strftime('%Y-%m-%d_%H-%M-%S')}.json")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.open("a").close()  # not to be told after eight minutes
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({cause_of(error)})") from error
    keep_freed_memory()  # as train.py does
    print("loading PyTorch and Lightning", file=sys.stderr)
    from tests.benchmarks import backbone, commands, delivery, fine_tuning, growth, training
    from tests.benchmarks.results import environment, heading, table, write
    from tests.benchmarks.settings import settle

    measure = {
        "data": delivery.data,
        "step": training.step,
        "cache": fine_tuning.cache,
        "backbone": backbone.backbone,
        "startup": commands.startup,
        "memory": commands.memory,
        "growth": growth.growth,
    }
    try:
        settings = settle(options)
        about, results = environment(settings), []
        print(heading(about), file=sys.stderr)
        for name in options.only:
            for result in measure[name](settings):
                results.append(result)
                write(output, about, results)
    finally:
        if not output.stat().st_size:
            output.unlink()
    print(f"\n{heading(about)}\n\n{table(results)}\n\nwritten to {output}")


if __name__ == "__main__":
    main()
