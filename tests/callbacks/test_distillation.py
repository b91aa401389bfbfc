"""Distillation: a run learns from another run's predictions for the images as they are shown."""

import shutil

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from cifar10 import load
from cifar10.callbacks.distillation import Distillation, kept_logits, read_teacher, teach
from cifar10.data.augmentation import FLIP
from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.pictures import Part
from cifar10.data.preprocessing import Preprocessing
from cifar10.models.scratch import ScratchClassifier
from cifar10.run_folder import RunFolder
from tests.callbacks.test_two_phase import build

TARGET = "_target_: cifar10.callbacks.distillation.Distillation"


@pytest.fixture
def teacher(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "teacher")


def learns_from(folder, temperature=2.0):
    return f"+callbacks.distillation={{{TARGET}, teacher: '{folder}', temperature: {temperature}}}"


def test_logits_are_computed_once_for_each_image_and_its_mirror_image(command, tiny, teacher):
    assert command("train.py", *tiny, learns_from(teacher)) == 0
    (file,) = (teacher / "logits").iterdir()
    before, logits = file.stat().st_mtime_ns, np.load(file)
    assert command("train.py", *tiny, learns_from(teacher), "seed=1") == 0
    assert [each.stat().st_mtime_ns for each in (teacher / "logits").iterdir()] == [before]
    assert logits.shape == (160, 2, 10)
    assert np.abs(logits[:, 0] - logits[:, 1]).max() > 0


def test_damaged_logits_are_computed_anew(command, tiny, teacher):
    assert command("train.py", *tiny, learns_from(teacher)) == 0
    (file,) = (teacher / "logits").iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:-100], b"not an array"):
        file.write_bytes(damaged)
        assert command("train.py", *tiny, learns_from(teacher)) == 0, command.err
        assert file.read_bytes() == whole


def test_logits_are_known_by_the_pictures_and_by_how_they_become_squares(teacher):
    pictures, changed = (
        Part(torch.zeros(2, 3, 8, 8), torch.arange(2), torch.zeros(2), ["a", "b"], np.array(digests))
        for digests in (["1", "2"], ["1", "3"])
    )
    ways = [Preprocessing(store_size=size, resize=way) for size, way in ((8, "crop"), (8, "pad"), (9, "crop"))]
    names = {kept_logits(RunFolder(teacher), part, way) for part in (pictures, changed) for way in ways}
    assert len(names) == 6 and kept_logits(RunFolder(teacher), pictures, ways[0]) in names


def test_logits_that_another_process_cannot_find_end_in_a_line(command, tiny, teacher, monkeypatch):
    monkeypatch.setattr("cifar10.callbacks.distillation.write", lambda *_: None)  # to another host's disk
    shutil.rmtree(RunFolder(teacher).logits, ignore_errors=True)
    assert command("train.py", *tiny, learns_from(teacher)) == 1
    assert "is not there; every process needs the teacher's folder" in command.err and "Traceback" not in command.err


def test_a_teacher_that_was_not_named_ends_in_a_line_before_any_data_is_read(command):
    assert command("train.py", "experiment=distil", "data.root=nowhere") == 1
    assert command.err.startswith("error: callbacks.distillation.teacher: must be given")


@pytest.mark.parametrize("flip", [True, False, "alternating"])
def test_an_images_targets_are_the_teachers_for_the_image_as_it_is_shown(shapes_root, flip):
    data = CIFAR10DataModule(root=str(shapes_root), source="shapes", batch_size=32, flip=flip)
    data.prepare_data()
    data.setup("fit")
    data.teacher = torch.rand(len(data.indices["train"]), 2, 10)
    for images, targets, draws in data.train_dataloader():
        for image, target, draw in zip(images, targets, draws, strict=True):
            place = (data.teacher == target).all(-1).nonzero()[0]
            assert torch.equal(image, data.loaded["train"][0][data.indices["train"][place[0]]])
            assert bool(place[1]) == bool(flip and draw[FLIP] < 0.5)


def test_the_loss_is_hintons(datamodule):
    model = build(datamodule)
    images, targets = torch.randn(4, 3, 32, 32), torch.randn(4, 10).softmax(1)
    model.temperature = 3.0
    model.eval()
    expected = -9 * (targets * F.log_softmax(model(images) / 3, 1)).sum(1).mean()
    torch.testing.assert_close(model.training_step((images, targets), 0), expected)


def test_mixed_images_have_mixed_predictions(shapes_root):
    data = CIFAR10DataModule(root=str(shapes_root), source="shapes", batch_size=32, mixup_alpha=1.0)
    data.prepare_data()
    data.setup("fit")
    data.teacher = torch.rand(len(data.indices["train"]), 2, 10).softmax(-1)
    batch = next(iter(data.train_dataloader()))
    _, targets = data.on_after_batch_transfer(batch)
    torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))
    between = torch.minimum(batch[1], batch[1].flip(0)), torch.maximum(batch[1], batch[1].flip(0))
    assert (targets >= between[0] - 1e-6).all() and (targets <= between[1] + 1e-6).all()
    assert not torch.allclose(targets, batch[1])


def test_the_teacher_says_what_the_run_predicts_of_each_image_and_of_its_mirror_image(teacher, datamodule):
    datamodule.prepare_data()
    datamodule.setup("fit")
    part, predictor = datamodule.data.part("train"), load(teacher).predictor
    taught = read_teacher(RunFolder(teacher))
    assert taught.class_names == tuple(datamodule.class_names)
    assert taught.temperature == 1
    found = torch.from_numpy(teach(taught, part, 7)).float()
    images = datamodule.loaded["train"][0][datamodule.indices["train"]]
    with torch.no_grad():
        expected = torch.stack([predictor.logits(images), predictor.logits(images.flip(-1))], 1)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 0.1, "the views differ"


def test_a_run_that_crashes_leaves_nothing_of_the_teacher(teacher, datamodule):
    class Crashes(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            assert datamodule.teacher is not None and pl_module.temperature == 2
            raise ZeroDivisionError

    model = ScratchClassifier(datamodule.class_names)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, callbacks=[Distillation(str(teacher), 2.0), Crashes()],
                         logger=False, enable_checkpointing=False, enable_progress_bar=False)  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, datamodule)
    assert datamodule.teacher is None and model.temperature == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: learns_from(folder.parent / "nowhere"), "not the folder of a trained run"),
        (lambda folder: learns_from(folder, 0.0), "temperature=0.0: must be a positive number"),
    ],
)
def test_a_teacher_that_cannot_teach_ends_in_a_line(command, tiny, teacher, change, message):
    assert command("train.py", *tiny, change(teacher)) != 0
    assert message in command.err and "Traceback" not in command.err
