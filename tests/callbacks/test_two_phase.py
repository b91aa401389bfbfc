"""TwoPhaseFineTuning: what is frozen does not move, what is unfrozen does, and a resumed run knows where it is."""

import copy
import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.errors import UserError
from cifar10.models.efficientnet import EfficientNet
from cifar10.models.scratch import ScratchClassifier

BACKBONE = "test_efficientnet.r160_in1k"


class Snapshots(Callback):
    """The model's state and the learning rates as each epoch starts (after every other callback) and ends."""

    def __init__(self):
        self.starts, self.ends, self.lrs, self.trained = {}, {}, {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.starts[trainer.current_epoch] = copy.deepcopy(pl_module.state_dict())
            self.trained[trainer.current_epoch] = {n for n, p in pl_module.named_parameters() if p.requires_grad}

        rates = {group["role"]: group["lr"] for group in trainer.optimizers[0].param_groups}
        self.lrs.setdefault(trainer.current_epoch, []).append(rates)

    def on_train_epoch_end(self, trainer, pl_module):
        self.ends[trainer.current_epoch] = copy.deepcopy(pl_module.state_dict())


class FixedLosses(Callback):
    """Replaces val/loss, or another metric, so that a test decides which epoch is the best."""

    def __init__(self, losses, metric="val/loss"):
        self.losses, self.metric = losses, metric

    def on_validation_end(self, trainer, pl_module):
        trainer.callback_metrics[self.metric].fill_(self.losses[trainer.current_epoch])


def build(datamodule, seed=0, **options):
    pl.seed_everything(seed)
    model = EfficientNet(
        list(datamodule.class_names), BACKBONE, pretrained=False, image_size=32, dropout=0.0, drop_path=0.2, **options
    )
    datamodule.use_preprocessing(model.preprocessing)
    return model


def fit(model, datamodule, epochs, *callbacks, resume=None, folder=None):
    keep = [ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, monitor="val/loss")] if folder else []
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[*callbacks, *keep], logger=False, default_root_dir=folder,
        enable_checkpointing=folder is not None, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, datamodule, ckpt_path=resume, weights_only=True)
    return trainer


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def names_of(model, blocks):
    """The names of everything in these blocks: parameters, and the buffers of the modules that own them."""
    inside = {id(parameter) for block in blocks for parameter in block}
    owners = {name.rpartition(".")[0] for name, p in model.named_parameters() if id(p) in inside}
    return {name for name in model.state_dict() if name.rpartition(".")[0] in owners}


def test_phase_1_trains_the_head_and_leaves_every_bit_of_the_backbone(datamodule):
    model, seen = build(datamodule), Snapshots()
    fit(model, datamodule, 2, TwoPhaseFineTuning(head_epochs=2), seen)
    for epoch in (0, 1):
        assert changed(seen.starts[epoch], seen.ends[epoch]) == {"head.1.weight", "head.1.bias"}


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.6, 1.0])
def test_phase_2_trains_the_last_whole_blocks_and_leaves_every_bit_of_the_others(datamodule, fraction):
    model, seen = build(datamodule), Snapshots()
    fit(model, datamodule, 2, TwoPhaseFineTuning(1, unfreeze_fraction=fraction, lr=1e-2), seen)
    blocks = model.backbone_blocks()
    count = max(1, round(fraction * len(blocks)))
    learning = names_of(model, blocks[len(blocks) - count :]) | {"head.1.weight", "head.1.bias"}
    assert changed(seen.starts[1], seen.ends[1]) == learning
    assert {name for name in seen.trained[1]} == learning & {name for name, _ in model.named_parameters()}


def test_stochastic_depth_rests_in_frozen_blocks_and_works_in_unfrozen_ones(datamodule):
    model = build(datamodule)
    fit(model, datamodule, 1, TwoPhaseFineTuning(0, unfreeze_fraction=0.3))
    modes = {name: m.training for name, m in model.backbone.named_modules() if type(m).__name__ == "DropPath"}
    assert modes and set(modes.values()) == {True, False}
    assert list(modes.values()) == sorted(modes.values()), "frozen blocks come first"


def test_every_parameter_is_in_the_optimizer_from_the_first_step(datamodule):
    model = build(datamodule)
    trainer = fit(model, datamodule, 1, TwoPhaseFineTuning(1))
    held = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()} and len(held) == len({id(p) for p in held})


def test_each_group_has_its_own_learning_rate_and_schedule(datamodule):
    model, seen = build(datamodule, lr=5e-3), Snapshots()
    callback = TwoPhaseFineTuning(1, lr=2e-3, head_lr=1e-3, schedule="cosine", warmup=0.0)
    fit(model, datamodule, 3, callback, seen)
    assert all(rates == {"head": 5e-3, "backbone": 0.0} for rates in seen.lrs[0])
    rates = seen.lrs[1] + seen.lrs[2]
    expected = [0.5 * (1 + math.cos(math.pi * step / len(rates))) for step in range(len(rates))]
    assert [rate["backbone"] for rate in rates] == pytest.approx([2e-3 * factor for factor in expected])
    assert [rate["head"] for rate in rates] == pytest.approx([1e-3 * factor for factor in expected])


def test_the_best_head_of_phase_1_begins_phase_2(datamodule):
    model, seen = build(datamodule), Snapshots()
    fit(model, datamodule, 4, FixedLosses([3.0, 1.0, 2.0, 2.5]), TwoPhaseFineTuning(3, patience=None), seen)
    for name in ("head.1.weight", "head.1.bias"):
        assert torch.equal(seen.starts[3][name], seen.ends[1][name])
        assert not torch.equal(seen.starts[3][name], seen.ends[2][name])


def test_patience_ends_phase_1_early_and_then_the_run(datamodule):
    callback, seen = TwoPhaseFineTuning(head_epochs=10, patience=2), Snapshots()
    losses = [2.0, 1.0, 1.5, 1.5, 9.0, 8.0, 8.5, 8.5, 0.0, 0.0]
    trainer = fit(build(datamodule), datamodule, 10, FixedLosses(losses), callback, seen)
    assert callback.switch_epoch == 4, "two epochs after the best, whose loss was 1.0"
    assert max(seen.ends) == 7, "phase 2 has its own best, 8.0, and stops two epochs after it"
    assert trainer.should_stop


@pytest.mark.parametrize("metric", ["val/acc", "val/macro_f1", "val/balanced_acc"])
def test_a_metric_that_is_better_when_higher_ends_the_phases_as_well(datamodule, metric):
    callback, seen = TwoPhaseFineTuning(head_epochs=10, patience=2, monitor=metric), Snapshots()
    scores = [0.2, 0.9, 0.5, 0.5, 0.1, 0.2, 0.1, 0.1, 1.0, 1.0]
    fit(build(datamodule), datamodule, 10, FixedLosses(scores, metric), callback, seen)
    assert callback.switch_epoch == 4 and max(seen.ends) == 7
    assert torch.equal(seen.starts[4]["head.1.bias"], seen.ends[1]["head.1.bias"]), "the best head, of 0.9"


def test_a_run_resumed_after_any_epoch_ends_in_the_same_bits(datamodule, tmp_path):
    options = {"head_epochs": 2, "patience": None, "lr": 1e-2}
    whole = build(datamodule)
    fit(whole, datamodule, 4, FixedLosses([1, 2, 3, 4]), TwoPhaseFineTuning(**options), folder=tmp_path)
    for epoch in range(3):
        resumed, callback = build(datamodule, seed=epoch + 1), TwoPhaseFineTuning(**options)
        checkpoint = tmp_path / f"epoch={epoch}.ckpt"
        fit(resumed, datamodule, 4, FixedLosses([1, 2, 3, 4]), callback, resume=checkpoint)
        assert changed(whole.state_dict(), resumed.state_dict()) == set(), f"resumed after epoch {epoch}"


def test_a_run_resumed_in_phase_2_keeps_the_blocks_unfrozen(datamodule, tmp_path):
    """Lightning's own BackboneFinetuning freezes them again: lightning issues 21531, 21901."""
    fit(build(datamodule), datamodule, 3, TwoPhaseFineTuning(1), folder=tmp_path)
    model, seen = build(datamodule), Snapshots()
    fit(model, datamodule, 4, TwoPhaseFineTuning(1), seen, resume=tmp_path / "epoch=1.ckpt")
    assert min(seen.starts) == 2
    assert changed(seen.starts[2], seen.ends[2]) > {"head.1.weight", "head.1.bias"}


def test_an_early_switch_survives_a_resume(datamodule, tmp_path):
    losses = [1.0, 2.0, 3.0, 4.0, 5.0]
    fit(build(datamodule), datamodule, 4, FixedLosses(losses), TwoPhaseFineTuning(9, patience=1), folder=tmp_path)
    model, callback, seen = build(datamodule), TwoPhaseFineTuning(9, patience=1), Snapshots()
    fit(model, datamodule, 4, FixedLosses(losses), callback, seen, resume=tmp_path / "epoch=1.ckpt")
    assert callback.switch_epoch == 2
    assert seen.lrs[2][0]["backbone"] > 0


def test_a_model_without_a_backbone_is_refused(datamodule):
    with pytest.raises(UserError, match="has no backbone"):
        fit(ScratchClassifier(list(datamodule.class_names)), datamodule, 1, TwoPhaseFineTuning())


@pytest.mark.parametrize(
    "wrong",
    [{"head_epochs": -1}, {"patience": 0}, {"unfreeze_fraction": 0.0}, {"unfreeze_fraction": 1.1}, {"lr": 0.0},
     {"schedule": "step"}, {"warmup": 1.0}, {"monitor": "train/loss"}, {"monitor": "val/depth"}],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))}="):
        TwoPhaseFineTuning(**wrong)
