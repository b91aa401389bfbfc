"""Images delivered ready for the network: whole batches on the device, beside one image at a time in workers."""

from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tests.benchmarks.clock import now
from tests.benchmarks.results import Result, Series, pair
from tests.benchmarks.settings import BATCH, Settings

WANTED = {32: ">= 20", 224: ">= 4"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEAST_SECONDS = 0.5  # a pass over a few thousand images takes hundredths of a second


class PerImage(Dataset):
    """torchvision's way, as in its own CIFAR10: one image at a time, from memory, through PIL and `transform`."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable):
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def data(settings: Settings) -> Iterator[Result]:
    images = settings.count(4096)
    for size, wanted in WANTED.items():
        ours, theirs = data_module(settings, images, size), torchvision_workers(settings, images, size)
        yield pair(
            settings,
            "data",
            f"delivered at {size} px",
            Series("data module", "images/s", ours),
            Series("torchvision, 2 workers", "images/s", theirs),
            wanted,
        )


def data_module(settings: Settings, images: int, size: int) -> Callable[[], float]:
    """Measures images/s over whole epochs of `CIFAR10DataModule`, the drawing of each epoch's order included."""
    datamodule = settings.data(image_size=size, crop_padding=4, flip=True)
    datamodule.trainer = settings.trainer()  # whose device the images go to
    datamodule.setup("fit")
    datamodule.indices["train"] = torch.arange(images)
    batches = datamodule.train_dataloader()

    def epoch() -> None:
        for batch in batches:
            datamodule.on_after_batch_transfer(datamodule.transfer_batch_to_device(batch, settings.device, 0))

    return images_per_second(epoch, images)


def torchvision_workers(settings: Settings, images: int, size: int) -> Callable[[], float]:
    """Measures images/s of the same work by torchvision; the workers have been started by then."""
    resize = [transforms.Resize(size, transforms.InterpolationMode.BICUBIC)] if size > 32 else []
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            *resize,
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    pixels, labels = settings.data().source.load("train")
    loader = DataLoader(
        PerImage(pixels[:images], labels[:images], transform),
        BATCH,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
        pin_memory=settings.device.type == "cuda",
    )

    def epoch() -> None:
        for batch, _ in loader:
            batch.to(settings.device, non_blocking=True)

    return images_per_second(epoch, images)


def images_per_second(epoch: Callable[[], None], images: int) -> Callable[[], float]:
    """Measures whole epochs, as many as the clock needs; one goes before, which starts and moves what there is."""
    epoch()

    def measure() -> float:
        begun, epochs = now(), 0
        while True:
            epoch()
            epochs += 1
            if (seconds := now() - begun) >= LEAST_SECONDS:
                return epochs * images / seconds

    return measure
