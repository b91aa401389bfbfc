"""What `python -m cifar10 predict` does, step by step."""

import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cifar10.commandline.instantiate import check_hints
from cifar10.errors import UserError
from cifar10.files import atomic_write
from cifar10.inference.finished_runs import newest_run
from cifar10.inference.gradcam import overlay
from cifar10.inference.loading import Model, load
from cifar10.inference.predicting.inputs import find_inputs
from cifar10.inference.predicting.output import WRITERS
from cifar10.inference.predicting.streaming import Row, predict_all
from cifar10.progress import Progress
from cifar10.report.numbers import plural

log = logging.getLogger("predict")

HINTS = {  # of conf/predict.yaml
    **{"run": str | None, "images": str | list[str] | None, "format": str, "output": str | None, "top": int},
    **{"explain": bool | str, "checkpoint": str, "batch_size": int, "accelerator": str},
}


def predict(cfg: DictConfig) -> None:
    """Classify the pictures, and write a row for each; UserError at the end if some cannot be read."""
    check_hints(cfg, HINTS)
    if cfg.format not in WRITERS:
        raise UserError(f"format={cfg.format}: must be one of {', '.join(WRITERS)}")
    for key in ("top", "batch_size"):
        if cfg[key] < 1:
            raise UserError(f"{key}={cfg[key]}: must be at least 1")
    inputs = find_inputs(cfg.images)
    model = load(newest_run() if cfg.run is None else cfg.run, cfg.checkpoint, cfg.accelerator)
    log.info(f"{model.name}: {model.calibration}")
    names, unreadable = [one.name for one in inputs], []
    rows = predict_all(model, inputs, cfg.batch_size)
    if cfg.explain:
        rows = explained(model, rows, explanations_folder(cfg.explain))
    rows = watched(rows, len(inputs), unreadable, seen=cfg.output is None and sys.stdout.isatty())
    names_of_any_bytes = {"errors": "surrogateescape"}  # as Python has them from the file system
    if cfg.output is None:
        place: Any = nullcontext(sys.stdout)
        getattr(sys.stdout, "reconfigure", dict)(**names_of_any_bytes)
    else:
        place = atomic_write(cfg.output, "w", encoding="utf-8", **names_of_any_bytes)
    try:
        with place as file:
            WRITERS[cfg.format](rows, file, min(cfg.top, len(model.class_names)), names)
    except BrokenPipeError:  # as in `predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if cfg.output is not None:
        log.info(f"{plural(len(inputs), 'picture')}: {cfg.output}")
    if unreadable:
        some = ", ".join(unreadable[:3]) + ", ..." * (len(unreadable) > 3)
        raise UserError(f"{len(unreadable)} of {plural(len(inputs), 'picture')} cannot be read: {some}")


def watched(rows: Iterator[Row], total: int, unreadable: list[str], seen: bool) -> Iterator[Row]:
    """The same rows, with a progress bar, unless they are `seen` on the terminal; collects what is unreadable."""
    with nullcontext() if seen else Progress(total, "predicting") as progress:
        for row in rows:
            if row.error:
                unreadable.append(row.file)
            if progress:
                progress.update(1)
            yield row


def explanations_folder(explain: Any) -> Path:
    """Where the pictures of explain=true, or explain=FOLDER, go."""
    folder = Path("outputs/explanations") / time.strftime("%Y-%m-%d_%H-%M-%S") if explain is True else Path(explain)
    folder.mkdir(parents=True, exist_ok=True)
    log.info(f"Grad-CAM pictures of each first class: {folder}")
    return folder


def explained(model: Model, rows: Iterator[Row], folder: Path) -> Iterator[Row]:
    """The same rows; an overlay of each one's first class is written into the folder: 1_cat.jpg_tabby.png."""
    for number, row in enumerate(rows, start=1):
        if row.prediction and row.square is not None:
            heat = model.explain(row.square, int(row.prediction.probabilities.argmax()))
            name = re.sub(r"[^\w.-]", "_", f"{Path(row.file).name}_{row.prediction.class_name}")
            overlay(row.square, heat).save(folder / f"{number}_{name[:100]}.png")
        yield row
