"""Feature caching: a network's frozen part runs once on every image, and its output is kept."""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from cifar10.callbacks.two_phase import TwoPhaseFineTuning, set_mode
from cifar10.data.feature_cache import FeatureCache, Features, fill
from cifar10.errors import UserError
from cifar10.machine import size
from cifar10.progress import Progress

log = logging.getLogger(__name__)


class FeatureCaching(pl.Callback):
    """Train on cached features of the frozen part of the backbone, as `TwoPhaseFineTuning` freezes it.

    views: of each training image, in place of random augmentation: 1, the image; 2, its mirror image too; more,
    shifted copies (see `Augmentation.view`). 0: off, everything is computed in every step. If phase 2 follows, phase 1
    uses only the images themselves: its head is merely the starting point of phase 2.

    The data module serves the features, and the model starts after the frozen part. Both phases start from the
    features before the first block that phase 2 unfreezes, so that no frozen layer is computed twice. A resumed run
    computes them again. Raises UserError for augmentation that needs new random numbers every epoch, or without two
    phases.
    """

    def __init__(self, views: int = 2):
        if views < 0:
            raise ValueError(f"views={views}: must not be negative; 0 is off")
        self.views = views
        self.splits: bool | None = None  # whether the backbone can be split before the first trainable block
        self._forget()

    def _forget(self) -> None:
        self.cached_phase = 0  # the phase whose features are served
        self.boundary: dict[str, FeatureCache] | None = None  # the features there
        self.frozen_state: dict[str, Tensor] = {}  # the weights that the served features come from

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit" or not self.views:
            return
        self.splits = None
        self._forget()
        if trainer.datamodule is None:
            raise UserError("callbacks.feature_caching.views: needs a data module that serves features; set it to 0")
        trainer.datamodule.augmentation.check_views(self.views)
        phases = [callback for callback in trainer.callbacks if isinstance(callback, TwoPhaseFineTuning)]
        if not phases:
            raise UserError(
                "callbacks.feature_caching.views: nothing is frozen without callbacks.two_phase; set it to 0"
            )
        self.two_phase = phases[0]

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._enter_phase(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._enter_phase(trainer, pl_module)

    def _enter_phase(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.views and (phase := self.two_phase.phase(trainer.current_epoch)) != self.cached_phase:
            pl_module.backbone.eval()
            self._cache(trainer, pl_module, phase)
            set_mode(pl_module.backbone)
            self.cached_phase = phase

    def _cache(self, trainer: Any, pl_module: Any, phase: int) -> None:
        """Have the data module serve the features of a phase, and the model start after them."""
        phase_2_follows = self.two_phase.switch_epoch < trainer.max_epochs
        whole = pl_module.split_backbone(len(pl_module.backbone_blocks()))
        trunk, tail = pl_module.split_backbone(self.two_phase.first_learning_block(pl_module))
        if phase == 2 or phase_2_follows:
            self._cache_boundary(trainer, pl_module, trunk, tail, whole[0])
        if phase == 2:
            frozen, features = trunk, self.boundary or {}
        elif self.boundary is None:
            frozen, tail = whole
            views = 1 if phase_2_follows else self.views
            features = compute_features(trainer, freeze(trainer, pl_module, frozen), views)
        else:
            features = compute_features(trainer, functools.partial(run_frozen, trainer, tail), 1, of=self.boundary)
            frozen, tail = whole
        trainer.datamodule.serve(features)
        pl_module.set_tail(tail)
        self.frozen_state = {name: value.clone() for name, value in frozen.state_dict().items()}

    def _cache_boundary(
        self, trainer: Any, pl_module: Any, trunk: nn.Module, tail: nn.Module, whole: nn.Module
    ) -> None:
        """Compute, once, the features before the first trainable block, if the backbone can be split there."""
        first = self.two_phase.first_learning_block(pl_module)
        if self.splits is not None or first == 0:
            return
        data = trainer.datamodule
        inputs = data.fixed_view("train", torch.arange(min(8, len(data.indices["train"]))), 0, pl_module.device)
        self.splits = is_split(functools.partial(run_frozen, trainer), trunk, tail, whole, inputs)
        if self.splits:
            self.boundary = compute_features(trainer, freeze(trainer, pl_module, trunk), self.views)
        else:
            log.warning("this backbone is not a sequence of its blocks: only the features of phase 1 are cached")

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Serve images again if a checkpoint has brought weights other than those the features come from."""
        if trainer.state.fn == "validate" and self.frozen_state:
            now = pl_module.state_dict()
            if any(not torch.equal(now[f"backbone.{name}"], value) for name, value in self.frozen_state.items()):
                trainer.datamodule.serve({})

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "validate" and self.frozen_state:  # `fit` leaves the features to the validation that follows it
            trainer.datamodule.serve({})
            self._forget()


def compute_features(
    trainer: Any, network: Callable[[Tensor], Tensor], views: int, of: dict[str, FeatureCache] | None = None
) -> dict[str, FeatureCache]:
    """A frozen network's output for every training image, in `views` fixed views, and for every validation image.

    network: input (B, 3, S, S) -> features (B, ...). of: earlier features to start from, instead of the images.
    Each process computes its shard.
    """
    data, device, started = trainer.datamodule, trainer.strategy.root_device, time.perf_counter()
    train, val = len(data.indices["train"]), len(data.indices["val"])
    caches, total = {}, views * train + val
    with Progress(total, "computing features") as progress:
        for stage, count in (("train", views), ("val", 1))[: 2 if val else 1]:

            def inputs(places: Tensor, view: int, stage: str = stage) -> Tensor:
                if of is not None:
                    return of[stage].read(places, view).to(device)
                return data.fixed_view(stage, places, view, device)

            shape, batch, folder = (len(data.indices[stage]), count), data.eval_batch_size, trainer.default_root_dir
            caches[stage] = fill(shape, inputs, network, batch, device, folder, trainer, progress.update)
    seconds, nbytes = time.perf_counter() - started, sum(cache.nbytes for cache in caches.values())
    each = f" in {views} views each" if views > 1 else ""
    log.info(
        f"cached the features of {train:,} training images{each}{f' and {val:,} validation images' if val else ''}:"
        f" {size(nbytes)} {caches['train'].place}, {seconds:.0f} s, {total / seconds:.0f} img/s"
    )
    return caches


def freeze(trainer: pl.Trainer, pl_module: Any, network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network as a function without gradients, compiled with its weights folded into the code if the model says so.

    Its weights must not change afterwards.
    """
    if not pl_module.compile_frozen:
        return functools.partial(run_frozen, trainer, network)
    import torch._inductor.config as inductor  # takes a second, and few need it

    log.info("compiling the frozen part: half a minute")
    network.compile(dynamic=False)
    # as an argument of `compile` it has half the effect
    return functools.partial(run_frozen, trainer, inductor.patch(freezing=True)(lambda inputs: network(inputs)))


def run_frozen(trainer: pl.Trainer, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """The network's output in the trainer's precision, without gradients."""
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        return network(trainer.precision_plugin.convert_input(Features(inputs).input()))


def is_split(run: Callable, trunk: nn.Module, tail: nn.Module, whole: nn.Module, inputs: Tensor) -> bool:
    """Whether trunk and tail, one after the other, compute what the whole network computes."""
    expected = run(whole, inputs)
    try:
        got = run(tail, run(trunk, inputs))
    except Exception:  # a network may raise anything for input that it was not made for
        return False
    return got.shape == expected.shape and bool((got - expected).norm() <= 1e-2 * expected.norm())
