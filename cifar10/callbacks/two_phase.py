"""Two-phase fine-tuning: the head alone first, then the last part of the backbone with it."""

import functools
import logging
import math
from collections.abc import Callable

import pytorch_lightning as pl
import torch
from torch import nn

from cifar10.data.feature_cache import FeatureCache, Features
from cifar10.errors import UserError
from cifar10.models.classifier import LearningRates, check_schedule

log = logging.getLogger(__name__)


class TwoPhaseFineTuning(pl.Callback):
    """Train the head on a frozen backbone, then unfreeze the last part of the backbone by whole blocks.

    Phase 1 lasts `head_epochs`, or until `val/loss` has not improved for `patience` epochs; the best head is then put
    back. Phase 2 lasts to the end of the run, or until its own `val/loss` has not improved for `patience` epochs.
    patience: None runs both phases to their end. unfreeze_fraction: of the backbone's blocks, in (0, 1].
    lr: highest learning rate of phase 2, of the unfrozen blocks and, unless `head_lr` says otherwise, of the head;
    schedule, warmup: over phase 2, see `LearningRates`. Phase 1 has the model's own. The optimizer starts phase 2
    afresh.
    cache_views: 0 computes the frozen part anew in every step. From 1 on its features are computed once, for that many
    fixed views of each training image (the image, its mirror image, then shifted ones) in place of random augmentation,
    and training begins behind it: see `CIFAR10DataModule.encode`. Phase 1 has the first view alone if phase 2 follows.

    Frozen means that nothing moves: no gradients, and evaluation mode, so batch normalisation keeps its statistics
    and stochastic depth rests. The phase is a function of the epoch and of `switch_epoch` alone, which checkpoints
    restore. The model must have `head` and `backbone_blocks()`.
    """

    def __init__(
        self,
        head_epochs: int = 5,
        patience: int | None = 3,
        unfreeze_fraction: float = 0.3,
        lr: float = 1e-4,
        head_lr: float | None = None,
        schedule: str = "cosine",
        warmup: float = 0.1,
        cache_views: int = 0,
    ):
        if head_epochs < 0:
            raise UserError(f"head_epochs={head_epochs}: cannot be negative")
        if patience is not None and patience < 1:
            raise UserError(f"patience={patience}: at least one epoch, or null to never stop early")
        if not 0 < unfreeze_fraction <= 1:
            raise UserError(f"unfreeze_fraction={unfreeze_fraction}: must be a fraction of the blocks, in (0, 1]")
        if cache_views < 0:
            raise UserError(f"cache_views={cache_views}: cannot be negative; 0 is off")
        if head_lr is not None and not 0 < head_lr < math.inf:
            raise UserError(f"head_lr={head_lr}: must be a positive number, or null for the same as lr")
        check_schedule("callbacks.two_phase", lr, schedule, warmup)
        self.patience, self.unfreeze_fraction = patience, unfreeze_fraction
        self.lr, self.head_lr, self.schedule, self.warmup = lr, head_lr or lr, schedule, warmup
        self.cache_views = cache_views
        self._forget_features()
        self.switch_epoch = head_epochs  # the first epoch of phase 2
        self.best_loss, self.best_epoch = math.inf, -1  # of the phase under way
        self.best_head: dict[str, torch.Tensor] | None = None  # kept during phase 1 only

    def state_dict(self) -> dict:
        return {key: getattr(self, key) for key in ("switch_epoch", "best_loss", "best_epoch", "best_head")}

    def load_state_dict(self, state_dict: dict) -> None:
        for key, value in state_dict.items():
            setattr(self, key, value)

    def phase(self, epoch: int) -> int:
        """1 while the backbone is frozen, 2 afterwards."""
        return 1 if epoch < self.switch_epoch else 2

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not hasattr(pl_module, "backbone_blocks"):
            raise UserError(f"callbacks.two_phase: {type(pl_module).__name__} has no backbone to freeze")
        if stage == "fit":
            self._forget_features()
            if self.cache_views and trainer.datamodule is None:
                raise UserError("callbacks.two_phase.cache_views: needs a data module that can encode; set it to 0")
            if self.cache_views:
                trainer.datamodule.check_views(self.cache_views)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.switch_epoch >= (trainer.max_epochs or math.inf):
            log.info("phase 2 will not begin: head_epochs=%d, max_epochs=%d", self.switch_epoch, trainer.max_epochs)
        self._enter_phase(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.switch_epoch:
            self._switch(trainer, pl_module)
        self._enter_phase(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if trainer.is_last_batch:  # not as the epoch starts: a run that is resumed in mid-epoch begins behind that
            pl_module.log_now({"phase": float(self.phase(trainer.current_epoch))})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        epoch, loss = trainer.current_epoch, float(trainer.callback_metrics["val/loss"])
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, epoch
            if self.phase(epoch) == 1:
                self.best_head = {key: value.detach().clone() for key, value in pl_module.head.state_dict().items()}
        elif self.patience is not None and epoch - self.best_epoch >= self.patience:
            if self.phase(epoch) == 1:
                self.switch_epoch = epoch + 1
            else:
                log.info("val/loss has not improved for %d epochs: stopping", self.patience)
                trainer.should_stop = True

    def _switch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best head back and forget phase 1's optimizer state and score."""
        if self.best_head is not None:
            pl_module.head.load_state_dict(self.best_head)
            log.info("phase 2 begins; the best head, of epoch %d, is back", self.best_epoch + 1)
        else:
            log.info("phase 2 begins")
        self.best_loss, self.best_epoch, self.best_head = math.inf, trainer.current_epoch - 1, None
        for optimizer in trainer.optimizers:
            optimizer.state.clear()

    def _enter_phase(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freeze and set learning rates as the phase of this epoch wants them."""
        blocks = pl_module.backbone_blocks()
        steps_per_epoch = trainer.estimated_stepping_batches / trainer.max_epochs
        switch_step = round(self.switch_epoch * steps_per_epoch)
        if self.phase(trainer.current_epoch) == 1:
            unfrozen = 0
            rates = LearningRates({"head": pl_module.lr}, 0, switch_step, pl_module.schedule, pl_module.warmup)
        else:
            unfrozen = len(blocks) - self.first_learning_block(pl_module)
            peak = {"head": self.head_lr, "backbone": self.lr}
            last_step = trainer.estimated_stepping_batches
            rates = LearningRates(peak, switch_step, last_step, self.schedule, self.warmup)
        pl_module.learning_rates = rates
        for index, block in enumerate(blocks):
            for parameter in block:
                parameter.requires_grad_(index >= len(blocks) - unfrozen)
        if self.cache_views and self.phase(trainer.current_epoch) != self.cached_phase:
            self._cache_features(trainer, pl_module)
        set_mode(pl_module.backbone)

    def first_learning_block(self, pl_module: pl.LightningModule) -> int:
        """The number of the first block that phase 2 unfreezes."""
        blocks = len(pl_module.backbone_blocks())
        return blocks - max(1, round(self.unfreeze_fraction * blocks))

    def _forget_features(self) -> None:
        self.cached_phase = 0  # the phase whose features are served
        self.chain: bool | None = None  # whether the backbone can be cut in front of the first block that learns
        self.boundary: dict[str, FeatureCache] | None = None  # the features there
        self.frozen_state: dict[str, torch.Tensor] = {}  # weights of what the served features come from

    def _cache_features(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the data module serve what the frozen part makes of the images, and the model begin behind it.

        Phase 2 begins in front of the first block that learns. From there phase 1 goes on to the end of the backbone,
        and makes do with the images themselves where phase 2 follows: its head is only the start of that.
        """
        data, folder = trainer.datamodule, trainer.default_root_dir
        pl_module.backbone.eval()
        first = self.first_learning_block(pl_module)
        phase, phase_2_follows = self.phase(trainer.current_epoch), self.switch_epoch < trainer.max_epochs
        run, whole = functools.partial(run_frozen, trainer), pl_module.split_backbone(len(pl_module.backbone_blocks()))
        trunk, tail = pl_module.split_backbone(first)
        if self.chain is None and first > 0 and (phase == 2 or phase_2_follows):
            inputs = data.view("val", torch.arange(min(8, len(data.indices["val"]))), 0, pl_module.device)
            self.chain = is_chain(run, trunk, tail, whole[0], inputs)
            if self.chain:
                frozen = freeze(pl_module, trunk)
                self.boundary = data.encode(functools.partial(run, frozen), self.cache_views, folder)
            else:
                log.warning("the backbone is no chain of its blocks: only phase 1 has its features cached")
        if phase == 2:
            frozen, features = trunk, self.boundary or {}
        elif self.boundary is None:
            frozen, tail = whole
            views = 1 if phase_2_follows else self.cache_views
            features = data.encode(functools.partial(run, freeze(pl_module, frozen)), views, folder)
        else:
            features = data.encode(functools.partial(run, tail), 1, folder, of=self.boundary)
            frozen, tail = whole
        data.serve(features)
        pl_module.set_tail(tail)
        self.cached_phase = phase
        self.frozen_state = {name: value.clone() for name, value in frozen.state_dict().items()}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Serve images again if a checkpoint has brought other weights than those that the features come from."""
        if trainer.state.fn == "validate" and self.frozen_state:
            now = pl_module.state_dict()
            if any(not torch.equal(now[f"backbone.{name}"], value) for name, value in self.frozen_state.items()):
                trainer.datamodule.serve({})

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "validate" and self.frozen_state:  # `fit` leaves the features to the validation that follows it
            trainer.datamodule.serve({})
            self._forget_features()


def freeze(pl_module: pl.LightningModule, network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network, compiled with its weights folded into the code if the model says so: it must never learn again."""
    if not pl_module.compile_frozen:
        return network
    import torch._inductor.config as inductor  # takes a second, and few need it

    log.info("compiling the frozen part: half a minute")
    network.compile(dynamic=False)
    return inductor.patch(freezing=True)(lambda inputs: network(inputs))  # as an argument of `compile` it does half


def run_frozen(trainer: pl.Trainer, network: Callable, inputs: torch.Tensor) -> torch.Tensor:
    """The network's output in the trainer's precision, without gradients."""
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        return network(trainer.precision_plugin.convert_input(Features(inputs).input()))


def is_chain(run: Callable, trunk: nn.Module, tail: nn.Module, whole: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether trunk and tail after one another are the whole network."""
    expected = run(whole, inputs)
    try:
        got = run(tail, run(trunk, inputs))
    except Exception:  # whatever a network raises that is given what it was not made for
        return False
    return got.shape == expected.shape and bool((got - expected).norm() <= 1e-2 * expected.norm())


def set_mode(module: nn.Module) -> None:
    """Training mode where something learns, evaluation mode where everything is frozen.

    A module without parameters (dropout, stochastic depth) goes with its parent.
    """
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    module.training = True
    for child in module.children():
        set_mode(child)
