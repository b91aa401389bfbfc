"""Training as train.py runs it: the CNN beside a bare loop and plain Lightning; EfficientNet-B0, cached and not."""

import gc
import tempfile
from collections.abc import Callable, Iterator

import hydra
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from cifar10.commandline.error_messages import CONF
from cifar10.models.networks.cnn import CNN
from cifar10.training import build
from tests.benchmarks.data import PerImage, loader_options
from tests.benchmarks.measure import BATCH, Settings, measure, now

TRAIN_ONLY = ["+trainer.limit_val_batches=0", "callbacks.early_stopping=null"]  # which watches val/loss
ALONE = [  # nothing but the training
    *("logger=[]", "callbacks.dashboard=null", "callbacks.epoch_log=null", "callbacks.checkpoint=null"),
    *("+trainer.enable_checkpointing=false", "data.crop_padding=0", "data.flip=false"),
]
B0 = ["model=efficientnet_b0", "model.pretrained=false", "model.weights=null"]
B0_96 = [*B0, "data.image_size=96"]
B0_TINY = [*B0, "model.backbone=test_efficientnet.r160_in1k", "data.image_size=32"]


class EpochClock(pl.Callback):
    """Seconds of a run's epochs with all that happens in them, from the second on, as the first one warms up."""

    def __init__(self):
        self.begins: list[float] = []
        self.seconds = float("nan")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.begins.append(now())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = (now() - self.begins[1]) / (len(self.begins) - 1)


def epoch(settings: Settings) -> Iterator[dict]:
    images = settings.count(40_000)
    train_only = {
        "train.py": lambda: configured_fit(settings, images, TRAIN_ONLY)[1],
        "bare PyTorch loop": bare_epoch(settings, images),
    }
    yield measure(settings, "epoch", f"CNN, {images:,} images", "s", train_only, "<= 1.10")
    whole = {
        "train.py": lambda: configured_fit(settings, images)[1],
        "plain Lightning": lambda: plain_epoch(settings, images),
    }
    yield measure(settings, "epoch", f"CNN, {images:,} + {images // 4:,} images", "s", whole, "<= 0.6")


def cache(settings: Settings) -> Iterator[dict]:
    images, epochs = settings.count(256), 3 if settings.quick else 15
    network = B0_TINY if settings.quick else B0_96
    name = f"{'tiny network' if settings.quick else 'B0 96 px'}, {images} + {images // 4} images"

    def fit(views: int, head_epochs: int, max_epochs: int) -> tuple[float, float]:
        phases = [f"callbacks.two_phase.head_epochs={head_epochs}", "callbacks.two_phase.patience=null"]
        extra = [*phases, f"callbacks.feature_caching.views={views}", f"trainer.max_epochs={max_epochs}"]
        return configured_fit(settings, images, [*network, *ALONE, *extra])

    phase_1 = {
        "without cache": lambda: fit(0, head_epochs=epochs, max_epochs=epochs)[0],
        "with cache": lambda: fit(1, head_epochs=epochs, max_epochs=epochs)[0],
    }
    yield measure(settings, "cache", f"{name}, phase 1, {epochs} epochs", "s", phase_1, ">= 8")
    phase_2 = {
        "without cache": lambda: fit(0, head_epochs=0, max_epochs=3)[1],
        "with cache": lambda: fit(1, head_epochs=0, max_epochs=3)[1],
    }
    yield measure(settings, "cache", f"{name}, phase 2, an epoch", "s", phase_2, ">= 2")


def overrides(settings: Settings, images: int) -> list[str]:
    """What makes a configured run use this data and device."""
    return [
        f"data={settings.source}",
        f"data.root='{settings.root}'",
        f"data.train_size={images}",
        f"data.val_size={images // 4}",
        f"data.batch_size={BATCH}",
        f"trainer.accelerator={settings.accelerator}",
        "trainer.enable_progress_bar=false",
    ]


def compose(settings: Settings, folder: str, images: int, extra: list[str]) -> DictConfig:
    """The configuration of a run of two epochs in a folder, unless `extra` says otherwise."""
    run = [*overrides(settings, images), f"output_dir='{folder}'", "trainer.max_epochs=2", *extra]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", run)


def configured_fit(settings: Settings, images: int, extra: list[str] | tuple[str, ...] = ()) -> tuple[float, float]:
    """Seconds of a whole fit as train.py makes it, with its own callbacks and logger, and of one of its epochs."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = compose(settings, folder, images, list(extra))
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        datamodule = build.build_data(cfg)
        model = build.build_model(cfg, datamodule)
        trainer, clock = build.build_trainer(cfg), EpochClock()
        trainer.callbacks.insert(0, clock)
        begun = now()
        trainer.fit(model, datamodule)
        return now() - begun, clock.seconds


def bare_epoch(settings: Settings, images: int) -> Callable[[], float]:
    """Measures seconds of the same training of the same network, its batches ready on the device."""
    cfg = compose(settings, "", images, [])
    datamodule = build.build_data(cfg)
    datamodule.setup("fit")
    batches = [
        tuple(tensor.to(settings.device) for tensor in datamodule.on_after_batch_transfer(batch))
        for batch in datamodule.train_dataloader()
    ]
    scaler = settings.scaler

    def seconds() -> float:
        model = build.build_model(cfg, datamodule).to(settings.device).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        for _ in range(2):  # the first one warms up
            begun = now()
            for inputs, labels in batches:
                optimizer.zero_grad()
                with settings.autocast:
                    loss = F.cross_entropy(model(inputs), labels)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
        return now() - begun

    return seconds


class PlainModule(pl.LightningModule):
    """The CNN as Lightning's introduction would write it."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.network = CNN(num_classes)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self.network(images)
        self.log("val_loss", F.cross_entropy(logits, labels))
        self.log("val_acc", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def plain_epoch(settings: Settings, images: int) -> float:
    """Seconds of an epoch of the same training by plain Lightning, with its default checkpoints and logger."""
    pixels, labels = settings.data().source.load("train")
    parts = slice(images), slice(images, images + images // 4)
    train, val = (PerImage(pixels[part], labels[part], transforms.ToTensor()) for part in parts)
    loaders = [DataLoader(part, BATCH, shuffle=part is train, **loader_options(settings)) for part in (train, val)]
    pl.seed_everything(0, workers=True, verbose=False)
    clock = EpochClock()
    with tempfile.TemporaryDirectory() as folder:
        kept = {"default_root_dir": folder, "logger": True, "enable_checkpointing": True}
        trainer = settings.trainer(max_epochs=2, callbacks=[clock], **kept)
        trainer.fit(PlainModule(num_classes=10), *loaders)
    del trainer, loaders
    gc.collect()  # ends the workers, before anything else is measured
    return clock.seconds
