"""Training images grow epoch by epoch, and validation never sees it."""

import pytest
import pytorch_lightning as pl
import torch

from cifar10.callbacks.feature_caching import FeatureCaching
from cifar10.callbacks.progressive_resizing import ProgressiveResizing, takes
from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError
from cifar10.models.networks.build import KERAS_CNN
from cifar10.models.scratch import ScratchClassifier

FAST = {"_target_": "cifar10.models.networks.fast_cnn.FastCNN", "widths": [4, 4, 4]}


class Sides(pl.Callback):
    """The side of every batch, by stage."""

    def __init__(self):
        self.train, self.val = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.train.append(batch[0].shape[-1])

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.val.append(batch[0].shape[-1])


def fit(datamodule, tmp_path, epochs, resume=None):
    sides = Sides()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[ProgressiveResizing(20, until=0.75), sides], logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(ScratchClassifier(datamodule.class_names, FAST), datamodule, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
    return sides


def test_training_images_grow_to_the_networks_size_and_validation_has_it_throughout(datamodule, tmp_path):
    sides = fit(datamodule, tmp_path, 4)
    steps = len(sides.train) // 4
    assert sides.train == [side for side in (20, 24, 28, 32) for _ in range(steps)]
    assert set(sides.val) == {32}


def test_a_resumed_run_has_the_sizes_of_its_epochs(datamodule, tmp_path):
    fit(datamodule, tmp_path, 2)
    sides = fit(datamodule, tmp_path, 4, resume=tmp_path / "2.ckpt")
    assert sorted(set(sides.train)) == [28, 32]


@pytest.mark.parametrize(
    ("network", "others", "message"),
    [
        (KERAS_CNN, [], "smallest=20: the network takes 32 pixels only"),
        (FAST, [FeatureCaching(views=1)], "cached features have one size"),
    ],
)
def test_what_cannot_have_smaller_images_is_refused_in_a_line(datamodule, tmp_path, network, others, message):
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, callbacks=[ProgressiveResizing(20), *others], logger=False,
                         enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    with pytest.raises(UserError, match=message):
        trainer.fit(ScratchClassifier(datamodule.class_names, network), datamodule)


def test_smaller_images_are_tried_where_the_weights_are(datamodule):
    model = ScratchClassifier(datamodule.class_names, FAST)
    model._device = torch.device("meta")  # Lightning names the GPU while the weights are still on the CPU
    assert takes(model, 20)


def test_a_run_without_end_has_no_size_for_an_epoch_and_is_refused(datamodule, tmp_path):
    trainer = pl.Trainer(accelerator="cpu", max_epochs=-1, callbacks=[ProgressiveResizing(20)], logger=False,
                         enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    with pytest.raises(UserError, match=r"^trainer.max_epochs: must be given"):
        trainer.fit(ScratchClassifier(datamodule.class_names, FAST), datamodule)


def test_another_run_on_the_same_data_has_its_own_sizes(datamodule, tmp_path):
    datamodule.training_preprocessing = Preprocessing(20)  # as a run that was interrupted leaves it
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, callbacks=[sides := Sides()], logger=False,
                         enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(ScratchClassifier(datamodule.class_names, FAST), datamodule)
    assert set(sides.train) == {32}


def test_sizes_never_shrink_and_end_at_the_networks_own():
    for smallest, until, step in ((20, 0.5, 4), (17, 1.0, 1), (17, 0.9, 8), (1, 0.5, 4), (30, 0.1, 8)):
        sizes = [ProgressiveResizing(smallest, until, step).size(epoch, 40, 32) for epoch in range(40)]
        assert sizes == sorted(sizes) and (sizes[0], sizes[-1]) == (smallest, 32)


@pytest.mark.parametrize("setting", ["smallest=0", "until=0", "until=1.5", "step=0"])
def test_an_impossible_setting_is_refused_by_name(setting):
    name, _, value = setting.partition("=")
    with pytest.raises(ValueError, match=f"^{name}="):
        ProgressiveResizing(**{"smallest": 24, name: float(value)})
