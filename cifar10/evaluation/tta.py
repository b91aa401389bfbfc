"""Test-time augmentation: the test images again in several views each, reported beside the plain predictions."""

import json
import logging
from pathlib import Path

import numpy as np

from cifar10.errors import UserError, cause_of
from cifar10.evaluation.predictions import evaluation_folder, fingerprint, load_test, predict, write_predictions
from cifar10.inference.finished_runs import FinishedRun, Settings, require_checkpoint
from cifar10.models.views import VIEWS
from cifar10.progress import Progress
from cifar10.report.groups import Run, Views

log = logging.getLogger(__name__)


def predicted(run: FinishedRun, settings: Settings, plain: Run) -> Views:
    """Logits of the test images, averaged over the views that the settings name, stored or new.

    The views of validation images are not predicted, so these logits have no temperature: the run's own is for what
    predict, export and serve do, which is a single view.
    """
    name = str(settings.tta)
    count = VIEWS[name][0]
    file = evaluation_folder(run.folder, settings) / f"tta_{name}.npz"
    identity = {key: plain.facts[key] for key in ("checkpoint_sha256", "data_sha256")}
    logits = read(file, identity, plain.logits.shape)
    if logits is None:
        require_checkpoint(run.folder, settings.checkpoint)
        part, predictor = load_test(run, settings), run.load_predictor(settings.checkpoint).to(settings.device)
        if fingerprint(part) != identity["data_sha256"]:
            raise UserError(f"run={run.folder}: tta: the test images are no longer those that were predicted")
        batch = settings.batch_size or run.cfg.data.eval_batch_size
        log.info(f"{run.folder}: predicting {count} views of each test image, at {count} times the cost")
        with Progress(len(part), f"{count} views") as progress:
            logits = predict(predictor, part, batch, progress, name)
        write_predictions(file, {"logits": logits, "facts": identity})
    return Views(name, count, logits)


def read(file: Path, identity: dict, shape: tuple[int, int]) -> np.ndarray | None:
    """Stored logits of this checkpoint and these images; None if there are none that this version can read."""
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            logits, facts = stored["logits"], json.loads(str(stored["facts"]))
        if logits.dtype.kind != "f":
            raise ValueError("not in the form of predictions")
    except Exception as error:  # zip, zlib, numpy and json each raise their own kinds for damaged files
        log.warning(f"{file}: not usable ({cause_of(error)}); predicting again")
        return None
    return logits if facts == identity and logits.shape == shape else None
