"""Small collections of pictures, whose content is known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifar10.exploration.collect import Collection


def textures(count: int, side: int = 48) -> np.ndarray:
    """Different pictures with an outline and detail, uint8 (count, 3, side, side)."""
    noise = torch.Generator().manual_seed(0)
    coarse, fine = (torch.rand(count, 3, size, size, generator=noise) for size in (6, 16))
    mixed = [F.interpolate(part, (side, side), mode="bicubic") for part in (coarse, fine)]
    return ((0.6 * mixed[0] + 0.4 * mixed[1]).clamp(0, 1) * 200 + 20).byte().numpy()


@pytest.fixture
def collection() -> Collection:
    """40 pictures in two classes, with names as strangers give them; 21 is a copy of 0, with another label."""
    images, labels = textures(40), np.arange(40) % 2
    images[21] = images[0]
    digests = [str(index) for index in range(40)]
    digests[21] = "0"
    return Collection(
        name="photos of <everything>",
        class_names=("</script><img src=x onerror=alert(1)>\t\n", 'caf\udce9 "&" \N{RIGHT-TO-LEFT OVERRIDE}'),
        read=lambda places: images[places],
        labels=labels,
        splits=np.array(["train"] * 20 + ["val"] * 10 + ["test"] * 10),
        files=[f"a\tb/<b>{index}.jpg" for index in range(40)],
        sizes=np.stack([np.arange(40, 80), np.full(40, 30)], 1),
        digests=np.array(digests),
        unreadable={f"broken <i>{index}.jpg": "cut short" for index in range(30)},
    )
