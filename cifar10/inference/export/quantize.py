"""Convolutions and matrix products of an ONNX file in 8 bits, and what that costs."""

import logging
import math
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from cifar10.errors import UserError
from cifar10.inference.export.formats import Function, quiet
from cifar10.progress import Progress

log = logging.getLogger("export")

BATCH = 32
CALIBRATED_ON = 512  # images


def int8(content: bytes, images: Tensor) -> bytes:
    """The same network with weights and activations of 8 bits, calibrated on images, uint8 (N, 3, H, W).

    Static quantisation by onnxruntime: weights per channel, activations per tensor, their ranges averaged over batches.
    Preprocessing stays as it is, and so does the first tenth of the convolutions: they hold few of the weights, and
    cause most of the loss.
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

        def get_next(self) -> Any:  # None after the last
            part = next(self.parts, None)
            return None if part is None else {"images": part.numpy()}

    log.info(f"calibrating 8 bits on {len(images):,} validation images")
    network = onnx.load_from_string(content)
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    kept = [node.name for node in convolutions[: math.ceil(len(convolutions) / 10)]]
    with tempfile.TemporaryDirectory() as folder, quiet():
        quantize_static(
            network,
            file := Path(folder) / "int8.onnx",
            Batches(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=kept,
            extra_options={"CalibMovingAverage": True},
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
    log.info(f"accuracy on {count:,} validation images, apart from those: {before:.4f}, with 8 bits {after:.4f}")
    if before - after > max_drop:
        raise UserError(
            f"quantize=int8: costs {before - after:.4f} of the accuracy, more than max_drop={max_drop}; nothing was"
            " written"
        )
