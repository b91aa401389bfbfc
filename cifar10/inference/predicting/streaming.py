"""Pictures in, rows out: threads decode ahead while the network works; what is kept at once are a few batches."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from cifar10.data.pictures.decode import UnreadablePicture
from cifar10.inference.loading import Model, Prediction
from cifar10.inference.predicting.inputs import Input
from cifar10.machine import cores

AHEAD = 3  # batches


@dataclass(frozen=True)
class Row:
    """What was found of one picture. error: why it cannot be read; then the others are None.

    square: what the network has seen, uint8 (3, S, S).
    """

    file: str
    prediction: Prediction | None = None
    square: Tensor | None = None
    error: str | None = None


def predict_all(model: Model, inputs: Iterable[Input], batch_size: int) -> Iterator[Row]:
    """A row for each picture, in order."""
    inputs = iter(inputs)
    waiting: deque[tuple[list[Input], list[Future]]] = deque()
    pool = ThreadPoolExecutor(cores())
    try:
        while True:
            while len(waiting) < AHEAD and (batch := list(islice(inputs, batch_size))):
                waiting.append((batch, [pool.submit(read, model, one) for one in batch]))
            if not waiting:
                return
            batch, futures = waiting.popleft()
            yield from predict_batch(model, batch, [future.result() for future in futures])
    finally:
        pool.shutdown(cancel_futures=True)


def read(model: Model, one: Input) -> Tensor | str:
    """The picture as the network is to see it, or why it cannot be read."""
    try:
        return model.read(one.picture)
    except UnreadablePicture as error:
        return str(error)


def predict_batch(model: Model, batch: list[Input], squares: list[Tensor | str]) -> Iterator[Row]:
    readable = [square for square in squares if isinstance(square, Tensor)]
    probabilities = iter(model.probabilities(torch.stack(readable)).numpy() if readable else ())
    for one, square in zip(batch, squares, strict=True):
        if isinstance(square, str):
            yield Row(one.name, error=square)
        else:
            yield Row(one.name, Prediction(model.class_names, next(probabilities)), square)
