"""A predictor as the bytes of a file that other programs open, and such bytes as a function again."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cifar10.errors import UserError
from cifar10.inference.export.graph import GraphPreprocessing
from cifar10.models.predictor import Predictor

Function = Callable[[np.ndarray], np.ndarray]  # uint8 (B, 3, H, W) -> float32 (B, C)
Metadata = dict[str, str]
DYNAMIC = {0: "batch", 2: "height", 3: "width"}  # axes of the pictures
EXAMPLE = (2, 3, 47, 61)  # of no special size


@dataclass(frozen=True)
class Format:
    """suffix: of the file. write: a predictor and what is to be said of it, as a file's bytes. read: the opposite."""

    suffix: str
    write: Callable[[Predictor, Metadata], bytes]
    read: Callable[[bytes], Function]


def graph_of(predictor: Predictor) -> Predictor:
    """The same predictor with preprocessing that can be exported; it shares the network."""
    graph = copy.copy(predictor)
    graph._modules = predictor._modules | {"preprocessing": GraphPreprocessing(predictor.preprocessing)}
    return graph.eval()


def metadata(predictor: Predictor, run: str) -> Metadata:
    """What stands in the file, so that nobody has to guess: texts, lists and sections as JSON."""
    return {
        "run": run,
        "input": "images: uint8 (batch, 3, height, width), red, green, blue from 0 to 255, upright, of any size;"
        " preprocessing and temperature are inside the graph",
        "output": "probabilities: float32 (batch, classes), in the order of class_names",
        "class_names": json.dumps(predictor.class_names, ensure_ascii=False),
        "preprocessing": json.dumps(predictor.preprocessing.settings),
        "temperature": str(predictor.temperature),
    }


def write_onnx(predictor: Predictor, about: Metadata) -> bytes:
    require("onnx", "onnxruntime", "onnxscript")
    axes = {axis: torch.export.Dim(name) for axis, name in DYNAMIC.items()}
    with quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            graph_of(predictor),
            (torch.zeros(EXAMPLE, dtype=torch.uint8),),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=(axes,),
        )
    program.model.metadata_props.update(about)
    return program.model_proto.SerializeToString()


def read_onnx(content: bytes) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def write_program(predictor: Predictor, about: Metadata) -> bytes:
    axes = dict.fromkeys(DYNAMIC, torch.export.Dim.DYNAMIC)
    with quiet(), torch.no_grad():
        program = torch.export.export(
            graph_of(predictor), (torch.zeros(EXAMPLE, dtype=torch.uint8),), dynamic_shapes=(axes,)
        )
        torch.export.save(program, file := io.BytesIO(), extra_files=dict(about))
    return file.getvalue()


def read_program(content: bytes) -> Function:
    with quiet():
        module = torch.export.load(io.BytesIO(content)).module()
    return torch.no_grad()(lambda images: module(torch.from_numpy(images)).numpy())


FORMATS = {"onnx": Format(".onnx", write_onnx, read_onnx), "torch_export": Format(".pt2", write_program, read_program)}


def require(*packages: str) -> None:
    """UserError unless these are installed."""
    from importlib.util import find_spec

    if missing := [package for package in packages if find_spec(package) is None]:
        raise UserError(f"exporting needs {', '.join(missing)}: pip install 'cifar10[export]'")


@contextmanager
def quiet():
    """Without the exporters' remarks on their own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
