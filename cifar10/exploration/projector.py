"""TensorBoard's projector: the features with labels, names and pictures, to turn around in three dimensions."""

import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from cifar10.exploration.findings import Findings
from cifar10.report.numbers import printable

LARGEST_SHEET = 8192  # pixels of a side of a sheet of tiles that TensorBoard takes


def write(folder: Path, findings: Findings) -> None:
    """Write the components of the chosen pictures below `folder`, as a new run of `tensorboard --logdir folder`."""
    found, chosen = findings.collection, findings.chosen
    rows = [
        [
            printable(found.class_names[found.labels[place]]),
            str(found.splits[place]),
            printable(found.files[int(place)]),
        ]
        for place in chosen
    ]
    side = min(32, LARGEST_SHEET // int(np.ceil(len(chosen) ** 0.5)))
    parts = [torch.from_numpy(found.read(few)).float() / 255 for few in np.array_split(chosen, -(-len(chosen) // 64))]
    tiles = torch.cat([torch.nn.functional.adaptive_avg_pool2d(part, side) for part in parts])
    with SummaryWriter(str(folder / time.strftime("projector_%Y-%m-%d_%H-%M-%S"))) as writer:
        writer.add_embedding(
            findings.components, rows, tiles, tag="features", metadata_header=["class", "split", "file"]
        )
