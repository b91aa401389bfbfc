"""Images delivered ready for the network: whole batches on the device, beside one image at a time in workers."""

from collections.abc import Callable, Iterator

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tests.benchmarks.measure import BATCH, Settings, measure, now

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


def data(settings: Settings) -> Iterator[dict]:
    images = settings.count(4096)
    for size, wanted in WANTED.items():
        both = {"data module": data_module(settings, images, size)}
        both["torchvision, 2 workers"] = torchvision_workers(settings, images, size)
        yield measure(settings, "data", f"delivered at {size} px", "images/s", both, wanted)


def data_module(settings: Settings, images: int, size: int) -> Callable[[], float]:
    """Measures images/s over whole epochs of `CIFAR10DataModule`, the drawing of each epoch's order included."""
    datamodule = settings.data(train_size=images, val_size=images // 4, image_size=size, crop_padding=4, flip=True)
    datamodule.trainer = settings.trainer()  # whose device the images go to
    datamodule.setup("fit")
    batches = datamodule.train_dataloader()

    def epoch() -> None:
        for batch in batches:
            datamodule.on_after_batch_transfer(datamodule.transfer_batch_to_device(batch, settings.device, 0))

    return images_per_second(epoch, images)


def torchvision_workers(settings: Settings, images: int, size: int) -> Callable[[], float]:
    """Measures images/s of the same work by torchvision; the workers have been started by then."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            *([transforms.Resize(size, transforms.InterpolationMode.BICUBIC)] if size > 32 else []),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    pixels, labels = settings.data().source.load("train")
    dataset = PerImage(pixels[:images], labels[:images], transform)
    loader = DataLoader(dataset, BATCH, shuffle=True, **loader_options(settings))

    def epoch() -> None:
        for batch, _ in loader:
            batch.to(settings.device, non_blocking=True)

    return images_per_second(epoch, images)


def loader_options(settings: Settings) -> dict[str, object]:
    return {"num_workers": 2, "persistent_workers": True, "pin_memory": settings.device.type == "cuda"}


def images_per_second(epoch: Callable[[], None], images: int) -> Callable[[], float]:
    """Measures whole epochs, as many as the clock needs, after a first one that starts and moves what it takes."""
    epoch()

    def rate() -> float:
        begun, epochs = now(), 0
        while True:
            epoch()
            epochs += 1
            if (seconds := now() - begun) >= LEAST_SECONDS:
                return epochs * images / seconds

    return rate
