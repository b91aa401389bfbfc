"""What `python -m cifar10 export` does, step by step."""

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from cifar10.commandline.instantiate import check_hints
from cifar10.errors import UserError
from cifar10.files import atomic_write
from cifar10.inference.export import quantize
from cifar10.inference.export.check import check
from cifar10.inference.export.formats import FORMATS, metadata
from cifar10.inference.export.timm_folder import write_folder
from cifar10.inference.finished_runs import FinishedRun, Settings, newest_run, open_run
from cifar10.inference.loading import Model, load
from cifar10.inference.run_data import build_data, connect
from cifar10.machine import size
from cifar10.shell import shown

log = logging.getLogger("export")

HINTS = {  # of conf/export.yaml
    **{"run": str | None, "format": str, "output": str | None, "checkpoint": str, "quantize": str | None},
    **{"max_drop": float, "check_images": int, "data_root": str | None},
}


def export(cfg: DictConfig) -> None:
    """Write the run's model for other programs, once it has been checked against PyTorch."""
    check_settings(cfg)
    model = load(newest_run() if cfg.run is None else cfg.run, cfg.checkpoint, device="cpu")
    run = open_run(model.folder)
    log.info(f"{model.name}: {model.calibration}")
    name = "model" if cfg.quantize is None else f"model_{cfg.quantize}"
    folder = run.folder / "export"
    if cfg.format == "safetensors":
        place = folder / "safetensors" if cfg.output is None else Path(cfg.output)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_folder(run, model, place)
        log.info(f"written to {shown(place)}: model.safetensors, config.json and README.md, a model card")
        return
    place = folder / f"{name}{FORMATS[cfg.format].suffix}" if cfg.output is None else Path(cfg.output)
    content = checked(cfg, run, model)
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(place) as file:
        file.write(content)
    log.info(f"written to {shown(place)}, {size(len(content))}: uint8 pictures (batch, 3, height, width) in,"
             " probabilities out")  # fmt: skip


def check_settings(cfg: DictConfig) -> None:
    check_hints(cfg, HINTS)
    formats = (*FORMATS, "safetensors")
    if cfg.format not in formats:
        raise UserError(f"format={cfg.format}: must be one of {', '.join(formats)}")
    if cfg.quantize not in (None, "int8"):
        raise UserError(f"quantize={cfg.quantize}: must be int8, or null")
    if cfg.quantize and cfg.format != "onnx":
        raise UserError(f"quantize=int8: is for format=onnx, not {cfg.format}")
    if cfg.check_images < 1:
        raise UserError(f"check_images={cfg.check_images}: must be at least 1")
    if not 0 <= cfg.max_drop <= 1:
        raise UserError(f"max_drop={cfg.max_drop}: must be a fraction from 0 to 1")


def checked(cfg: DictConfig, run: FinishedRun, model: Model) -> bytes:
    """The file's content; UserError if it does not answer as PyTorch does, or 8 bits cost too much."""
    form = FORMATS[cfg.format]
    if cfg.quantize and not run.validated:
        raise UserError("quantize=int8: needs validation images, to calibrate and to see what it costs, and the run was"
                        " trained without any (data.val_size=0); set quantize=null")  # fmt: skip
    images, labels = images_to_check(run, model, cfg)
    if cfg.quantize and (labels is None or len(labels) < 2):
        raise UserError("quantize=int8: needs the run's validation images, to calibrate and to see what it costs;"
                        " data_root=FOLDER says where they are")  # fmt: skip
    log.info(f"exporting as {cfg.format}")
    content = form.write(model.predictor, metadata(model.predictor, model.name))
    found = check(model.predictor, function := form.read(content), images[: cfg.check_images], cfg.format)
    log.info(f"checked on {found.count:,} images, at several sizes: {found}")
    ours, exported = (f"{speed:,.0f} images/s" for speed in found.speeds)
    log.info(f"with preprocessing, on {torch.get_num_threads()} threads: {cfg.format} {exported}, PyTorch {ours}")
    if cfg.quantize is None or labels is None:
        return content
    calibrating = min(quantize.CALIBRATED_ON, len(images) // 2)
    images, labels, others = images[calibrating:], labels[calibrating:], images[:calibrating]
    smaller = quantize.int8(content, others)
    before = quantize.accuracy(function, images, labels, "accuracy")
    after = quantize.accuracy(form.read(smaller), images, labels, "accuracy with 8 bits")
    quantize.check_drop(before, after, len(images), cfg.max_drop)
    return smaller


def images_to_check(run: FinishedRun, model: Model, cfg: DictConfig) -> tuple[Tensor, Tensor | None]:
    """Validation images of the run in random order, with labels; random pictures without, if the data are not here.

    Of a run without validation images, training images. Never test images: those are for evaluate.py alone, and an
    export is judged by PyTorch's answers, not by labels.
    """
    wanted = max(cfg.check_images, (cfg.quantize and quantize.CALIBRATED_ON + 2 * cfg.check_images) or 0)
    generator = torch.Generator().manual_seed(0)
    try:
        datamodule = build_data(run, Settings(checkpoint=cfg.checkpoint, data_root=cfg.data_root))
        connect(run.folder, model.predictor, datamodule)
        datamodule.setup("validate")
    except UserError as error:
        log.warning(f"checking on random pictures, as the run's data cannot be read: {error}")
        side = model.square.size
        return torch.randint(0, 256, (cfg.check_images, 3, side, side), dtype=torch.uint8, generator=generator), None
    part = datamodule.data.part("val" if run.validated else "train")
    chosen = torch.randperm(len(part), generator=generator)[:wanted].sort().values
    chosen = chosen[torch.randperm(len(chosen), generator=generator)]
    return part[chosen], part.labels[chosen]
