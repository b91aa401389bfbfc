"""EfficientNet-B0 at 224 px: training and the frozen pass, beside a bare timm loop and the chip's own matrix rate."""

import contextlib
from collections.abc import Callable, Iterator

import timm
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from cifar10.models.efficientnet import EfficientNet
from tests.benchmarks.clock import EpochClock, now
from tests.benchmarks.fine_tuning import frozen_inference
from tests.benchmarks.results import Result, Series, in_turn, pair
from tests.benchmarks.settings import Settings

NAME, SIZE = "tf_efficientnet_b0", 224
TINY, TINY_SIZE = "test_efficientnet", 32


def backbone(settings: Settings) -> Iterator[Result]:
    name, size = (TINY, TINY_SIZE) if settings.quick else (NAME, SIZE)
    gpu = settings.device.type == "cuda"
    images, batch = settings.count(8192 if gpu else 128), 128 if gpu else 16
    trained = Series("through the Trainer", "images/s", lambda: trainer_rate(settings, name, size, images, batch))
    bare = Series("bare timm loop", "images/s", bare_rate(settings, name, size, images, batch))
    yield pair(settings, "backbone", f"{name} {size} px, all of it learning", trained, bare, ">= 0.95")
    flops = forward_flops(name, size)
    achieved = Series("training", "TFLOP/s", lambda: 3e-12 * flops * trained.median)
    rate = Series("matrix product", "TFLOP/s", lambda: matrix_rate(settings))
    yield pair(settings, "backbone", f"{name} {size} px, arithmetic", achieved, rate)
    if not settings.quick:
        frozen = Series("frozen pass", "images/s", frozen_inference(settings, images, size))
        in_turn("backbone", settings.repeats, frozen)
        yield Result("backbone", f"{name} {size} px, frozen", frozen, trained)


def trainer_rate(settings: Settings, name: str, size: int, images: int, batch: int) -> float:
    """Images/s of an epoch's training batches, from uint8 images on."""
    datamodule = settings.data(train_size=images, val_size=images // 4, image_size=size, crop_padding=4, flip=True)
    datamodule.batch_size = batch
    model, clock = EfficientNet(list(datamodule.class_names), name, pretrained=False, image_size=size), EpochClock()
    trainer = settings.trainer(max_epochs=2, callbacks=[clock], limit_val_batches=0)
    trainer.fit(model, datamodule)
    return images * clock.epochs / clock.growing


def bare_rate(settings: Settings, name: str, size: int, images: int, batch: int) -> Callable[[], float]:
    """Measures images/s of the same network and optimizer on one batch that lies on the device."""
    network = timm.create_model(name, num_classes=10).to(settings.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    inputs = torch.randn(batch, 3, size, size, device=settings.device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,), device=settings.device)
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(settings.precision))
    scaler = torch.amp.GradScaler(settings.device.type, enabled=half == torch.float16)

    def measure(steps: int = max(2, images // batch)) -> float:
        begun = now()
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(settings.device.type, half) if half else contextlib.nullcontext():
                loss = F.cross_entropy(network(inputs), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return steps * batch / (now() - begun)

    measure(steps=2)  # finds kernels and memory
    return measure


def forward_flops(name: str, size: int) -> int:
    """Multiplications and additions of one image's forward pass; backward takes about twice as many."""
    network = timm.create_model(name, num_classes=10).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, size, size))
    return counter.get_total_flops()


def matrix_rate(settings: Settings) -> float:
    """TFLOP/s of a square matrix product in the precision of training: what the chip gives at best."""
    side = 8192 if settings.device.type == "cuda" else 256 if settings.quick else 2048
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(settings.precision), torch.float32)
    left, right = (torch.randn(side, side, device=settings.device, dtype=half) for _ in range(2))
    products = 20 if settings.device.type == "cuda" else 3
    left @ right
    begun = now()
    for _ in range(products):
        left @ right
    return products * 2e-12 * side**3 / (now() - begun)
