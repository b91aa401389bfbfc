"""A folder of pictures through the data module and the commands: the same images, the same split, the same squares."""

import csv
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifar10.data.datamodule import CIFAR10DataModule
from cifar10.data.pictures.decode import read_picture
from cifar10.data.preprocessing import Preprocessing
from cifar10.errors import UserError

CLASSES = ("ant", "bee")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CIFAR10_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def draw_pictures(folder, counts=(20, 20), size=(12, 9), start=0):
    """Random pictures in class folders; their numbers go through all classes."""
    rng = np.random.default_rng(start)
    for number, label in enumerate(np.repeat(range(len(counts)), counts).tolist(), start=start):
        place = folder / CLASSES[label] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).save(place)
    return folder


def opened(root, stage="fit", run=None, write=True, model=None, **options):
    datamodule = CIFAR10DataModule(str(root), "folder", **options)
    if run is not None:
        datamodule.keep_split(run, write)
    datamodule.use_preprocessing(model or Preprocessing(8))
    datamodule.prepare_data()
    datamodule.setup(stage)
    return datamodule


def test_pictures_and_arrays_of_the_same_images_are_the_same_data(shapes_root, tmp_path):
    options = {"batch_size": 32, "flip": True, "crop_padding": 4}
    arrays = CIFAR10DataModule(str(shapes_root), "shapes", **options)
    for split in ("train", "test"):
        images, labels = arrays.source.load(split)
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            place = tmp_path / "png" / split / str(label) / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(place)
    files = CIFAR10DataModule(str(tmp_path / "png"), "folder", store_size=32, **options)
    for stage in ("fit", "test"):
        arrays.setup(stage), files.setup(stage)
    for stage in ("train", "val", "test"):
        assert torch.equal(arrays.data.part(stage)[:], files.data.part(stage)[:])
        assert torch.equal(arrays.data.part(stage).labels, files.data.part(stage).labels)
    for one, other in zip(arrays.train_dataloader(), files.train_dataloader(), strict=True):
        assert all(torch.equal(mine, its) for mine, its in zip(one, other, strict=True))


def test_the_split_is_kept_for_every_later_start_whatever_has_come(tmp_path):
    root, run = draw_pictures(tmp_path / "p"), tmp_path / "run"
    run.mkdir()
    before = opened(root, run=run)
    draw_pictures(root, (30, 30), start=100)
    for stage, write in (("fit", True), ("test", False)):
        after = opened(root, stage, run=run, write=write)
        for part in ("train", "val", "test"):
            assert before.data.part(part).files == after.data.part(part).files
            assert torch.equal(before.data.part(part)[:], after.data.part(part)[:])
    assert sum(len(part) for part in before.indices.values()) == 40


def test_what_is_left_out_is_listed_in_the_run_s_folder(tmp_path):
    root, run = draw_pictures(tmp_path / "p"), tmp_path / "run"
    run.mkdir()
    (root / "ant" / "3.png").write_bytes(b"")
    shutil.copytree(root / "bee", root / "ant", dirs_exist_ok=True)  # each of them twice, by two labels
    found = opened(root, run=run, duplicates="drop")
    assert list(csv.reader((run / "unreadable.csv").open())) == [["file", "reason"], ["ant/3.png", "an empty file"]]
    content = [row["content"] for row in csv.DictReader((run / "duplicates.csv").open())]
    assert content and all(content.count(number) > 1 for number in content)
    digests = [set(found.data.part(stage).digests.tolist()) for stage in ("train", "val", "test")]
    assert not any(one & other for one, other in itertools.combinations(digests, 2))


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_training_evaluation_and_prediction_see_the_same_square(tmp_path, resize):
    root = draw_pictures(tmp_path / "p", (5, 5), size=(1000, 200))
    model = Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    datamodule = opened(root, model=model, resize=resize, background=[9, 90, 200], store_size=48)
    datamodule.setup("test")
    seen = {}
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.test_dataloader()):
        for batch in loader:
            for stored, square in zip(batch[0], datamodule.on_after_batch_transfer(batch)[0], strict=True):
                seen[stored.numpy().tobytes()] = square
    assert len(seen) == 10
    travelled = Preprocessing(**model.settings)  # through a checkpoint
    for file in root.rglob("*.png"):
        raw = read_picture(file)
        assert torch.equal(seen[travelled.fit(raw).numpy().tobytes()], travelled(raw[None])[0])


def test_pictures_may_all_be_trained_on_but_a_validation_folder_is_used(tmp_path):
    root, run = draw_pictures(tmp_path / "p"), tmp_path / "run"
    run.mkdir()
    for _ in range(2):  # drawn, then followed
        found = opened(root, run=run, val_size=0)
        assert [len(found.indices[part]) for part in ("train", "val", "test")] == [32, 0, 8]
    for split, start in (("train", 0), ("val", 100)):
        draw_pictures(tmp_path / "own" / split, (4, 4), start=start)
    assert len(opened(tmp_path / "own", val_size=0).indices["val"]) == 8


def test_a_folder_of_test_pictures_is_enough_to_test_on_and_keeps_the_model_s_numbers(tmp_path):
    draw_pictures(tmp_path / "p" / "test", (0, 4))
    datamodule = CIFAR10DataModule(str(tmp_path / "p"), "folder")
    datamodule.use_classes(["aardvark", "ant", "bee"])
    datamodule.setup("test")
    assert datamodule.data.part("test").labels.tolist() == [2] * 4
    with pytest.raises(UserError, match="has no pictures for the split train"):
        datamodule.setup("fit")
    with pytest.raises(UserError, match=r"^was trained on the classes ant; .* has bee$"):
        datamodule.use_classes(["ant"])


def test_the_commands_keep_to_the_run_s_own_pictures_and_classes(command, tmp_path):
    root = draw_pictures(tmp_path / "p")
    settings = ["data=folder", f"data.root={root}", "data.batch_size=16", "trainer.max_epochs=1", "hydra.run.dir=run"]
    assert command("train.py", *settings) == 0, command.err
    assert "2 classes, 40 pictures (train 26, val 6, test 8)" in command.out
    draw_pictures(root, (9, 9), start=100)
    assert command("evaluate.py", "run=run") == 0, command.err
    assert "18 pictures that the run did not have are left out" in command.out and "on 8 test images" in command.out
    named = {row["file"] for row in csv.DictReader((tmp_path / "run" / "split.csv").open()) if row["split"] == "test"}
    assert {str(file) for file in np.load(tmp_path / "run/evaluation/predictions.npz")["files"]} == named
    for change in ((root / "bee", root / "cat"), (root / "ant", root / "bee")):  # a class gone, then two renamed
        change[0].rename(change[1])
        for script, key in (("evaluate.py", "run=run"), ("train.py", "resume=run")):
            shutil.rmtree(tmp_path / "run" / "evaluation", ignore_errors=True)
            assert command(script, key) == 1
            assert command.err.count("\n") == 1 and "classes" in command.err and "trained on" in command.err
