"""The drawn shapes: always the same, balanced, learnable but not trivial, and in CIFAR-10's file format."""

import pickle

import numpy as np
import pytest
import torchvision
from sklearn.linear_model import LogisticRegression

from cifar10.data.batch_files import META_FILE, TEST_FILE, TRAIN_FILES
from cifar10.data.sources.shapes import SHAPE_NAMES, Shapes, draw_shapes, write_cifar10_files
from cifar10.errors import UserError


def folder_of(root):
    return root / "shapes" / "cifar-10-batches-py"


def test_the_same_seed_draws_the_same_bits():
    (images, labels), (again, labels_again) = draw_shapes(30, seed=3), draw_shapes(30, seed=3)
    assert images.tobytes() == again.tobytes() and labels.tolist() == labels_again.tolist()


def test_the_drawing_is_the_one_published_figures_were_measured_on():
    images, labels = draw_shapes(20, seed=1)
    assert labels.tolist() == [3, 6, 6, 0, 2, 4, 4, 7, 7, 1, 3, 0, 9, 8, 9, 5, 8, 2, 1, 5]
    # A sum, because the last bit of a sine may differ between processors.
    assert images.astype(int).sum(axis=(1, 2, 3))[:4] == pytest.approx([272834, 196372, 483098, 283694], abs=20)


def test_images_are_rgb_bytes_and_classes_are_balanced_in_shuffled_order():
    images, labels = draw_shapes(200, seed=0)
    assert images.shape == (200, 3, 32, 32) and images.dtype == np.uint8 and labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [20] * len(SHAPE_NAMES)
    assert len(set(labels[:10].tolist())) > 2 and (np.diff(labels) != 1).any()


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_a_linear_model_is_far_from_solving_it():
    (images, labels), (test_images, test_labels) = draw_shapes(1000, seed=1), draw_shapes(500, seed=0)
    linear = LogisticRegression(max_iter=10).fit(images.reshape(1000, -1) / 255, labels)
    assert linear.score(test_images.reshape(500, -1) / 255, test_labels) < 0.4


def test_no_test_image_is_a_training_image(tmp_path):
    write_cifar10_files(folder_of(tmp_path), images_per_batch=50)
    (train, _), (test, _) = (Shapes(tmp_path).load(split) for split in ("train", "test"))
    assert (len(train), len(test)) == (250, 50)
    assert len({image.numpy().tobytes() for image in (*train, *test)}) == 300


def test_files_hold_what_was_drawn(tmp_path):
    write_cifar10_files(folder_of(tmp_path), images_per_batch=20)
    images, labels = Shapes(tmp_path).load("train")
    drawn, drawn_labels = draw_shapes(20, seed=2)  # the second batch
    assert np.array_equal(images[20:40], drawn) and np.array_equal(labels[20:40], drawn_labels)


def test_files_have_the_keys_of_the_official_ones(tmp_path):
    write_cifar10_files(tmp_path, images_per_batch=20)
    batch = pickle.loads((tmp_path / "data_batch_5").read_bytes(), encoding="bytes")
    assert batch.keys() == {b"batch_label", b"labels", b"data", b"filenames"}
    assert batch[b"batch_label"] == b"training batch 5 of 5" and type(batch[b"labels"]) is list
    meta = pickle.loads((tmp_path / META_FILE).read_bytes(), encoding="bytes")
    assert meta.keys() == {b"label_names", b"num_cases_per_batch", b"num_vis"}


def test_torchvision_reads_the_files_as_cifar10(tmp_path, monkeypatch):
    write_cifar10_files(tmp_path / "cifar-10-batches-py", images_per_batch=20)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    theirs = torchvision.datasets.CIFAR10(tmp_path, train=False)
    images, labels = draw_shapes(20, seed=0)
    assert np.array_equal(theirs.data, images.transpose(0, 2, 3, 1)) and theirs.targets == labels.tolist()
    assert tuple(theirs.classes) == SHAPE_NAMES


def test_prepare_writes_once_and_leaves_nothing_else(tmp_path):
    source = Shapes(tmp_path)
    source.prepare()
    written = {file.name: file.stat().st_mtime_ns for file in source.folder.iterdir()}
    source.prepare()
    assert {file.name: file.stat().st_mtime_ns for file in source.folder.iterdir()} == written
    assert written.keys() == {*TRAIN_FILES, TEST_FILE, META_FILE}
    assert [entry.name for entry in source.folder.parent.iterdir()] == ["cifar-10-batches-py"]
    assert len(source.load("train")[0]) == 10_000 and len(source.load("test")[0]) == 2_000
    assert source.synthetic and "not CIFAR-10" in source.name


def test_prepare_adds_only_what_is_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "cifar10.data.sources.shapes.write_cifar10_files", lambda folder: write_cifar10_files(folder, 10)
    )
    source = Shapes(tmp_path)
    source.prepare()
    kept, gone = source.folder / "data_batch_1", source.folder / "data_batch_2"
    before, drawn = kept.stat().st_mtime_ns, gone.read_bytes()
    gone.unlink()
    source.prepare()
    assert gone.read_bytes() == drawn and kept.stat().st_mtime_ns == before


def test_a_root_that_cannot_be_written_is_reported_in_one_line_and_left_as_it_was(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*data\.root=FOLDER") as caught:
        Shapes(tmp_path / "file").prepare()
    assert "\n" not in str(caught.value) and [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_no_half_written_set(tmp_path, monkeypatch):
    def fill_the_disk(folder):
        (folder / "data_batch_1").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cifar10.data.sources.shapes.write_cifar10_files", fill_the_disk)
    with pytest.raises(UserError, match="No space left"):
        Shapes(tmp_path / "new" / "root").prepare()
    assert list(tmp_path.iterdir()) == []
