"""Convolutions and matrix products of an ONNX file in 8 bits, and what that costs."""

import logging
import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor

from cifar10.errors import UserError
from cifar10.inference.export.formats import Function, quiet
from cifar10.progress import Progress

log = logging.getLogger("export")

BATCH = 32
CALIBRATED_ON = 512  # images


def int8(content: bytes, images: Tensor) -> bytes:
    """The same network with weights and activations of 8 bits, calibrated on images, uint8 (N, 3, H, W).

    Static quantisation by onnxruntime: weights per channel, activations per tensor. Preprocessing stays as it is.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Batches(CalibrationDataReader):
        def __init__(self):
            self.parts = iter(images.split(BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.parts, None)
            return None if part is None else {"images": part.numpy()}

    with tempfile.TemporaryDirectory() as folder, quiet():
        log.info(f"calibrating 8 bits on {len(images):,} validation images")
        quantize_static(
            onnx.load_from_string(content),
            file := Path(folder) / "int8.onnx",
            Batches(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return file.read_bytes()


def accuracy(function: Function, images: Tensor, labels: Tensor, name: str) -> float:
    right = 0
    with Progress(len(images), name) as progress:
        for part, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            right += int((function(part.numpy()).argmax(1) == truth.numpy()).sum())
            progress.update(len(part))
    return right / len(images)


def check_drop(before: float, after: float, count: int, max_drop: float) -> None:
    """Say what 8 bits cost; UserError if that is more than `max_drop`."""
    log.info(f"accuracy on {count:,} other validation images: {before:.4f}, with 8 bits {after:.4f}")
    if before - after > max_drop:
        raise UserError(
            f"quantize=int8: costs {before - after:.4f} of the accuracy, more than max_drop={max_drop}; nothing was"
            " written"
        )
