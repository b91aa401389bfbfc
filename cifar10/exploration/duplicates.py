"""Pictures that occur more than once: the same content, or nearly the same to the eye.

Pixels decide, not a network's features: two aeroplanes in the same sky are alike to a network, and no duplicates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from cifar10.progress import Progress

SIDE, COARSE = 32, 8  # pixels: of the pictures compared, and of their outlines, by which candidates are found
ALIKE = 0.8  # least correlation of two outlines; 0.84 after a shift by a pixel
SAME_DETAIL = 0.84  # least correlation of detail: copies have 0.9, two seas below the same sky up to 0.79
LEAST_DETAIL = 2  # grey levels of standard deviation; two plain areas are no copies
SHIFT = 2  # pixels of SIDE by which a copy may be shifted
LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Group:
    """Copies of one picture. members: places of the pictures, ascending."""

    members: tuple[int, ...]
    across_splits: bool
    labels_differ: bool


def exact(digests: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> list[Group]:
    """Pictures of equal content; digests: str (N,), "" where it is not known."""
    _, content = np.unique(digests, return_inverse=True)
    return _grouped(np.where(digests == "", -1, content), labels, splits)


def near(pairs: np.ndarray, digests: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> list[Group]:
    """Pictures that are nearly the same, but not all of equal content; pairs: int (P, 2), of `near_pairs`."""
    links = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(labels),) * 2)
    linked, group = np.unique(pairs), np.full(len(labels), -1)
    group[linked] = connected_components(links, directed=False)[1][linked]
    found = _grouped(group, labels, splits)
    return [one for one in found if len(set(digests[list(one.members)]) - {""}) != 1]


def _grouped(group: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> list[Group]:
    """The groups with two members or more, -1 being none; first those that matter most."""
    order = np.argsort(group, kind="stable")
    order = order[group[order] >= 0]
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    found = [
        Group(tuple(map(int, part)), len(set(splits[part])) > 1, len(set(labels[part])) > 1)
        for part in parts
        if len(part) > 1
    ]
    return sorted(found, key=lambda one: (not one.labels_differ, not one.across_splits, one.members))


def near_pairs(read: Callable[[np.ndarray], np.ndarray], places: np.ndarray) -> np.ndarray:
    """Pairs (P, 2) of these places whose pictures differ by no more than compression, brightness, a small shift, or
    being each other's mirror image.

    read: places -> uint8 (n, 3, S, S).
    """
    grey = _grey(read, places)
    detail = grey - F.avg_pool2d(F.pad(grey[:, None], (3,) * 4, mode="replicate"), 7, 1)[:, 0]
    outline, found = _outline(grey), []
    with Progress(2 * len(places), "comparing pictures") as progress:
        for turned in (False, True):
            others = _outline(grey.flip(-1)) if turned else outline
            windows = Windows(detail.flip(-1) if turned else detail)
            for start in range(0, len(places), 1024):
                alike = (outline[start : start + 1024] @ others.T > ALIKE).nonzero()
                alike[:, 0] += start
                alike = alike[alike[:, 0] < alike[:, 1]]
                for few in alike.split(1024):
                    found.append(few[windows.best(detail[few[:, 0]], few[:, 1]) > SAME_DETAIL])
                progress.update(min(1024, len(places) - start))
    return places[np.unique(torch.cat(found).numpy(), axis=0)]


def _grey(read: Callable[[np.ndarray], np.ndarray], places: np.ndarray) -> Tensor:
    """Luminance of these pictures at `SIDE` pixels, float32 (n, SIDE, SIDE)."""
    weights, parts = torch.tensor(LUMINANCE).view(1, 3, 1, 1), []
    with Progress(len(places), "shrinking pictures") as progress:
        for few in np.array_split(places, max(1, len(places) // 256)):
            parts.append(F.adaptive_avg_pool2d((torch.from_numpy(read(few)).float() * weights).sum(1), SIDE))
            progress.update(len(few))
    return torch.cat(parts)


def _outline(grey: Tensor) -> Tensor:
    return _unit(F.adaptive_avg_pool2d(grey, COARSE).flatten(1))


def _unit(vectors: Tensor) -> Tensor:
    """Zero mean and unit length, so that a product is a correlation; plain areas stay shorter."""
    return F.normalize(vectors - vectors.mean(-1, keepdim=True), dim=-1, eps=LEAST_DETAIL * vectors.shape[-1] ** 0.5)


class Windows:
    """The detail of pictures, (N, SIDE, SIDE), seen through a smaller window at every small shift."""

    def __init__(self, detail: Tensor):
        self.detail, self.size = detail, SIDE - 2 * SHIFT
        self.shifts = [(down, across) for down in range(2 * SHIFT + 1) for across in range(2 * SHIFT + 1)]
        least = LEAST_DETAIL * self.size
        self.lengths = [
            self.view(detail, *shift).flatten(1).var(1, correction=0).sqrt().mul(self.size).clamp(least)
            for shift in self.shifts
        ]

    def view(self, detail: Tensor, down: int, across: int) -> Tensor:
        return detail[:, down : down + self.size, across : across + self.size]

    def best(self, others: Tensor, places: Tensor) -> Tensor:
        """The highest correlation, at any shift, of each of the others (P, SIDE, SIDE) with the picture at a place."""
        others = _unit(self.view(others, SHIFT, SHIFT).flatten(1)).view(-1, self.size, self.size)
        detail, best = self.detail[places], torch.full((len(places),), -1.0)
        for shift, lengths in zip(self.shifts, self.lengths, strict=True):
            products = (others * self.view(detail, *shift)).sum((1, 2))  # the others' mean is zero
            best = torch.maximum(best, products / lengths[places])
        return best
