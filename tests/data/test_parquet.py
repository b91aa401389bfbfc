"""A Hugging Face data set on disk gives its pictures, classes and splits, or one line that says what is wrong."""

import io
import json
import logging
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cifar10.data.preprocessing import fit
from cifar10.data.sources.parquet import ParquetPictures
from cifar10.data.sources.shapes import SHAPE_NAMES, Shapes
from cifar10.errors import UserError

BYTES, STRUCT = pa.binary(), pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write(path, pictures, labels, image="image", label="label", kind=STRUCT, names=None, label_type=None, rows=1000):
    """A file as Hugging Face's `datasets` writes it; names: of the classes, in its metadata."""
    if kind == STRUCT:
        pictures = [{"bytes": one, "path": None} for one in pictures]
    table = pa.table({image: pa.array(pictures, kind), label: pa.array(labels, label_type)})
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return path


def numbered(count, first=0):
    """Pictures that a test can tell apart."""
    return [b"picture %d" % number for number in range(first, first + count)]


def prepared(root):
    source = ParquetPictures(root)
    source.prepare()
    return source, source.pictures()


def everything(pictures):
    return [pictures.read(index) for index in range(len(pictures))]


def png(image):
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def test_cifar_10_in_parquet_gives_the_tensors_and_labels_of_the_official_files_in_their_order(shapes_root, tmp_path):
    official = Shapes(shapes_root)
    for split in ("train", "test"):
        images, labels = official.load(split)
        path = tmp_path / "plain_text" / f"{split}-00000-of-00001.parquet"
        write(path, [png(image) for image in images], labels.tolist(), image="img", names=SHAPE_NAMES, rows=64)
    source, pictures = prepared(tmp_path)
    assert source.class_names == SHAPE_NAMES and not source.synthetic
    for split in ("train", "test"):
        images, labels = official.load(split)
        mine = np.flatnonzero(pictures.splits == split)
        decoded = [np.array(Image.open(io.BytesIO(pictures.read(index)))) for index in mine]
        fitted = fit(torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2), 32)
        assert torch.equal(fitted, images) and pictures.labels[mine].tolist() == labels.tolist()


@pytest.mark.parametrize("folder", [".", "data", "some_config"])
def test_every_split_is_found_wherever_the_files_lie_and_shards_follow_in_order(tmp_path, folder):
    names = ["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test-00000-of-00001"]
    for number, name in enumerate(names):
        write(tmp_path / folder / f"{name}.parquet", numbered(3, 3 * number), [0, 1, 0])
    write(tmp_path / ".cache" / "train-00000-of-00001.parquet", numbered(1), [5])
    _, pictures = prepared(tmp_path)
    found = dict(zip(everything(pictures), zip(pictures.splits, pictures.files, strict=True), strict=True))
    assert [found[one][0] for one in numbered(12)] == ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    below = "" if folder == "." else f"{folder}/"
    assert found[b"picture 4"][1] == f"{below}train-00001-of-00002.parquet/1" and len(set(pictures.files)) == 12


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train/0000", "train/0001", "validation/0000"], ["train", "train", "val"]),
        (["dev_1", "TRAIN-1"], ["val", "train"]),
        (["0", "2", "10"], ["", "", ""]),
        (["contest", "trainers"], ["", ""]),
    ],
)
def test_the_split_is_the_first_word_of_the_file_or_its_folder_or_left_open(tmp_path, names, splits):
    for number, name in enumerate(names):
        write(tmp_path / f"{name}.parquet", numbered(1, number), [number])
    _, pictures = prepared(tmp_path)
    found = dict(zip(pictures.files, pictures.splits.tolist(), strict=True))
    assert [found[f"{name}.parquet/0"] for name in names] == splits
    assert splits[0] != "" or everything(pictures) == numbered(len(names)), "files in natural order"


def test_files_of_other_splits_are_passed_over_and_counted(tmp_path):
    write(tmp_path / "train-00000-of-00001.parquet", numbered(2), [0, 1])
    write(tmp_path / "extra-00000-of-00001.parquet", numbered(2, 2), [0, 1])
    _, pictures = prepared(tmp_path)
    assert everything(pictures) == numbered(2) and pictures.skipped == {"files of other splits": 1}


@pytest.mark.parametrize(
    ("values", "options", "names", "labels"),
    [
        ([1, 0, 1], {"names": ["cat", "dog", "emu"]}, ("cat", "dog", "emu"), [1, 0, 1]),
        ([10, 2, 10], {}, ("2", "10"), [1, 0, 1]),
        (["class 10", "class 2", "class 2"], {}, ("class 2", "class 10"), [1, 0, 0]),
        (["cat2", "cat", "cat10"], {}, ("cat", "cat2", "cat10"), [1, 0, 2]),
        (["b", "a", "b"], {"label_type": pa.dictionary(pa.int8(), pa.string())}, ("a", "b"), [1, 0, 1]),
        ([1, 0, 1], {"label_type": pa.uint8(), "label": "fine_label"}, ("0", "1"), [1, 0, 1]),
    ],
)
def test_classes_are_named_by_the_metadata_or_stand_in_natural_order(tmp_path, values, options, names, labels):
    write(tmp_path / "train.parquet", numbered(3), values, **options)
    source, pictures = prepared(tmp_path)
    assert source.class_names == names and pictures.labels.tolist() == labels and pictures.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("image", "kind"),
    [("img", STRUCT), ("picture", BYTES), ("photo", BYTES), ("x", STRUCT), ("image", pa.large_binary())],
)
def test_the_pictures_are_the_column_of_bytes(tmp_path, image, kind):
    write(tmp_path / "train.parquet", numbered(5), [0, 1, 0, 1, 0], image=image, kind=kind, rows=2)
    _, pictures = prepared(tmp_path)
    assert everything(pictures) == numbered(5) and pictures.read(1) == b"picture 1"


def test_a_named_column_of_pictures_is_preferred_to_others(tmp_path):
    columns = {"mask": numbered(2), "image": numbered(2, 2), "label": [0, 1]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    assert everything(prepared(tmp_path)[1]) == numbered(2, 2)


def test_rows_without_a_label_are_left_out_in_a_line_and_the_others_keep_their_names(tmp_path, caplog):
    write(tmp_path / "train.parquet", numbered(4), [0, None, 1, -1], names=["cat", "dog"])
    write(tmp_path / "test.parquet", numbered(3, 4), [-1, -1, -1], names=["cat", "dog"])
    with caplog.at_level(logging.WARNING):
        _, pictures = prepared(tmp_path)
    assert pictures.files == ("train.parquet/0", "train.parquet/2") and pictures.labels.tolist() == [0, 1]
    assert everything(pictures) == [b"picture 0", b"picture 2"]
    left_out = [
        f"{tmp_path}: {rows} have no label: left out" for rows in ("3 of 3 rows of test", "2 of 4 rows of train")
    ]
    assert caplog.messages == left_out


def test_a_picture_that_is_not_there_is_empty_so_that_it_counts_as_unreadable(tmp_path):
    pictures = [{"bytes": b"x", "path": None}, {"bytes": None, "path": "gone.png"}, None]
    table = pa.table({"image": pa.array(pictures, STRUCT), "label": [0, 1, 1]})
    pq.write_table(table, tmp_path / "train.parquet")
    assert everything(prepared(tmp_path)[1]) == [b"x", b"", b""]


def test_worker_processes_read_the_same_bytes_in_any_order(tmp_path):
    for number in range(2):
        write(tmp_path / f"train-{number}.parquet", numbered(20, 20 * number), [0, 1] * 10, rows=7)
    _, pictures = prepared(tmp_path)
    assert pictures.read(0) == b"picture 0", "a row group is held when the processes start"
    order = np.random.RandomState(0).permutation(40).tolist()
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(pictures.read, order, chunksize=5)) == [b"picture %d" % index for index in order]
    assert pickle.loads(pickle.dumps(pictures)).read(39) == b"picture 39"


def test_the_fingerprint_follows_the_files(tmp_path):
    file = write(tmp_path / "train.parquet", numbered(2), [0, 1])
    before = prepared(tmp_path)[1].fingerprint
    assert prepared(tmp_path)[1].fingerprint == before
    write(file, numbered(2, 7), [0, 1])
    changed = prepared(tmp_path)[1].fingerprint
    file.rename(tmp_path / "train-1.parquet")
    assert len({before, changed, prepared(tmp_path)[1].fingerprint}) == 3


@settings(max_examples=40, derandomize=True)
@given(
    st.lists(st.lists(st.one_of(st.none(), st.integers(-1, 3)), max_size=9), min_size=1, max_size=3), st.integers(1, 4)
)
def test_any_rows_in_any_groups_are_read_as_they_were_written(tmp_path_factory, files, rows):
    root, written = tmp_path_factory.mktemp("parquet"), []
    for number, labels in enumerate(files):
        pictures = numbered(len(labels), 100 * number)
        write(root / f"train-{number}.parquet", pictures, labels, names="abcd", label_type=pa.int64(), rows=rows)
        written += [(one, label) for one, label in zip(pictures, labels, strict=True) if label not in (None, -1)]
    if not written:
        with pytest.raises(UserError, match="no row has a label"):
            prepared(root)
        return
    _, pictures = prepared(root)
    assert list(zip(everything(pictures), pictures.labels.tolist(), strict=True)) == written


# what is wrong


def refused(root):
    with pytest.raises(UserError) as caught:
        prepared(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.promise("bad inputs")
def test_a_root_without_parquet_files_or_with_several_data_sets_is_refused(tmp_path):
    assert refused(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'} has no .parquet files: set data.root=")
    for name in ("small", "large"):
        write(tmp_path / name / "train.parquet", numbered(2), [0, 1])
    assert refused(tmp_path).endswith(
        f"several data sets: set data.root=FOLDER to one of {tmp_path}/large, {tmp_path}/small"
    )
    assert len(prepared(tmp_path / "large")[1]) == 2


@pytest.mark.promise("bad inputs")
def test_a_missing_file_of_a_split_is_noticed(tmp_path):
    write(tmp_path / "train-00001-of-00003.parquet", numbered(2), [0, 1])
    assert refused(tmp_path).startswith(f"{tmp_path} has 1 of the 3 files train-*-of-00003.parquet")


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize("damage", [lambda good: b"", lambda good: good[:-20], lambda good: b"version https://git-lfs"],
                         ids=["empty parquet", "parquet cut short", "parquet left on the server"])  # fmt: skip
def test_a_file_that_is_no_parquet_is_named(tmp_path, damage):
    file = write(tmp_path / "train.parquet", numbered(50), [0, 1] * 25)
    file.write_bytes(damage(file.read_bytes()))
    assert refused(tmp_path).startswith(f"cannot read {file} as Parquet (")


@pytest.mark.promise("bad inputs")
def test_pictures_that_are_damaged_inside_an_intact_file_are_one_line_when_they_are_read(tmp_path):
    rng = np.random.default_rng(0)
    file = write(tmp_path / "train.parquet", [rng.bytes(500) for _ in range(50)], [0, 1] * 25)
    content = bytearray(file.read_bytes())
    content[4:60] = b"\xff" * 56
    file.write_bytes(content)
    _, pictures = prepared(tmp_path)
    with pytest.raises(UserError, match=f"^cannot read {file} as Parquet") as caught:
        pictures.read(0)
    assert "\n" not in str(caught.value)


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ({"url": ["a"], "label": [0]}, "has the columns url (string), label (int64): pictures belong in image or img"),
        ({"left": [b"a"], "right": [b"a"], "label": [0]}, "left (binary), right (binary), label (int64): pictures"),
        ({"image": [b"a"], "caption": ["a"]}, "caption (string): classes belong in label or labels or"),
        ({"image": [b"a"], "label": [[0, 1]]}, "label is list<"),
        ({"image": [b"a"], "label": [0.5]}, "label is double; classes are whole numbers or text"),
        ({"image": [b"a"], "label": [-1]}, "no row has a label"),
        ({"image": [b"a"], "label": pa.array([None], pa.string())}, "no row has a label"),
    ],
    ids=lambda case: case if isinstance(case, str) else None,
)
def test_columns_that_do_not_fit_are_named_with_those_that_are_there(tmp_path, columns, wanted):
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    assert wanted in refused(tmp_path)


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize(
    ("labels", "options"),
    [([0, 1], {"image": "img"}), ([0, 1], {"names": ["a", "b"]}), (["a", "b"], {}), ([0, 1], {"kind": BYTES})],
    ids=["another picture column", "other class names", "text labels", "another picture type"],
)
def test_files_that_do_not_go_together_are_refused(tmp_path, labels, options):
    write(tmp_path / "train-1.parquet", numbered(2), [0, 1])
    write(tmp_path / "train-2.parquet", numbered(2), labels, **options)
    assert "differ in their columns" in refused(tmp_path) or "is text in one file, numbers in" in refused(tmp_path)


@pytest.mark.promise("bad inputs")
def test_a_label_beyond_the_names_is_refused(tmp_path):
    write(tmp_path / "train.parquet", numbered(2), [0, 2], names=["cat", "dog"])
    assert "a label is 2, but only 2 classes have names" in refused(tmp_path)


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": 3}', b"[" * 100_000, b"\xff"])
def test_metadata_of_another_form_names_no_classes(tmp_path, metadata):
    table = pa.table({"image": [b"a", b"b"], "label": [0, 1]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "train.parquet")
    assert prepared(tmp_path)[0].class_names == ("0", "1")


def test_without_pyarrow_one_line_says_what_to_install(command, monkeypatch):
    for module in ("cifar10.data.sources.parquet", "cifar10.data.parquet_files"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert command("train.py", "data=parquet", "data.root=.") == 1
    assert command.err == "error: data=parquet: needs pyarrow; pip install 'cifar10[parquet]'\n"
