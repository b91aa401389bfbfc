"""EfficientNet-B0 at 224 px: training and the frozen pass, beside a bare timm loop and the chip's own matrix rate."""

from collections.abc import Callable, Iterator

import timm
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from cifar10.models.efficientnet import EfficientNet
from tests.benchmarks.measure import Settings, measure, now
from tests.benchmarks.training import EpochClock

NAME, SIZE = "tf_efficientnet_b0", 224
TINY, TINY_SIZE = "test_efficientnet", 32


def backbone(settings: Settings) -> Iterator[dict]:
    name, size = (TINY, TINY_SIZE) if settings.quick else (NAME, SIZE)
    gpu = settings.device.type == "cuda"
    images, batch = settings.count(8192 if gpu else 128), 128 if gpu else 16
    title = f"{name} {size} px"
    learning = {
        "through the Trainer": lambda: trainer_rate(settings, name, size, images, batch),
        "bare timm loop": bare_rate(settings, name, size, images, batch),
    }
    trained = measure(settings, "backbone", f"{title}, all of it learning", "images/s", learning, ">= 0.95")
    yield trained
    achieved = 3e-12 * forward_flops(name, size) * trained["medians"]["through the Trainer"]
    arithmetic = {"training": lambda: achieved, "matrix product": lambda: matrix_rate(settings)}
    yield measure(settings, "backbone", f"{title}, arithmetic", "TFLOP/s", arithmetic)
    frozen = {"frozen pass": frozen_rate(settings, name, size, images, batch)}
    yield measure(settings, "backbone", f"{title}, frozen", "images/s", frozen)


def trainer_rate(settings: Settings, name: str, size: int, images: int, batch: int) -> float:
    """Images/s of an epoch of training, from uint8 images on."""
    datamodule = settings.data(train_size=images, val_size=images // 4, image_size=size, crop_padding=4, flip=True)
    datamodule.batch_size = batch
    model, clock = EfficientNet(list(datamodule.class_names), name, pretrained=False, image_size=size), EpochClock()
    settings.trainer(max_epochs=2, callbacks=[clock], limit_val_batches=0).fit(model, datamodule)
    return images / clock.seconds


def bare_rate(settings: Settings, name: str, size: int, images: int, batch: int) -> Callable[[], float]:
    """Measures images/s of the same network and optimizer on one batch that lies on the device."""
    network = timm.create_model(name, num_classes=10).to(settings.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    inputs = random_images(settings, batch, size)
    labels = torch.randint(0, 10, (batch,), device=settings.device)
    scaler = settings.scaler

    def rate(steps: int = max(2, images // batch)) -> float:
        begun = now()
        for _ in range(steps):
            optimizer.zero_grad()
            with settings.autocast:
                loss = F.cross_entropy(network(inputs), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return steps * batch / (now() - begun)

    rate(steps=2)  # finds kernels and memory
    return rate


def frozen_rate(settings: Settings, name: str, size: int, images: int, batch: int) -> Callable[[], float]:
    """Measures images/s of the frozen backbone as phase 1 runs it, its input ready on the device."""
    model = EfficientNet(["a", "b"], name, pretrained=False, image_size=size)
    network, inputs = model.backbone.to(settings.device).eval(), random_images(settings, batch, size)

    def rate(steps: int = max(2, images // batch)) -> float:
        begun = now()
        with torch.inference_mode(), settings.autocast:
            for _ in range(steps):
                network(inputs)
        return steps * batch / (now() - begun)

    rate(steps=2)
    return rate


def random_images(settings: Settings, batch: int, size: int) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, device=settings.device).to(memory_format=torch.channels_last)


def forward_flops(name: str, size: int) -> int:
    """Multiplications and additions of one image's forward pass; backward takes about twice as many."""
    network = timm.create_model(name, num_classes=10).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, size, size))
    return counter.get_total_flops()


def matrix_rate(settings: Settings) -> float:
    """TFLOP/s of a square matrix product in the precision of training: what the chip gives at best."""
    gpu = settings.device.type == "cuda"
    side, products = 8192 if gpu else 256 if settings.quick else 2048, 20 if gpu else 3
    left, right = (torch.randn(side, side, device=settings.device, dtype=settings.dtype) for _ in range(2))
    left @ right
    begun = now()
    for _ in range(products):
        left @ right
    return products * 2e-12 * side**3 / (now() - begun)
