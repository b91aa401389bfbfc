"""A run's temperature: evaluate.py fits it on validation images, and whatever predicts with the run uses it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cifar10.errors import UserError, cause_of
from cifar10.files import atomic_write
from cifar10.run_folder import RunFolder
from cifar10.untrusted import fits

FORM = {"temperature": float, "val_images": int, "checkpoint_sha256": str}


@dataclass(frozen=True)
class Calibration:
    """temperature: see `fit_temperature`. val_images: how many it was fitted on. checkpoint_sha256: of the weights."""

    temperature: float
    val_images: int
    checkpoint_sha256: str

    def __str__(self) -> str:
        return f"calibrated: temperature {self.temperature:.3f}, fitted on {self.val_images:,} validation images"


def write_calibration(folder: Path, calibration: Calibration) -> None:
    with atomic_write(RunFolder(folder).calibration, "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(calibration), indent=2) + "\n")


def read_calibration(folder: Path, checkpoint_sha256: str) -> Calibration | None:
    """The calibration of these weights; None if evaluate.py has not been run on them. UserError for a damaged file."""
    file = RunFolder(folder).calibration
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not fits(found, FORM) or found.keys() != FORM.keys() or not 0 < found["temperature"] < 1e3:
            raise ValueError("not a calibration")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({cause_of(error)}): run evaluate.py again") from error
    return Calibration(**found) if found["checkpoint_sha256"] == checkpoint_sha256 else None
