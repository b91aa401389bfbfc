"""FeatureCaching: a run from cached features is the run from images, and computes no frozen layer twice."""

import pytest
import pytorch_lightning as pl
import torch

from cifar10.callbacks.feature_caching import FeatureCaching
from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.errors import UserError
from cifar10.models.efficientnet import EfficientNet
from cifar10.models.scratch import ScratchClassifier
from tests.callbacks.test_two_phase import build, changed, fit


def caching(views, **options):
    """The callbacks of a run in two phases, on cached features."""
    return [TwoPhaseFineTuning(patience=None, **options), FeatureCaching(views)]


def two_runs(datamodule, epochs=3, **options):
    """The states that a run with and a run without the cache leave, and the model of the first."""
    states = []
    for views in (1, 0):
        model = build(datamodule, lr=5e-3, optimizer="sgd")  # Adam would blow a rounding up to a whole step
        trainer = fit(model, datamodule, epochs, *caching(views, lr=2e-3, **options))
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
    fit(model, still, 4, *caching(1, head_epochs=2, unfreeze_fraction=0.3))
    images = len(still.indices["train"]) + len(still.indices["val"])
    check = min(8, len(still.indices["val"]))
    assert seen["conv_stem"] == images + 2 * check, "once for all epochs, and the trial of the split"
    assert max(seen.values()) == images + 2 * check + 2 * images, "the last blocks: features of phase 1, two epochs"


def test_validation_after_the_fit_uses_the_features_and_forgets_them(still, tmp_path):
    model = build(still)
    trainer = fit(model, still, 2, *caching(1, head_epochs=1), folder=tmp_path)
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
    trainer = fit(model := build(still), still, 2, *caching(1, head_epochs=1), folder=tmp_path)
    trainer.validate(model, still, ckpt_path=other, weights_only=True, verbose=False)
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(expected, rel=1e-4)


def test_another_trainer_never_meets_the_features_of_this_one(still):
    fit(build(still), still, 2, *caching(1, head_epochs=1))
    fit(ScratchClassifier(list(still.class_names)), still, 1)
    assert still.features == {}


def test_a_run_with_cached_features_resumes_in_the_same_bits(datamodule, tmp_path):
    options = {"head_epochs": 2, "lr": 1e-2}
    whole = build(datamodule)
    fit(whole, datamodule, 4, *caching(3, **options), folder=tmp_path)
    for epoch in range(3):
        resumed = build(datamodule, seed=epoch + 1)
        fit(resumed, datamodule, 4, *caching(3, **options), resume=tmp_path / f"epoch={epoch}.ckpt")
        assert changed(whole.state_dict(), resumed.state_dict()) == set(), f"resumed after epoch {epoch}"


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_other_sequences_of_blocks_can_be_split_too(still, backbone):
    model = EfficientNet(list(still.class_names), backbone, pretrained=False, image_size=64)
    callbacks = caching(1, head_epochs=1)
    fit(model, still, 2, *callbacks)
    assert callbacks[1].boundary is not None


def test_a_backbone_that_is_no_sequence_of_blocks_has_its_phase_1_cached_only(still, caplog):
    model = EfficientNet(list(still.class_names), "test_vit", pretrained=False)
    with caplog.at_level("WARNING"):
        fit(model, still, 2, *caching(1, head_epochs=1))
    assert caplog.text.count("only the features of phase 1 are cached") == 1 and still.features == {}


def test_a_whole_backbone_that_learns_leaves_nothing_to_cache_in_phase_2(still):
    fit(build(still), still, 2, *caching(1, head_epochs=1, unfreeze_fraction=1.0))
    assert still.features == {}


def test_cached_features_need_a_data_module(still):
    still.setup("fit")
    model = build(still)
    trainer = pl.Trainer(max_epochs=1, callbacks=caching(1, head_epochs=1), accelerator="cpu",
                         logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         num_sanity_val_steps=0)  # fmt: skip
    with pytest.raises(UserError, match=r"views: needs a data module"):
        trainer.fit(model, still.train_dataloader(), still.val_dataloader())


def test_cached_features_need_two_phases(still):
    with pytest.raises(UserError, match=r"views: nothing is frozen"):
        fit(build(still), still, 1, FeatureCaching(1))


def test_a_negative_number_of_views_is_refused():
    with pytest.raises(ValueError, match=r"^views=-1: "):
        FeatureCaching(-1)
