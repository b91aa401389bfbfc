"""The front door to everything but training and evaluating: python -m cifar10 COMMAND [key=value]

python -m cifar10 explore data=folder data.root=photos    a page about a data set, before anything is trained on it
python -m cifar10 predict images=photo.jpg                classify pictures with a finished run
python -m cifar10 export format=onnx                      a finished run for other programs
python -m cifar10 serve                                   a finished run behind a web page
python -m cifar10 cache                                   what is kept of pictures that were decoded
"""

import difflib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from omegaconf import DictConfig

from cifar10.commandline.command import Command
from cifar10.errors import UserError
from cifar10.machine import size
from cifar10.shell import program, quoted

log = logging.getLogger("cifar10")


def explore(cfg: DictConfig) -> None:
    """Write a page about a data set."""
    from cifar10.exploration import steps

    settings = steps.settings_of(cfg)
    folder = steps.folder_of(settings)
    findings = steps.explore(steps.read(cfg), settings)
    steps.write(folder, findings)
    steps.conclude(folder, findings)


def cache(cfg: DictConfig) -> None:
    """List the stores of decoded pictures, or remove them."""
    from cifar10.data.store.cache import clear_cache, default_cache, list_stores

    if not isinstance(clear := cfg["clear"], bool):  # cfg.clear is a method
        raise UserError(f"clear={clear}: must be true or false")
    folder = default_cache() if cfg.cache is None else Path(str(cfg.cache)).expanduser()
    if clear:
        log.info(f"{folder}: {size(clear_cache(folder))} removed")
        return
    for store in list_stores(folder):
        what = f"{store.count:,} pictures of {store.name} at {store.size} px" if store.count else "not finished"
        log.info(f"{size(store.nbytes):>9}  {what}, last used {date.fromtimestamp(store.used)}")
    log.info(f"in {folder}; {program('python')} -m cifar10 cache clear=true removes what no run is using")


def predict(cfg: DictConfig) -> None:
    """Classify pictures with a finished run."""
    from cifar10.inference.predicting import steps

    steps.predict(cfg)


def export(cfg: DictConfig) -> None:
    """Write a finished run's model for other programs."""
    from cifar10.inference.export import steps

    steps.export(cfg)


def serve(cfg: DictConfig) -> None:
    """Answer for pictures that a page or a program sends."""
    from cifar10.inference.serving import steps

    steps.serve(cfg)


@dataclass(frozen=True)
class Entry:
    """A command of the front door; its settings are conf/NAME.yaml."""

    function: Callable[[DictConfig], object]
    summary: str


COMMANDS = {
    "explore": Entry(explore, "a page about a data set: counts, duplicates, likely label errors, a map"),
    "predict": Entry(predict, "the classes of pictures: a file, a folder, a glob; as a table, CSV or JSON"),
    "export": Entry(export, "a trained model for other programs: ONNX, a PyTorch program, safetensors"),
    "serve": Entry(serve, "a page on this machine that classifies what is dropped on it, and POST /predict"),
    "cache": Entry(cache, "pictures that were decoded and kept for the next run; clear=true removes them"),
}


def main() -> None:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name in COMMANDS:
        arguments = map(plain_paths, sys.argv[2:]) if name == "predict" else sys.argv[2:]
        sys.argv = [f"cifar10 {name}", *arguments]
        Command(name, COMMANDS[name].function).run()
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        if name in ("train", "evaluate"):
            sys.exit(f"error: {name}: that is python {name}.py")
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(COMMANDS)}"
        sys.exit(f"error: {name}: no such command; {hint}")


def plain_paths(argument: str) -> str:
    """images=PATH so that Hydra takes the path for text, whatever characters a camera has put into it."""
    key, _, value = argument.partition("=")
    is_path = key == "images" and value and (value[0] not in "[\"'" or Path(value).exists())
    return f"{key}={quoted(value)}" if is_path else argument


def usage() -> str:
    commands = "\n".join(f"  {name:<10}{entry.summary}" for name, entry in COMMANDS.items())
    return f"""python -m cifar10 COMMAND [key=value]

{commands}

python -m cifar10 COMMAND --help lists a command's settings; python train.py and python evaluate.py have their own."""


if __name__ == "__main__":
    main()
