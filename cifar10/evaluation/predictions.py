"""A finished run's predictions: stored ones if they are this checkpoint's, else new ones; opens the test images."""

import contextlib
import json
import logging
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar10.data.batches import Batches
from cifar10.data.picture_data import PictureData
from cifar10.data.pictures import Part
from cifar10.errors import UserError, cause_of
from cifar10.files import atomic_write, sha256
from cifar10.inference.calibration import Calibration, read_calibration, write_calibration
from cifar10.inference.finished_runs import FinishedRun, Settings, require_checkpoint
from cifar10.inference.run_data import build_data, connect, rebuild
from cifar10.machine import commit, device_name
from cifar10.models.predictor import Predictor
from cifar10.models.views import mean_logits
from cifar10.progress import Progress
from cifar10.report.groups import Run
from cifar10.run_folder import RunFolder
from cifar10.untrusted import fits

log = logging.getLogger(__name__)

# the form of the facts stored with predictions
FACTS = {
    **dict.fromkeys(("data", "data_root", "data_sha256", "checkpoint", "checkpoint_sha256", "hardware", "commit"), str),
    **{"synthetic": bool, "image_size": int, "versions": {}},
}
NEEDED = {"data", "data_sha256", "checkpoint", "checkpoint_sha256"}


def predicted(run: FinishedRun, settings: Settings) -> Run:
    """The run with its predictions, stored or new; on its own data, its folder then holds the temperature, too."""
    found = stored_or_new(run, settings)
    if settings.data is None and len(found.val_labels):
        weights, current = found.facts["checkpoint_sha256"], None
        with contextlib.suppress(UserError):  # a damaged file is written anew
            current = read_calibration(run.folder, weights)
        if current is None:
            write_calibration(run.folder, Calibration(found.temperature, len(found.val_labels), weights))
    return found


def stored_or_new(run: FinishedRun, settings: Settings) -> Run:
    """The predictions stored in a run's evaluation folder if they are this checkpoint's, else new ones."""
    rows = RunFolder(run.folder).read_metrics()
    file = evaluation_folder(run.folder, settings) / "predictions.npz"
    checkpoint = RunFolder(run.folder).checkpoint(settings.checkpoint)
    stored = read_predictions(file)
    if stored is not None:
        facts = stored["facts"]
        if checkpoint.is_file():
            fits = facts["checkpoint_sha256"] == checkpoint_sha256(run, settings)
        else:
            fits = facts["checkpoint"] == settings.checkpoint
            log.warning(f"{run.folder}: {checkpoint.name} is gone; using its stored predictions")
        if settings.data is not None or settings.data_root is not None:
            fits = fits and facts.get("data_root") == data_root(run, settings)
        if fits:
            log.info(f"{run.folder}: using the stored predictions")
            return assemble(run, stored, rows)
    require_checkpoint(run.folder, settings.checkpoint)
    log.info(f"{run.folder}: predicting with {checkpoint.name} on {device_name(settings.device)}")
    arrays = predict_run(run, settings)
    file.parent.mkdir(exist_ok=True)
    write_predictions(file, arrays)
    return assemble(run, arrays, rows)


def assemble(run: FinishedRun, arrays: dict, rows: list[dict[str, float]]) -> Run:
    facts = arrays["facts"] | {"summary": run.summary, "data_seed": run.cfg.data.get("seed")}
    facts |= {key: run.summary[key] for key in ("cost", "class_counts") if key in run.summary}
    names = [str(name) for name in arrays["class_names"]]
    logits = {key: arrays[key] for key in ("logits", "labels", "val_logits", "val_labels")}
    files = [str(file) for file in arrays["files"]] or None
    return Run(
        str(run.cfg.name),
        run.cfg.seed,
        str(run.folder),
        run.recipe,
        names,
        files=files,
        facts=facts,
        epochs=rows,
        **logits,
    )


def evaluation_folder(folder: Path, settings: Settings) -> Path:
    """Where a run's evaluation is: `evaluation`, or for another data set `evaluation_SOURCE`."""
    return folder / ("evaluation" if settings.data is None else f"evaluation_{settings.data.source}")


def test_images(run: FinishedRun, settings: Settings, data_sha256: str) -> Part | None:
    """The test images that were predicted; None, with a warning, if they are not available."""
    try:
        part = load_test(run, settings)
    except UserError as error:
        log.warning(f"no pictures: {error}")
        return None
    if fingerprint(part) == data_sha256:
        return part
    log.warning(f"{run.folder}: no pictures: the test images are no longer those that were predicted")
    return None


def load_test(run: FinishedRun, settings: Settings) -> Part:
    """The test images that the settings mean, of which pictures are as the run's network has seen them."""
    datamodule = build_data(run, settings, settings.data)
    if isinstance(datamodule.data, PictureData):
        connect(run.folder, run.load_predictor(settings.checkpoint), datamodule)
    datamodule.setup("test")
    return datamodule.data.part("test")


def fingerprint(part: Part) -> str:
    """Of the images, or the encoded pictures that they come from, and their labels."""
    content = part[:].numpy() if part.digests is None else part.digests
    return sha256(content.tobytes() + part.labels.numpy().tobytes())


def predict_run(run: FinishedRun, settings: Settings) -> dict:
    """Logits and labels of the test and the validation images, and facts about them."""
    own = settings if settings.data is None else replace(settings, data=None, data_root=None)
    datamodule, predictor = rebuild(run, own)
    tested = datamodule if settings.data is None else build_data(run, settings, settings.data)
    connect(run.folder, predictor, tested)
    tested.setup("test")
    datamodule.setup("validate")
    test, val = tested.data.part("test"), datamodule.data.part("val")
    predictor, batch = predictor.to(settings.device), datamodule.eval_batch_size
    with Progress(len(test) + len(val), "predicting") as progress:
        logits = predict(predictor, test, batch, progress)
        val_logits = predict(predictor, val, batch, progress) if len(val) else logits[:0]
    facts = {
        "data": tested.source.name,
        "synthetic": tested.source.synthetic,
        "data_root": data_root(run, settings),
        "data_sha256": fingerprint(test),
        "checkpoint": settings.checkpoint,
        "checkpoint_sha256": checkpoint_sha256(run, settings),
        "image_size": predictor.preprocessing.image_size,
        "hardware": device_name(settings.device),
        "commit": commit(),
        "versions": {"torch": torch.__version__, "pytorch-lightning": version("pytorch-lightning")},
    }
    return {
        "logits": logits,
        "labels": test.labels.numpy(),
        "files": np.array(test.files or [], dtype=str),
        "val_logits": val_logits,
        "val_labels": val.labels.numpy(),
        "class_names": np.array(predictor.class_names),
        "facts": facts,
    }


@torch.inference_mode()
def predict(
    predictor: Predictor,
    images: Any,
    batch_size: int,
    progress: Progress | None = None,
    views: str | None = None,
) -> np.ndarray:
    """Logits (N, C), float32, of uint8 images (N, 3, H, W); in fp32, whatever the precision of training.

    views: a name in `VIEWS`, over which they are averaged; None: of the images themselves.
    """
    device, logits = next(predictor.parameters()).device, []
    labels = torch.zeros(len(images), device=images.device)  # which nobody reads
    for batch, *_ in Batches(images, labels, torch.arange(len(images)), batch_size):
        batch = batch.to(device)
        logits.append((mean_logits(predictor, batch, views) if views else predictor.logits(batch)).cpu())
        if progress is not None:
            progress.update(len(batch))
    return torch.cat(logits).numpy()


def write_predictions(file: Path, arrays: dict) -> None:
    """Write predictions.npz atomically."""
    with atomic_write(file) as whole:
        np.savez_compressed(whole, **{**arrays, "facts": np.array(json.dumps(arrays["facts"]))})


def read_predictions(file: Path) -> dict | None:
    """What `write_predictions` wrote; None if there is nothing, or nothing that this version can read."""
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            names = ("logits", "labels", "val_logits", "val_labels", "class_names", "facts")
            arrays = {name: stored[name] for name in names}
            arrays["files"] = stored["files"] if "files" in stored else np.array([], dtype=str)  # of earlier versions
        facts = json.loads(str(arrays["facts"]))
        if not well_formed(arrays, facts):
            raise ValueError("not in the form of predictions")
        return arrays | {"facts": {key: facts[key] for key in FACTS if key in facts}}
    except Exception as error:  # zip, zlib, numpy and json each raise their own kinds for damaged files
        log.warning(f"{file}: not usable ({cause_of(error)}); predicting again")
        return None


def well_formed(arrays: dict, facts: Any) -> bool:
    """Whether stored arrays and facts are what `predict_run` makes."""
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind != "U" or not fits(facts, FACTS) or not facts.keys() >= NEEDED:
        return False
    files = arrays["files"]
    if not len(arrays["labels"]):
        return False
    if files.ndim != 1 or files.dtype.kind != "U" or len(files) not in (0, len(arrays["labels"])):
        return False
    for part in ("", "val_"):
        logits, labels = arrays[f"{part}logits"], arrays[f"{part}labels"]
        if logits.dtype.kind != "f" or labels.dtype.kind not in "iu" or labels.ndim != 1:
            return False
        if logits.shape != (len(labels), len(names)) or not ((labels >= 0) & (labels < len(names))).all():
            return False
    return True


def data_root(run: FinishedRun, settings: Settings) -> str:
    """The data folder that the settings mean; predictions stored for another folder are not used."""
    root = (settings.data or run.cfg.data).root if settings.data_root is None else settings.data_root
    return str(Path(str(root)).expanduser().absolute())


def checkpoint_sha256(run: FinishedRun, settings: Settings) -> str:
    return sha256(RunFolder(run.folder).checkpoint(settings.checkpoint).read_bytes())
