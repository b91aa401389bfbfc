"""TwoPhaseFineTuning: what is frozen does not move, what is unfrozen does, and a resumed run knows where it is."""

import copy
import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.transforms import Preprocessing
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

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        rates = {group["role"]: group["lr"] for group in trainer.optimizers[0].param_groups}
        self.lrs.setdefault(trainer.current_epoch, []).append(rates)

    def on_train_epoch_end(self, trainer, pl_module):
        self.ends[trainer.current_epoch] = copy.deepcopy(pl_module.state_dict())


class FixedLosses(Callback):
    """Replaces val/loss, so that a test decides which epoch is the best."""

    def __init__(self, losses):
        self.losses = losses

    def on_validation_end(self, trainer, pl_module):
        trainer.callback_metrics["val/loss"].fill_(self.losses[trainer.current_epoch])


def build(datamodule, seed=0, **options):
    pl.seed_everything(seed)
    model = EfficientNet(
        list(datamodule.class_names), BACKBONE, pretrained=False, image_size=32, dropout=0.0, drop_path=0.2, **options
    )
    datamodule.preprocessing = Preprocessing(**model.preprocessing)
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


# features of the frozen part, computed once


def two_runs(datamodule, epochs=3, **options):
    """The states that a run with and a run without the cache leave, and the model of the first."""
    states = []
    for views in (1, 0):
        model = build(datamodule, lr=5e-3, optimizer="sgd")  # Adam would blow a rounding up to a whole step
        callback = TwoPhaseFineTuning(cache_views=views, patience=None, lr=2e-3, **options)
        trainer = fit(model, datamodule, epochs, callback)
        states.append((model.state_dict(), {name: float(v) for name, v in trainer.callback_metrics.items()}))
    return states


@pytest.fixture
def still(shapes_root):
    """Images that look the same every epoch, so that a run with cached features can be compared with one without."""
    return CIFAR10DataModule(root=str(shapes_root), source="shapes", batch_size=32)


@pytest.mark.parametrize("head_epochs", [0, 1, 3])
@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_a_run_from_cached_features_is_the_run_from_images(still, head_epochs, fraction):
    (cached, one), (plain, other) = two_runs(still, head_epochs=head_epochs, unfreeze_fraction=fraction)
    assert one == pytest.approx(other, rel=1e-3, abs=1e-3)
    for name, value in plain.items():
        torch.testing.assert_close(cached[name], value, rtol=1e-3, atol=1e-3)


def test_no_frozen_layer_is_computed_twice(still):
    model, seen = build(still), {}
    for name, module in model.backbone.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, x, y, name=name: seen.__setitem__(name, seen.get(name, 0) + len(y)))
    fit(model, still, 4, TwoPhaseFineTuning(2, patience=None, unfreeze_fraction=0.3, cache_views=1))
    images = len(still.indices["train"]) + len(still.indices["val"])
    check = min(8, len(still.indices["val"]))
    assert seen["conv_stem"] == images + 2 * check, "once for all epochs, and the trial of the cut"
    assert max(seen.values()) == images + 2 * check + 2 * images, "the last blocks: features of phase 1, two epochs"


def test_validation_after_the_fit_uses_the_features_and_forgets_them(still, tmp_path):
    model, callback = build(still), TwoPhaseFineTuning(1, patience=None, cache_views=1)
    trainer = fit(model, still, 2, callback, folder=tmp_path)
    assert set(still.features) == {"train", "val"}
    images = []
    model.backbone.conv_stem.register_forward_hook(lambda *arguments: images.append(1))
    before = float(trainer.callback_metrics["val/loss"])
    trainer.validate(model, still, ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True, verbose=False)
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(before, rel=1e-3)
    assert images == [] and still.features == {}


def test_a_checkpoint_with_another_backbone_is_validated_on_images(still, tmp_path):
    other = tmp_path / "other.ckpt"
    trainer = fit(build(still, seed=9), still, 1, TwoPhaseFineTuning(1), folder=tmp_path)
    trainer.save_checkpoint(other)
    expected = float(trainer.callback_metrics["val/loss"])
    trainer = fit(model := build(still), still, 2, TwoPhaseFineTuning(1, patience=None, cache_views=1), folder=tmp_path)
    trainer.validate(model, still, ckpt_path=other, weights_only=True, verbose=False)
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(expected, rel=1e-4)


def test_another_trainer_never_meets_the_features_of_this_one(still):
    fit(build(still), still, 2, TwoPhaseFineTuning(1, patience=None, cache_views=1))
    fit(ScratchClassifier(list(still.class_names)), still, 1)
    assert still.features == {}


def test_a_run_with_cached_features_resumes_in_the_same_bits(datamodule, tmp_path):
    options = {"head_epochs": 2, "patience": None, "lr": 1e-2, "cache_views": 3}
    whole = build(datamodule)
    fit(whole, datamodule, 4, TwoPhaseFineTuning(**options), folder=tmp_path)
    for epoch in range(3):
        resumed = build(datamodule, seed=epoch + 1)
        fit(resumed, datamodule, 4, TwoPhaseFineTuning(**options), resume=tmp_path / f"epoch={epoch}.ckpt")
        assert changed(whole.state_dict(), resumed.state_dict()) == set(), f"resumed after epoch {epoch}"


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_other_chains_of_blocks_can_be_cut_too(still, backbone):
    model = EfficientNet(list(still.class_names), backbone, pretrained=False, image_size=64)
    callback = TwoPhaseFineTuning(1, patience=None, cache_views=1)
    fit(model, still, 2, callback)
    assert callback.boundary is not None


def test_a_backbone_that_is_no_chain_has_its_phase_1_cached_only(still, caplog):
    model = EfficientNet(list(still.class_names), "test_vit", pretrained=False)
    with caplog.at_level("WARNING"):
        fit(model, still, 2, TwoPhaseFineTuning(1, patience=None, cache_views=1))
    assert caplog.text.count("only phase 1 has its features cached") == 1 and still.features == {}


def test_a_whole_backbone_that_learns_leaves_nothing_to_cache_in_phase_2(still):
    fit(build(still), still, 2, TwoPhaseFineTuning(1, patience=None, unfreeze_fraction=1.0, cache_views=1))
    assert still.features == {}


def test_cached_features_need_a_data_module(still):
    still.setup("fit")
    model = build(still)
    trainer = pl.Trainer(max_epochs=1, callbacks=[TwoPhaseFineTuning(1, cache_views=1)], accelerator="cpu",
                         logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         num_sanity_val_steps=0)  # fmt: skip
    with pytest.raises(UserError, match="cache_views"):
        trainer.fit(model, still.train_dataloader(), still.val_dataloader())


def test_a_model_without_a_backbone_is_refused(datamodule):
    with pytest.raises(UserError, match="ScratchClassifier has no backbone"):
        fit(ScratchClassifier(list(datamodule.class_names)), datamodule, 1, TwoPhaseFineTuning())


@pytest.mark.parametrize(
    "wrong",
    [{"head_epochs": -1}, {"patience": 0}, {"unfreeze_fraction": 0.0}, {"unfreeze_fraction": 1.1}, {"lr": 0.0},
     {"schedule": "step"}, {"warmup": 1.0}, {"cache_views": -1}],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        TwoPhaseFineTuning(**wrong)
