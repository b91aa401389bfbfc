"""A finished run as an object that classifies pictures: from cifar10 import load."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cifar10.data.pictures.decode import UnreadablePicture, pixels_of
from cifar10.data.pictures.squares import Square, load_square
from cifar10.data.preprocessing import fit
from cifar10.errors import UserError
from cifar10.files import sha256
from cifar10.inference import gradcam
from cifar10.inference.calibration import read_calibration
from cifar10.inference.finished_runs import Settings, expand, open_run, require_checkpoint
from cifar10.models.predictor import Predictor
from cifar10.run_folder import RunFolder
from cifar10.shell import shown

OF_EARLIER_VERSIONS = 32  # px, of all images on which runs were trained whose checkpoints do not say it

Picture = str | Path | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one picture. probabilities: float32 (C,), in the order of class_names."""

    class_names: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def class_name(self) -> str:
        return self.top(1)[0][0]

    @property
    def probability(self) -> float:
        return self.top(1)[0][1]

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The k most probable classes with their probabilities, the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.class_names[index], float(self.probabilities[index])) for index in order]

    def __repr__(self) -> str:
        return f"Prediction({', '.join(f'{name} {probability:.3f}' for name, probability in self.top())})"


class Model:
    """A finished run, ready to predict; made by `load`.

    predictor: the network with its preprocessing and temperature, an nn.Module. calibration: in words, where the
    temperature comes from. checkpoint_sha256: of the checkpoint.
    """

    def __init__(
        self, folder: Path, predictor: Predictor, device: torch.device, calibration: str, checkpoint_sha256: str
    ):
        self.folder, self.name, self.checkpoint_sha256 = folder, shown(folder), checkpoint_sha256
        self.predictor, self.device, self.calibration = predictor.to(device), device, calibration
        preprocessing = predictor.preprocessing
        self.square = Square(cast(int, preprocessing.store_size), preprocessing.resize_mode, preprocessing.background)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.predictor.class_names

    def predict(self, images: Picture | Iterable[Picture], batch_size: int = 32) -> list[Prediction]:
        """Classify pictures; returns a prediction for each.

        images: one or several files, PIL images, arrays uint8 (H, W, 3), (H, W, 4) or (H, W), tensors uint8 (3, H, W).
        Raises UnreadablePicture, which is a ValueError, for a file that is no picture, and ValueError for other arrays.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        squares = [self.read_named(picture) for picture in one_by_one(images)]
        parts = [
            self.probabilities(torch.stack(squares[at : at + batch_size])) for at in range(0, len(squares), batch_size)
        ]
        return [Prediction(self.class_names, row) for part in parts for row in part.numpy()]

    def read_named(self, picture: bytes | Picture) -> Tensor:
        """What `read` returns; its error says which file it is about."""
        try:
            return self.read(picture)
        except UnreadablePicture as error:
            raise UnreadablePicture(f"{picture}: {error}" if isinstance(picture, str | Path) else str(error)) from None

    def read(self, picture: bytes | Picture) -> Tensor:
        """One picture as the network is to see it, see `fit`: uint8 (3, S, S)."""
        if isinstance(picture, bytes | str | Path):
            return load_square(picture if isinstance(picture, bytes) else Path(picture), self.square)
        return fit(pixels(picture, self.square.background), *self.square)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float32 (B, C), both on the CPU."""
        return self.predictor(images.to(self.device)).cpu()

    def explain(self, square: Tensor, index: int) -> np.ndarray:
        """Where the network looks for class `index` in what `read` returned, (3, S, S): see `gradcam.heat`."""
        return gradcam.heat(self.predictor, square.to(self.device), index)


def load(run: str | Path, checkpoint: str = "best", device: str | torch.device = "auto") -> Model:
    """The model of a finished run's folder.

    checkpoint: "best" or "last". device: "auto", "cpu", "gpu", "cuda" or "mps".
    Raises UserError, whose text is one line, for a folder that is no finished run, or that does not fit this version.
    """
    folders = expand(str(Path(run).expanduser()), "run")
    if len(folders) > 1:
        raise UserError(f"run={run}: {len(folders)} runs are below it; name one of them, as {folders[0]}")
    finished = open_run(folders[0])
    name = device if isinstance(device, str) else device.type
    settings = Settings(checkpoint=checkpoint, accelerator=name)
    predictor = finished.load_predictor(checkpoint)
    if predictor.preprocessing.store_size is None:
        predictor.preprocessing.set_fit(OF_EARLIER_VERSIONS, "crop", predictor.preprocessing.background)
    weights = sha256(require_checkpoint(finished.folder, checkpoint).read_bytes())
    calibration = read_calibration(finished.folder, weights)
    if calibration is None:
        words = f"not calibrated; {RunFolder(finished.folder).evaluate_command} fits the temperature"
        if not finished.validated:
            words = "not calibrated, as no image was kept from training to fit a temperature on"
        return Model(finished.folder, predictor, settings.device, words, weights)
    predictor.temperature = calibration.temperature
    return Model(finished.folder, predictor, settings.device, str(calibration), weights)


def one_by_one(images: Picture | Iterable[Picture]) -> Sequence[Picture]:
    """One picture, or several, as a sequence; arrays and tensors have several along a fourth, first axis."""
    if isinstance(images, np.ndarray | Tensor):
        return [images] if images.ndim <= 3 else list(images)
    return [images] if isinstance(images, bytes | str | Path | Image.Image) else list(images)


def pixels(picture: Image.Image | np.ndarray | Tensor, background: tuple[int, ...]) -> Tensor:
    """uint8 (3, H, W) of an opened picture, an array or a tensor; ValueError for anything else."""
    if isinstance(picture, Image.Image):
        return pixels_of(picture, background)
    forms = {np.ndarray: "uint8 (H, W, 3), (H, W, 4) or (H, W)", Tensor: "uint8 (3, H, W)"}
    wanted = next((form for kind, form in forms.items() if isinstance(picture, kind)), None)
    if wanted is None:
        raise ValueError(f"{type(picture).__name__}: not a picture; pass a file, a PIL image, an array or a tensor")
    problem = f"{picture.dtype} {tuple(picture.shape)}: must be {wanted}, with values from 0 to 255"
    if isinstance(picture, Tensor):
        if picture.dtype != torch.uint8 or picture.ndim != 3 or len(picture) != 3 or not picture.numel():
            raise ValueError(problem)
        return picture.cpu()
    grey_or_colour = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))
    if picture.dtype != np.uint8 or not grey_or_colour or not picture.size:
        raise ValueError(problem)
    return pixels_of(Image.fromarray(np.ascontiguousarray(picture)), background)
