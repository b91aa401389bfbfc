"""An epoch of the CNN: as train.py runs it, beside a bare PyTorch loop and beside plain Lightning."""

import contextlib
import gc
import tempfile
import warnings
from collections.abc import Callable, Iterator

import hydra
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from cifar10.commandline.command import CONF
from cifar10.models.networks.cnn import CNN
from cifar10.training import build
from tests.benchmarks.clock import EpochClock, now
from tests.benchmarks.delivery import PerImage
from tests.benchmarks.results import Result, Series, pair
from tests.benchmarks.settings import BATCH, Settings

FULL_TRAIN, FULL_VAL = 40_000, 10_000
TRAIN_ONLY = ["+trainer.limit_val_batches=0", "callbacks.early_stopping=null"]  # which watches val/loss


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


def step(settings: Settings) -> Iterator[Result]:
    """Epochs of the recipe's length, extrapolated from shorter ones."""
    images = settings.count(8192)
    times, full = FULL_TRAIN / images, FULL_TRAIN + FULL_VAL
    bare = bare_loop(settings, images)
    yield pair(
        settings,
        "step",
        f"CNN, epoch of {FULL_TRAIN:,}, from {images:,}",
        Series("train.py", "s", lambda: configured_epoch(settings, images, TRAIN_ONLY).extrapolated(times), FULL_TRAIN),
        Series("bare PyTorch loop", "s", lambda: bare() * times, FULL_TRAIN),
        "<= 1.10",
    )
    yield pair(
        settings,
        "step",
        f"CNN, epoch of {FULL_TRAIN:,} + {FULL_VAL:,}, from {images:,} + {images // 4:,}",
        Series("train.py", "s", lambda: configured_epoch(settings, images).extrapolated(times), full),
        Series("plain Lightning", "s", lambda: plain_epoch(settings, images).extrapolated(times), full),
        "<= 0.6",
    )


def overrides(settings: Settings, images: int) -> list[str]:
    """What makes a configured run use this data and device."""
    return [
        f"data={settings.source}",
        f"data.root='{settings.root}'",
        f"data.train_size={images}",
        f"data.val_size={images // 4}",
        f"trainer.accelerator={settings.accelerator}",
        "trainer.enable_progress_bar=false",
    ]


def compose(settings: Settings, folder: str, images: int, extra: list[str]) -> DictConfig:
    """The configuration of a run of two epochs in a folder."""
    run = [*overrides(settings, images), f"output_dir='{folder}'", "trainer.max_epochs=2", *extra]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", run)


def configured_epoch(settings: Settings, images: int, extra: list[str] | tuple[str, ...] = ()) -> EpochClock:
    """The clock of a run as train.py makes it, with its own callbacks and logger."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*could not find the monitored key")  # without validation
        cfg = compose(settings, folder, images, list(extra))
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        datamodule = build.build_data(cfg)
        model = build.build_model(cfg, datamodule)
        trainer, clock = build.build_trainer(cfg), EpochClock()
        trainer.callbacks.insert(0, clock)
        trainer.fit(model, datamodule)
    return clock


def bare_loop(settings: Settings, images: int) -> Callable[[], float]:
    """Measures seconds of the same training of the same network, its batches ready on the device."""
    cfg = compose(settings, "", images, [])
    datamodule = build.build_data(cfg)
    datamodule.setup("fit")
    batches = [
        tuple(tensor.to(settings.device) for tensor in datamodule.on_after_batch_transfer(batch))
        for batch in datamodule.train_dataloader()
    ]
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(settings.precision))
    autocast = torch.autocast(settings.device.type, half) if half else contextlib.nullcontext()
    scaler = torch.amp.GradScaler(settings.device.type, enabled=half == torch.float16)

    def measure() -> float:
        model = build.build_model(cfg, datamodule).to(settings.device).train()
        optimizer = model.configure_optimizers()
        for _ in range(2):  # the first one warms up
            begun = now()
            for inputs, labels in batches:
                optimizer.zero_grad()
                with autocast:
                    loss = F.cross_entropy(model(inputs), labels)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
        return now() - begun

    return measure


def plain_epoch(settings: Settings, images: int) -> EpochClock:
    """The clock of the same training by plain Lightning, with its default checkpoints and logger."""
    datamodule = settings.data(train_size=images, val_size=images // 4)
    datamodule.setup("fit")
    pixels, labels = datamodule.loaded["train"]
    options = {"num_workers": 2, "persistent_workers": True, "pin_memory": settings.device.type == "cuda"}
    loaders = []
    for stage in ("train", "val"):
        index = datamodule.indices[stage]
        dataset = PerImage(pixels[index], labels[index], transforms.ToTensor())
        loaders.append(DataLoader(dataset, BATCH, shuffle=stage == "train", **options))
    pl.seed_everything(0, workers=True, verbose=False)
    clock = EpochClock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = settings.trainer(
            max_epochs=2, callbacks=[clock], default_root_dir=folder, logger=True, enable_checkpointing=True
        )
        trainer.fit(PlainModule(len(datamodule.class_names)), *loaders)
    del trainer, loaders
    gc.collect()  # ends the workers, before anything else is measured
    return clock
