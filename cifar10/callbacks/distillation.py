"""Learning from a trained run's predictions in place of labels."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from cifar10.callbacks.feature_caching import FeatureCaching
from cifar10.data.pictures import Part
from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError, cause_of
from cifar10.files import atomic_write
from cifar10.models.plain import plain_predictor
from cifar10.models.predictor import Predictor
from cifar10.models.weights import read_checkpoint
from cifar10.progress import Progress
from cifar10.run_folder import RunFolder
from cifar10.shell import shown

log = logging.getLogger(__name__)


class Distillation(pl.Callback):
    """Train on a finished run's predictions for the training images (Hinton, Vinyals & Dean 2015).

    teacher: the run's folder, of which best.ckpt is used. Its logits are computed once for every training image and its
    mirror image, before the first epoch, and kept in its folder, where other runs with the same training images find
    them.
    temperature: T divides the logits of both, see section 2 of the paper; the loss is T^2 times the cross-entropy. The
    labels themselves are not used (Beyer et al. 2022, section 3), so `train/acc` is agreement with the teacher. Mixed
    images have mixed predictions; a shifted image has those of the image itself.
    Raises UserError for a teacher that cannot be read or has other classes, and with cached features.
    """

    def __init__(self, teacher: str, temperature: float = 1.0):
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature={temperature}: must be a positive number")
        self.run, self.temperature = RunFolder(Path(teacher).expanduser()), temperature

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        if any(getattr(callback, "views", 0) for callback in trainer.callbacks if isinstance(callback, FeatureCaching)):
            raise UserError("callbacks.distillation: the teacher needs images; set callbacks.feature_caching.views=0")
        if not hasattr(trainer.datamodule, "teacher"):
            raise UserError("callbacks.distillation: needs a data module that serves a teacher's predictions")
        self.predictor = read_teacher(self.run)
        if self.predictor.class_names != tuple(pl_module.class_names):
            raise UserError(f"callbacks.distillation.teacher={self.run}: was trained on other classes")

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        data = trainer.datamodule
        part = data.data.part("train")
        file, shape = kept_logits(self.run, part, data.preprocessing), (len(part), 2, len(pl_module.class_names))
        if trainer.is_global_zero and read(file, shape) is None:
            log.info(f"{self.run}: predicting {len(part):,} training images and their mirror images")
            write(file, teach(self.predictor.to(pl_module.device), part, data.eval_batch_size))
        trainer.strategy.barrier("Distillation")
        logits = read(file, shape)
        if logits is None:
            raise UserError(
                f"{shown(file)}: is not there; every process needs the teacher's folder on a disk they share"
            )
        data.teacher = (torch.from_numpy(logits).float() / self.temperature).softmax(-1)
        pl_module.temperature = self.temperature

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit" and hasattr(trainer.datamodule, "teacher"):
            trainer.datamodule.teacher, pl_module.temperature = None, 1.0

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")  # which Lightning leaves out then


def read_teacher(run: RunFolder) -> Predictor:
    """The network of a run's best.ckpt; UserError if there is none, or none that this version can build."""
    key = f"callbacks.distillation.teacher={run}"
    if not run.config.is_file() or not run.best.is_file():
        raise UserError(f"{key}: not the folder of a trained run; it needs {shown(run.best)} and {shown(run.config)}")
    target, checkpoint = str(run.read_config().model.get("_target_")), read_checkpoint(run.best)
    try:
        predictor = plain_predictor(target, checkpoint)
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{key}: its checkpoint does not fit this version ({cause_of(error)})") from error
    if predictor is None:
        raise UserError(f"{key}: {target} cannot teach; name a run of model=cnn, fast_cnn or efficientnet_b0")
    return predictor


def kept_logits(run: RunFolder, part: Part, preprocessing: Preprocessing) -> Path:
    """Where a teacher's logits for these images are kept, by a name made of its weights, the images and their order."""
    digest = hashlib.sha256(run.best.read_bytes())
    if part.digests is None:
        digest.update(part[:].cpu().numpy().tobytes())
    else:  # of the pictures as they are in their files
        squares = (preprocessing.store_size, preprocessing.resize_mode, preprocessing.background)
        digest.update(part.digests.tobytes() + repr(squares).encode())
    return run.logits / f"{digest.hexdigest()[:16]}.npy"


@torch.inference_mode()
def teach(predictor: Predictor, part: Part, batch_size: int) -> np.ndarray:
    """The logits of every image and its mirror image: float16 (N, 2, C)."""
    device, found = next(predictor.parameters()).device, []
    with Progress(2 * len(part), "asking the teacher") as progress:
        for places in torch.arange(len(part)).split(batch_size):
            batch = part[places].to(device)
            found.append(torch.stack([predictor.logits(view).cpu() for view in (batch, batch.flip(-1))], 1))
            progress.update(2 * len(places))
    return torch.cat(found).half().numpy()


def read(file: Path, shape: tuple[int, ...]) -> Any:
    """The logits in a file, or None if they are not there or damaged."""
    try:
        logits = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return logits if logits.shape == shape else None


def write(file: Path, logits: np.ndarray) -> None:
    file.parent.mkdir(exist_ok=True)
    with atomic_write(file) as whole:
        np.save(whole, logits)
    log.info(f"kept in {shown(file)} for other runs")
