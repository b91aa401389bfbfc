"""EfficientNet-B0: both phases with cached features and without, and the speed of the frozen backbone."""

import tempfile
import warnings
from collections.abc import Callable, Iterator

import pytorch_lightning as pl
import torch

from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.models.efficientnet import EfficientNet
from tests.benchmarks.clock import EpochClock, now
from tests.benchmarks.results import Result, Series, pair
from tests.benchmarks.settings import BATCH, Settings


def cache(settings: Settings) -> Iterator[Result]:
    images, epochs = settings.count(256), 3 if settings.quick else 15
    shown = f"{'B0 96 px' if not settings.quick else 'tiny network'}, {images} + {images // 4}"

    def phase_1(views: int) -> float:
        return two_phase_fit(settings, images, epochs, TwoPhaseFineTuning(epochs, patience=None, cache_views=views))[0]

    def phase_2(views: int) -> float:
        callback = TwoPhaseFineTuning(0, patience=None, unfreeze_fraction=0.3, cache_views=views)
        return two_phase_fit(settings, images, 3, callback)[1].seconds

    for name, measure, wanted in (
        (f"{shown}, phase 1, {epochs} epochs", phase_1, ">= 8"),
        (f"{shown}, phase 2, an epoch", phase_2, ">= 2"),
    ):
        without = Series("without cache", "s", lambda measure=measure: measure(0))
        cached = Series("with cache", "s", lambda measure=measure: measure(1))
        yield pair(settings, "cache", name, without, cached, wanted)


def two_phase_fit(
    settings: Settings, images: int, epochs: int, callback: TwoPhaseFineTuning
) -> tuple[float, EpochClock]:
    """Seconds of a whole fit, caching included, and its clock; without augmentation, from random weights."""
    size, backbone = (32, "test_efficientnet.r160_in1k") if settings.quick else (96, "tf_efficientnet_b0.in1k")
    datamodule = settings.data(image_size=size, train_size=images, val_size=images // 4, eval_batch_size=BATCH)
    datamodule.setup("fit")
    pl.seed_everything(0, workers=True, verbose=False)
    model, clock = EfficientNet(list(datamodule.class_names), backbone, pretrained=False, image_size=size), EpochClock()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no logger configured")
        trainer = settings.trainer(max_epochs=epochs, callbacks=[clock, callback], default_root_dir=folder)
        begun = now()
        trainer.fit(model, datamodule)
        return now() - begun, clock


def frozen_inference(settings: Settings, images: int, size: int) -> Callable[[], float]:
    """Measures images/s of the frozen backbone, its input ready on the device."""
    datamodule = settings.data(image_size=size)
    datamodule.setup("fit")
    inputs, _ = datamodule.on_after_batch_transfer((*(part[:BATCH] for part in datamodule.loaded["train"]), None))
    model = EfficientNet(list(datamodule.class_names), pretrained=False, image_size=size)
    backbone, inputs = model.backbone.to(settings.device).eval(), inputs.to(settings.device)
    forward_context = settings.trainer().precision_plugin.forward_context

    def measure(batches: int = max(1, images // BATCH)) -> float:
        begun = now()
        with torch.inference_mode(), forward_context():
            for _ in range(batches):
                backbone(inputs)
        return batches * BATCH / (now() - begun)

    measure(batches=1)  # finds kernels and memory
    return measure
