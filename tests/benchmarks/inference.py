"""A finished run's images/s and latency as PyTorch, compiled, ONNX and ONNX in 8 bits, in turn, with accuracy beside.

python -m tests.benchmarks.inference RUN [REPEATS]     the run's own validation images, on the CPU
"""

import copy
import statistics
import sys
import time

import numpy as np
import torch
from omegaconf import OmegaConf

from cifar10.inference.export import quantize
from cifar10.inference.export.formats import FORMATS, Function, graph_of, metadata
from cifar10.inference.export.steps import images_to_check
from cifar10.inference.finished_runs import open_run
from cifar10.inference.loading import load
from cifar10.machine import commit, processor

SECONDS = 2.0  # of each measurement
JUDGED = 1000  # images, twice that many


def ways(run: str) -> tuple[dict[str, Function], torch.Tensor, torch.Tensor]:
    """Each way as a function of uint8 arrays, and images, with labels, that none of them was calibrated on."""
    model = load(run, device="cpu")
    cfg = OmegaConf.create({"checkpoint": "best", "data_root": None, "check_images": JUDGED, "quantize": "int8"})
    images, labels = images_to_check(open_run(model.folder), model, cfg)
    others, images, labels = (
        images[: quantize.CALIBRATED_ON],
        *(t[quantize.CALIBRATED_ON :] for t in (images, labels)),
    )
    onnx = FORMATS["onnx"].write(model.predictor, metadata(model.predictor, run))
    compiled = graph_of(model.predictor)
    compiled._modules["preprocessing"] = model.predictor.preprocessing
    compiled._modules["network"] = copy.deepcopy(model.predictor.network)
    compiled.network.compile(dynamic=False)
    found = {
        "PyTorch": in_pytorch(model.predictor),
        "compiled": in_pytorch(compiled),
        "ONNX": FORMATS["onnx"].read(onnx),
        "ONNX, 8 bits": FORMATS["onnx"].read(quantize.int8(onnx, others)),
    }
    return found, images, labels


def in_pytorch(predictor: torch.nn.Module) -> Function:
    return torch.inference_mode()(lambda images: predictor(torch.from_numpy(images)).numpy())


def milliseconds(function: Function, images: np.ndarray) -> float:
    """Of a call: the median of as many as take two seconds."""
    function(images)
    taken, begun = [], time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        function(images)
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def main(run: str, repeats: int = 3) -> None:
    functions, images, labels = ways(run)
    one, several = images[:1].numpy(), images[:32].numpy()
    times = {name: ([], []) for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            for batch, taken in zip((one, several), times[name], strict=True):
                taken.append(milliseconds(function, batch))
    print(f"{run}, commit {commit()}, {processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':<14}{'one picture':>14}{'batches of 32':>18}   accuracy on {len(images):,} validation images")
    for name, function in functions.items():
        right = [function(part.numpy()).argmax(1) == truth.numpy()
                 for part, truth in zip(images.split(32), labels.split(32), strict=True)]  # fmt: skip
        first, second = (statistics.median(taken) for taken in times[name])
        print(f"{name:<14}{first:>11.2f} ms{32_000 / second:>12,.0f} img/s   {np.concatenate(right).mean():.4f}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
