"""Requests that wait at the same time become one batch of the network."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LARGEST = 32  # images of a batch


class Waiting(NamedTuple):
    image: Tensor
    answer: asyncio.Future


class Batcher:
    """Probabilities of one image at a time, computed for all that have arrived since the last batch began.

    probabilities: uint8 (B, 3, S, S) -> float32 (B, C); it runs in `executor`, whose one thread has the network to
    itself. While it works, requests gather: nothing waits for a timer.
    """

    def __init__(self, probabilities: Callable[[Tensor], Tensor], executor: Executor):
        self.probabilities, self.executor = probabilities, executor
        self.waiting: list[Waiting] = []
        self.working: asyncio.Task | None = None

    async def __call__(self, image: Tensor) -> np.ndarray:
        """uint8 (3, S, S) -> float32 (C,)."""
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append(Waiting(image, answer))
        if self.working is None or self.working.done():
            self.working = asyncio.create_task(self.work())
        return await answer

    async def work(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting[:LARGEST], self.waiting[LARGEST:]
            images = torch.stack([one.image for one in batch])
            try:
                rows = await asyncio.get_running_loop().run_in_executor(self.executor, self.probabilities, images)
            except Exception as error:  # a bug, or no memory: these requests fail, and no others
                for one in batch:
                    if not one.answer.cancelled():
                        one.answer.set_exception(error)
                continue
            for one, row in zip(batch, rows.numpy(), strict=True):
                if not one.answer.cancelled():
                    one.answer.set_result(row)
