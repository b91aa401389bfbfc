"""Class weights are scikit-learn's, weigh the training loss alone, and come from the training images."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import DataLoader

from cifar10.data.augmentation import Augmentation
from cifar10.data.batches import Batches
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.errors import UserError
from cifar10.models.class_weights import balanced_weights
from cifar10.models.efficientnet import EfficientNet
from cifar10.models.scratch import ScratchClassifier

NAMES = ["cat", "dog", "frog", "ship"]
WEIGHTS = [0.5, 2.0, 0.0, 1.25]
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
         "enable_model_summary": False, "num_sanity_val_steps": 0}  # fmt: skip


def scratch(**options):
    small = {"_target_": "cifar10.models.networks.cnn.CNN", "widths": [4, 4], "hidden": 8, "dropout": 0.0}
    return ScratchClassifier(options.pop("names", NAMES), small, **options)


def efficientnet(**options):
    return EfficientNet(NAMES, "test_efficientnet.r160_in1k", False, image_size=64, dropout=0.0, **options)


both = pytest.mark.parametrize("build", [scratch, efficientnet])


def batch_for(model, count=8):
    size = model.preprocessing.image_size
    return torch.rand(count, 3, size, size), torch.arange(count) % len(NAMES)


@settings(max_examples=50, derandomize=True)
@given(st.lists(st.integers(0, 500), min_size=2, max_size=8).filter(any))
def test_balanced_weights_are_scikit_learns_and_those_of_absent_classes_zero(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    there = np.unique(labels)
    weights = balanced_weights(torch.tensor(counts)).numpy()
    np.testing.assert_allclose(weights[there], compute_class_weight("balanced", classes=there, y=labels), rtol=1e-6)
    assert not np.delete(weights, there).any() and weights[labels].mean() == pytest.approx(1, rel=1e-5)


@both
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_images_of_weighted_cross_entropy_of_labels_or_probabilities(build, label_smoothing):
    model = build(label_smoothing=label_smoothing, class_weights=WEIGHTS).eval()
    images, labels = batch_for(model)
    one_hot = F.one_hot(labels, len(NAMES)).float()
    with torch.no_grad():
        log_probabilities = model(images).log_softmax(1)
        for targets, wanted in ((labels, one_hot), (0.75 * one_hot + 0.25 * one_hot.flip(0),) * 2):
            smoothed = wanted * (1 - label_smoothing) + label_smoothing / len(NAMES)
            expected = -(torch.tensor(WEIGHTS) * smoothed * log_probabilities).sum(1).mean()
            torch.testing.assert_close(model.training_step((images, targets), 0), expected)


def test_equal_weights_change_nothing():
    plain, weighted = scratch().eval(), scratch(class_weights=[1, 1, 1, 1]).eval()
    weighted.load_state_dict(plain.state_dict())
    batch = batch_for(plain)
    torch.testing.assert_close(weighted.training_step(batch, 0), plain.training_step(batch, 0))


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_losses_of_several_processes_add_up_to_that_of_one(world_size):
    model = scratch(class_weights=WEIGHTS).eval()
    images, labels = batch_for(model, 17)
    whole = model.training_step((images, labels), 0)
    losses = []
    for rank in range(world_size):
        shards = Batches(images, labels, torch.arange(17), 17, rank, world_size)
        shards.shuffle(0, Augmentation(), lambda: 0)
        [(own, own_labels, _)] = shards
        model.loss_weight = shards.weight(0)
        losses.append(model.training_step((own, own_labels), 0))
    torch.testing.assert_close(torch.stack(losses).mean(), whole)


@pytest.fixture
def unbalanced(shapes_root):
    """A data module whose classes 0 and 9 have 4 and no training images, the others 16."""
    data = CIFAR10DataModule(root=str(shapes_root), source="shapes", val_size=40, batch_size=40)
    data.setup("fit")
    own = data.loaded["train"][1][data.indices["train"]]
    data.indices["train"] = data.indices["train"][(own != 9) & ((own != 0) | ((own == 0).cumsum(0) <= 4))]
    return data


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true", "bf16-mixed"])
def test_balanced_weights_come_from_the_training_images_in_every_precision(unbalanced, precision):
    model = scratch(names=list(unbalanced.class_names), class_weights="balanced")
    trainer = pl.Trainer(max_epochs=1, precision=precision, **QUIET)
    trainer.fit(model, unbalanced)
    expected = [132 / 9 / count for count in (4, *[16] * 8)] + [0]
    assert model.loss_weights.tolist() == pytest.approx(expected, rel=1e-2 if precision == "bf16-true" else 1e-6)
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_validation_has_no_weights(unbalanced):
    plain = scratch(names=list(unbalanced.class_names))
    weighted = scratch(names=list(unbalanced.class_names), class_weights=[9.0] * 5 + [0.1] * 5)
    weighted.load_state_dict(plain.state_dict())
    found = [pl.Trainer(**QUIET).validate(model, unbalanced, verbose=False) for model in (plain, weighted)]
    assert found[0] == found[1]


def test_an_average_of_weights_goes_with_balanced_classes(unbalanced):
    model = scratch(names=list(unbalanced.class_names), class_weights="balanced")
    average = pl.callbacks.EMAWeightAveraging(decay=0.5)
    pl.Trainer(max_epochs=2, callbacks=[average], **QUIET).fit(model, unbalanced)
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_loader_that_counts_no_classes_is_refused_in_one_line():
    model = scratch(class_weights="balanced")
    with pytest.raises(UserError, match=r"^model.class_weights=balanced: needs a data module"):
        pl.Trainer(max_epochs=1, **QUIET).fit(model, DataLoader([batch_for(model)], batch_size=None))


@both
@pytest.mark.parametrize("value", ["rare", [1.0], [1, 1, 1, -1], [1, 1, 1, math.nan], [1, 1, 1, math.inf], []])
def test_weights_that_make_no_sense_are_refused_in_one_line(build, value):
    with pytest.raises(ValueError, match=r"^class_weights=.*for each of the 4 classes$"):
        build(class_weights=value)


@both
def test_a_checkpoint_holds_the_setting_and_no_weights(build):
    model = build(class_weights="balanced")
    assert model.hparams.class_weights == "balanced" and model.state_dict().keys() == build().state_dict().keys()


def test_a_run_can_be_trained_with_weights_and_is_told_not_to_balance_twice(command, tiny):
    numbers = "model.class_weights=[1,2,1,1,1,1,1,1,1,0.5]"
    assert command("train.py", *tiny, numbers, "hydra.run.dir=run") == 0, command.err
    assert command("train.py", "resume=run", "trainer.max_epochs=2") == 0, command.err
    assert command("train.py", *tiny, "model.class_weights=balanced") == 0, command.err
    assert command("train.py", *tiny, "model.class_weights=balanced", "data.sampler=balanced") == 1
    assert command.err.startswith("error: model.class_weights=balanced: data.sampler=balanced does the same")
    assert command("train.py", *tiny, "model.class_weights=[1,2]") == 1
    assert command.err.startswith("error: model.class_weights=[1, 2]: must be balanced, or a number from 0 up for each")


def test_setup_counts_again_for_other_data():
    model = scratch(class_weights="balanced")
    for counts in ([1, 1, 1, 1], [6, 2, 0, 0]):
        data = SimpleNamespace(class_counts=lambda stage, counts=counts: torch.tensor(counts))
        model.trainer = SimpleNamespace(
            world_size=1, strategy=SimpleNamespace(root_device=torch.device("cpu")), datamodule=data
        )
        model.setup("fit")
    assert model.loss_weights.tolist() == pytest.approx([8 / 12, 2.0, 0.0, 0.0])
