"""Any folder of pictures is listed as its owner means it; what cannot be meant is one line. No picture is opened."""

import contextlib
import os
import pickle
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cifar10.data.pictures.classes import describe
from cifar10.data.pictures.tables import Row, read_table, write_table
from cifar10.data.sources.folder import ImageFolder
from cifar10.errors import UserError


def touch(root, *names):
    """Files without content, which are pictures by their names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(root, **options):
    """(file, class, split) of each picture."""
    source = ImageFolder(root, **options)
    source.prepare()
    pictures = source.pictures()
    assert len(pictures) == len(pictures.files) == len(pictures.labels) == len(pictures.splits)
    names = [source.class_names[label] for label in pictures.labels]
    return list(zip(pictures.files, names, pictures.splits.tolist(), strict=True))


def classes_and_splits(root, **options):
    """Pictures by class and split."""
    return Counter(place[1:] for place in listed(root, **options))


def skipped(root, **options):
    return ImageFolder(root, **options).pictures().skipped


def refusal(root, **options):
    with pytest.raises(UserError) as caught:
        ImageFolder(root, **options).prepare()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- folders

LAYOUTS = {  # files -> the pictures of (class, split)
    "no split": (["cat/1.jpg", "dog/1.jpg", "dog/2.jpg"], {("cat", ""): 1, ("dog", ""): 2}),
    "train and test": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "test/dog/1.jpg"],
        {("cat", "train"): 1, ("dog", "train"): 1, ("dog", "test"): 1},
    ),
    "test alone": (["test/cat/1.jpg", "test/dog/1.jpg"], {("cat", "test"): 1, ("dog", "test"): 1}),
    "folders in class folders": (
        ["cat/a/b/1.jpg", "cat/2.jpg", "dog/c/1.jpg"],
        {("cat", ""): 2, ("dog", ""): 1},
    ),
    "one folder too deep": (["photos/cat/1.jpg", "photos/dog/1.jpg"], {("cat", ""): 1, ("dog", ""): 1}),
    "splits one folder too deep": (
        ["photos/train/cat/1.jpg", "photos/test/cat/1.jpg"],
        {("cat", "train"): 1, ("cat", "test"): 1},
    ),
    "two folders too deep": (["a/b/cat/1.jpg", "a/b/dog/1.jpg"], {("cat", ""): 1, ("dog", ""): 1}),
    "archives unpacked in folders of their names": (
        ["training_set/training_set/cat/1.jpg", "training_set/training_set/dog/1.jpg", "test_set/test_set/cat/1.jpg"],
        {("cat", "train"): 1, ("dog", "train"): 1, ("cat", "test"): 1},
    ),
    "a class of trains": (["car/1.jpg", "train/1.jpg"], {("car", ""): 1, ("train", ""): 1}),
    "one class": (["cat/1.jpg", "cat/2.jpg"], {("cat", ""): 2}),  # for whoever trains to refuse
    "test pictures without classes": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg", "test/2.jpg"],
        {("cat", "train"): 1, ("dog", "train"): 1},
    ),
    "a test folder without its pictures yet": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg", "test/dog/notes.txt"],
        {("cat", "train"): 1, ("dog", "train"): 1, ("cat", "test"): 1},
    ),
    "a preview beside the classes": (["cat/1.jpg", "dog/1.jpg", "all.png"], {("cat", ""): 1, ("dog", ""): 1}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_are_taken_as_they_are_meant(tmp_path, layout):
    files, wanted = LAYOUTS[layout]
    touch(tmp_path, *files)
    assert classes_and_splits(tmp_path) == wanted
    assert sum(skipped(tmp_path).values()) == len(files) - sum(wanted.values())
    touch(tmp_path, "__MACOSX/cat/1.jpg", ".git/x.png", "README.txt")
    assert classes_and_splits(tmp_path) == wanted


@pytest.mark.parametrize(
    ("name", "split"),
    [(name, split) for split, names in {
        "train": ["train", "Train", "TRAIN", "training", "train_set", "Training Set"],
        "val": ["val", "valid", "validation", "dev", "Valid", "val-images"],
        "test": ["test", "TEST", "testing", "test_set", "test data"],
    }.items() for name in names],
)  # fmt: skip
def test_a_split_is_known_by_its_usual_names(tmp_path, name, split):
    touch(tmp_path, f"{name}/cat/1.jpg", f"{name}/dog/1.jpg")
    assert classes_and_splits(tmp_path) == {("cat", split): 1, ("dog", split): 1}


def test_leaf_makes_a_class_of_every_innermost_folder(tmp_path):
    touch(
        tmp_path, "train/animal/cat/1.jpg", "train/animal/dog/1.jpg", "train/vehicle/car/1.jpg", "test/animal/cat/2.jpg"
    )
    assert set(classes_and_splits(tmp_path)) == {("animal", "train"), ("vehicle", "train"), ("animal", "test")}
    assert classes_and_splits(tmp_path, classes="leaf") == {
        ("animal/cat", "train"): 1, ("animal/dog", "train"): 1, ("vehicle/car", "train"): 1, ("animal/cat", "test"): 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"^classes=deepest: must be top or leaf$"):
        ImageFolder(tmp_path, classes="deepest")


REFUSED = {  # files -> words of the line
    "nothing": ([], "has no pictures, but nothing: put pictures in"),
    "a zip file": (["photos.zip"], "has no pictures, but 1 .zip files: unpack the archive"),
    "a tar file": (["a/photos.tar.gz"], "1 .gz files: unpack the archive"),
    "parquet files": (["data/train-0.parquet", "data/test-0.parquet"], "2 .parquet files: use data=parquet"),
    "texts": (["a.txt", "cat/b.txt", "cat/c.npy"], "2 .txt files, 1 .npy files: put pictures in"),
    "loose pictures": (["1.jpg", "2.jpg"], "has 2 pictures, but none in a folder of its class"),
    "loose pictures and their labels": (["1.jpg", "labels.csv"], "CSV file of pictures and labels with data.labels="),
    "loose pictures in splits": (["train/1.jpg", "test/2.jpg"], "has 2 pictures, but none in a folder of its class"),
    "splits beside classes": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "bird/1.jpg"],
        "has folders of splits (train) beside others with pictures ('bird')",
    ),
    "a class without pictures": (["cat/1.jpg", "dog/1.jpg", "bird/x.txt"], "bird has no pictures: put pictures of"),
    "a class to train on without pictures": (
        ["train/cat/1.jpg", "train/dog/x.npy", "test/cat/1.jpg", "test/dog/1.jpg"],
        "train/dog has no pictures",
    ),
    "a class that only test has": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "test/bird/1.jpg", "test/ox/1.jpg"],
        "test has a class that train lacks, 'bird' and 1 more: add it there or remove it",
    ),
    "a class in capitals in test": (
        ["train/Cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg"],
        "test has a class that train lacks, 'cat' (train has 'Cat')",
    ),
    "a class with a character that is not seen": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "val/c\u0430t/1.jpg"],
        r"val has a class that train lacks, 'c\u0430t' (train has 'cat')",
    ),
    "a class name of two lines": (["c\nat/1.jpg", "dog/1.jpg"], r"whose name cannot be printed, 'c\nat'"),
    "a class name that is no text": (["c\udcff/1.jpg", "dog/1.jpg"], r"whose name cannot be printed, 'c\udcff'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.promise("bad inputs")
def test_what_is_no_data_set_is_refused_with_what_was_found(tmp_path, case):
    files, words = REFUSED[case]
    touch(tmp_path, *files)
    assert words in refusal(tmp_path)


@pytest.mark.promise("bad inputs")
def test_a_root_that_is_no_folder_is_refused_with_what_it_is(tmp_path):
    touch(tmp_path, "photos.zip", "photos.parquet", "photo.jpg")
    assert f"data.root={tmp_path / 'nowhere'}: cannot be read" in refusal(tmp_path / "nowhere")
    assert "is a file, not a folder; unpack the archive" in refusal(tmp_path / "photos.zip")
    assert "is a file, not a folder; use data=parquet" in refusal(tmp_path / "photos.parquet")
    assert "is a file, not a folder; name the folder" in refusal(tmp_path / "photo.jpg")
    with pytest.raises(ValueError, match=r"^root=: must be a folder"):
        ImageFolder("")


@pytest.mark.promise("bad inputs")
def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "cat/deep/1.jpg", "dog/1.jpg")
    scan, locked = os.scandir, str(tmp_path / "cat" / "deep")

    def refuse(path):
        if path == locked:
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert refusal(tmp_path) == f"cannot read the folder {locked} (Permission denied)"


# --- classes


def test_classes_are_in_natural_order_whatever_a_split_lacks(tmp_path):
    touch(tmp_path, *(f"train/{number}/a.jpg" for number in range(1, 13)), "test/12/a.jpg", "test/2/a.jpg")
    source = ImageFolder(tmp_path)
    assert source.class_names == tuple(map(str, range(1, 13)))
    test = source.pictures().splits == "test"
    assert source.pictures().labels[test].tolist() == [1, 11]
    touch(tmp_path, "train/b/1.jpg", "train/B/1.jpg", "train/a/1.jpg", "train/A/1.jpg", "train/C/1.jpg")
    assert ImageFolder(tmp_path).class_names[12:] == ("A", "a", "B", "b", "C")


def test_a_class_written_in_two_ways_that_look_the_same_is_one_and_said_to_be(tmp_path, caplog):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    touch(tmp_path, f"train/{composed}/1.jpg", "train/bar/1.jpg", f"test/{decomposed}/1.jpg", "test/bar /1.jpg")
    with caplog.at_level("WARNING"):
        assert classes_and_splits(tmp_path) == {
            (composed, "train"): 1, ("bar", "train"): 1, (composed, "test"): 1, ("bar", "test"): 1,
        }  # fmt: skip
    assert r"'cafe\u0301' and 'caf\xe9' are taken as one class" in caplog.text
    assert "'bar' and 'bar ' are taken as one class" in caplog.text


def test_the_log_counts_each_class_in_each_split_and_what_was_passed_over(tmp_path):
    touch(tmp_path, "train/cat/1.jpg", "train/cat/2.jpg", "train/dog/1.jpg", "test/dog/1.jpg")
    touch(tmp_path, "train/cat/.DS_Store", "train/cat/notes.txt")
    source = ImageFolder(tmp_path)
    assert describe(source.pictures(), source.class_names) == [
        "2 classes, 4 pictures (train 3, test 1)",
        "  cat: 2 pictures (train 2)",
        "  dog: 2 pictures (train 1, test 1)",
        "passed over: 1 hidden files and folders, 1 .txt files",
    ]


def test_the_log_stays_short_for_hundreds_of_classes(tmp_path):
    touch(tmp_path, *(f"{number}/a.jpg" for number in range(300)), "299/b.jpg")
    source = ImageFolder(tmp_path)
    lines = describe(source.pictures(), source.class_names)
    assert len(lines) == 22 and lines[20] == "  19: 1 pictures"
    assert lines[21] == "  and 280 more, of 1 to 2 pictures"


def test_the_log_says_so_where_folders_inside_classes_may_be_the_classes(tmp_path):
    touch(tmp_path, "train/animal/cat/1.jpg", "train/animal/dog/1.jpg", "train/vehicle/car/1.jpg")
    for options, said in ({}, True), ({"classes": "leaf"}, False):
        source = ImageFolder(tmp_path, **options)
        assert ("data.classes=leaf" in describe(source.pictures(), source.class_names)[-1]) is said
    touch(tmp_path, "train/animal/1.jpg")
    source = ImageFolder(tmp_path)
    assert "leaf" not in " ".join(describe(source.pictures(), source.class_names))


# --- files


def test_what_is_no_picture_is_passed_over_and_counted(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    hidden = ["cat/._1.jpg", "cat/.DS_Store", "cat/.ipynb_checkpoints/1.jpg", ".git/a.png", "dog/@eaDir/1.jpg",
              "__MACOSX/cat/1.jpg"]  # fmt: skip
    touch(tmp_path, *hidden, "cat/Thumbs.db", "cat/desktop.ini", "dog/a.txt", "dog/b.TXT", "dog/x.npy", "dog/y.pdf",
          "dog/z.mp4", "dog/noise", "dog/a.svg")  # fmt: skip
    assert [file for file, *_ in listed(tmp_path)] == ["cat/1.jpg", "dog/1.jpg"]
    assert skipped(tmp_path) == {
        "hidden files and folders": 6, ".txt files": 2, ".db files": 1, ".ini files": 1, ".npy files": 1,
        ".pdf files": 1, ".mp4 files": 1, ".svg files": 1, "other files": 1,
    }  # fmt: skip


def test_pictures_are_known_by_the_suffixes_of_all_formats_that_are_read(tmp_path):
    suffixes = ["jpg", "JPG", "jpeg", "jfif", "jpe", "png", "gif", "bmp", "webp", "tif", "tiff", "avif", "heic", "HEIF",
                "hif", "jp2", "ppm", "pgm", "ico", "mpo", "qoi", "dds"]  # fmt: skip
    touch(tmp_path, *(f"cat/1.{suffix}" for suffix in suffixes), "dog/1.jpg")
    assert len(listed(tmp_path)) == len(suffixes) + 1 and skipped(tmp_path) == {}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "JPEG2000"])
def test_pictures_without_a_suffix_are_known_by_their_first_bytes(tmp_path, kind):
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    for name in ("0a1b2c", "photo.2021", "photo.jpg~", "a.txt"):
        Image.new("RGB", (8, 8)).save(tmp_path / "cat" / name, kind)
    assert sorted(file for file, *_ in listed(tmp_path)) == [
        "cat/0a1b2c",
        "cat/1.jpg",
        "cat/photo.2021",
        "cat/photo.jpg~",
        "dog/1.jpg",
    ]
    assert skipped(tmp_path) == {".txt files": 1}  # known to be something else: not opened


def test_linked_folders_and_files_are_followed_but_no_folder_into_itself(tmp_path):
    touch(tmp_path / "elsewhere", "1.jpg", "2.jpg", "deep/3.jpg")
    root = tmp_path / "photos"
    touch(root, "dog/1.jpg")
    (root / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to(root)
    (root / "dog" / "2.jpg").symlink_to(tmp_path / "elsewhere" / "2.jpg")
    (root / "dog" / "gone.jpg").symlink_to("nowhere")  # listed, so that it is named among what cannot be read
    os.mkfifo(root / "dog" / "pipe.jpg")
    assert sorted(file for file, *_ in listed(root)) == [
        "cat/1.jpg", "cat/2.jpg", "cat/deep/3.jpg", "dog/1.jpg", "dog/2.jpg", "dog/gone.jpg",
    ]  # fmt: skip
    assert skipped(root) == {"pipes, sockets and devices": 1}


def test_every_picture_is_read_at_its_path_even_where_its_name_is_no_text(tmp_path):
    touch(tmp_path, "cat/10.jpg", "cat/9.jpg", "cat/\udcff.jpg", "cat/猫\n.png", "dog/1.jpg")
    pictures = ImageFolder(tmp_path).pictures()
    assert pictures.files == ("dog/1.jpg", "cat/9.jpg", "cat/10.jpg", "cat/猫\n.png", "cat/\\udcff.jpg")
    assert [name.encode() for name in pictures.files]
    read = pickle.loads(pickle.dumps(pictures.read))
    paths = [read(index) for index in range(5)]
    assert paths[2] == tmp_path / "cat" / "10.jpg" and all(path.is_file() for path in paths)


def test_the_same_pictures_are_given_at_every_call(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    source = ImageFolder(str(tmp_path))
    assert source.class_names == ("cat", "dog")  # where another process has prepared
    assert source.pictures() is source.pictures() and source.name == str(tmp_path) and not source.synthetic


def test_the_fingerprint_changes_with_every_change_of_a_picture_and_with_nothing_else(tmp_path):
    touch(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    cat = tmp_path / "cat"

    def fingerprint():
        return ImageFolder(tmp_path).pictures().fingerprint

    seen = [fingerprint()]
    touch(tmp_path, "cat/notes.txt", "cat/.hidden.jpg")
    assert fingerprint() == seen[0]
    times = os.stat(cat / "1.jpg")
    for change in (
        lambda: (cat / "1.jpg").write_bytes(b"x"),
        lambda: ((cat / "1.jpg").write_bytes(b"y"), os.utime(cat / "1.jpg", ns=(0, times.st_mtime_ns))),
        lambda: (cat / "1.jpg").rename(cat / "3.jpg"),
        lambda: (cat / "3.jpg").unlink(),
        lambda: touch(tmp_path, "dog/2.jpg"),
    ):
        change()
        seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


# --- tables


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    touch(root, "a/1.jpg", "a/2.jpg", "b, c/3.jpg")
    return root


WANTED = [("a/1.jpg", "cat"), ("a/2.jpg", "dog"), ("b, c/3.jpg", "cat")]
TABLES = {
    "as pandas writes it": 'file,label\na/1.jpg,cat\na/2.jpg,dog\n"b, c/3.jpg",cat\n',
    "with an index": ',file,label\n0,a/1.jpg,cat\n1,a/2.jpg,dog\n2,"b, c/3.jpg",cat\n',
    "with a mark of its encoding and carriage returns":
        '\ufefffile,label\r\na/1.jpg,cat\r\na/2.jpg,dog\r\n"b, c/3.jpg",cat\r\n',
    "with semicolons": "file;label\na/1.jpg;cat\na/2.jpg;dog\nb, c/3.jpg;cat\n",
    "with tabs": "file\tlabel\na/1.jpg\tcat\na/2.jpg\tdog\nb, c/3.jpg\tcat\n",
    "with semicolons and quotes": '"file";"label"\n"a/1.jpg";"cat"\n"a/2.jpg";"dog"\n"b, c/3.jpg";"cat"\n',
    "with spaces after commas": 'file, label\na/1.jpg, cat\na/2.jpg, dog\n"b, c/3.jpg", cat\n',
    "with spaces before quotes": 'label, file\ncat, a/1.jpg\ndog, a/2.jpg\ncat, "b, c/3.jpg"\n',
    "with spaces after labels": 'file,label\na/1.jpg,cat \na/2.jpg,dog\n"b, c/3.jpg",cat\n',
    "with other columns":
        'note,Class,extra,Image Path\nx,cat,,a/1.jpg\n"two\nlines",dog,,a/2.jpg\n,cat,,"b, c/3.jpg"\n',
    "with empty rows and cells": 'file,label,\na/1.jpg,cat,\n\n,,\na/2.jpg,dog\n"b, c/3.jpg",cat,,,\n',
    "with rows twice": 'file,label\na/1.jpg,cat\na/1.jpg,cat\n./a/2.jpg,dog\n"b, c/3.jpg",cat\n',
    "with backslashes": 'file,label\na\\1.jpg,cat\na\\2.jpg,dog\n"b, c\\3.jpg",cat\n',
    "with names alone": "id,class\n1.jpg,cat\n2.jpg,dog\n3.jpg,cat\n",
    "with names without suffix": "id,class\n1,cat\n2,dog\n3,cat\n",
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_a_table_is_read_as_people_write_it(photos, case):
    (photos / "labels.csv").write_text(TABLES[case], newline="")
    assert listed(photos, labels="labels.csv") == [(*place, "") for place in WANTED]


def test_a_table_of_a_spreadsheet_in_utf_16_is_read(photos):
    (photos / "labels.csv").write_text(TABLES["with tabs"], encoding="utf-16")
    assert [place[1] for place in listed(photos, labels="labels.csv")] == ["cat", "dog", "cat"]


@pytest.mark.parametrize("place", ["root", "elsewhere", "absolute"])
def test_files_are_relative_to_the_root_or_to_the_table(photos, tmp_path, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = {"root": photos, "elsewhere": photos / "a", "absolute": tmp_path}[place] / "labels.csv"
    names = {"root": "a/{}.jpg", "elsewhere": "{}.jpg", "absolute": f"{photos}/a/{{}}.jpg"}[place]
    table.write_text(f"file,label\n{names.format(1)},cat\n{names.format(2)},dog\n")
    assert listed("photos", labels=str(table)) == [("a/1.jpg", "cat", ""), ("a/2.jpg", "dog", "")]


def test_files_outside_the_root_keep_their_whole_path(photos, tmp_path):
    touch(tmp_path, "other/1.jpg")
    (tmp_path / "labels.csv").write_text("file,label\nother/1.jpg,cat\na/1.jpg,dog\n")
    source = ImageFolder(photos, labels=str(tmp_path / "labels.csv"))
    assert set(source.pictures().files) == {"a/1.jpg", str(tmp_path / "other" / "1.jpg")}
    assert {source.pictures().read(index) for index in range(2)} == {photos / "a/1.jpg", tmp_path / "other/1.jpg"}


@pytest.mark.parametrize("column", ["split", "Set", "fold", "partition"])
def test_a_table_may_say_the_splits(photos, column):
    text = f'file,label,{column}\na/1.jpg,cat,Train\na/2.jpg,dog,training\n"b, c/3.jpg",cat,valid\n'
    (photos / "labels.csv").write_text(text)
    assert [place[2] for place in listed(photos, labels="labels.csv")] == ["train", "train", "val"]


@pytest.mark.parametrize("numbers", [["10", "9", "2"], ["10.0", "9.0", "2.0"]], ids=["whole", "floats"])
def test_labels_that_are_numbers_are_class_names_in_natural_order(photos, numbers):
    (photos / "labels.csv").write_text(
        "file,label\n" + "".join(f"{n},{m}\n" for n, m in zip("123", numbers, strict=True))
    )
    source = ImageFolder(photos, labels="labels.csv")
    assert source.class_names == ("2", "9", "10") and source.pictures().labels.tolist() == [2, 1, 0]


BAD_TABLES = {
    "no text": (b"PK\3\4\xff\xfe\0", "is no text in UTF-8: save it as CSV in UTF-8"),
    "empty": (b"", "is empty: it must have columns file and label"),
    "a header alone": (b"file,label\n", "has no rows"),
    "other columns": (
        b"picture,cat,dog\n1,0,1\n",
        "must have columns file and label, and may have split; its first line has 'picture', 'cat', 'dog'",
    ),
    "no header": (b"a/1.jpg;cat\na/2.jpg;dog\n", "its first line has 'a/1.jpg', 'cat'"),
    "two columns for the file": (
        b"path,image,label\na,b,c\n",
        "'path' and 'image' may each be the file: call one of them file",
    ),
    "a label that is empty": (b"file,label\na/1.jpg,cat\na/2.jpg,\n", "line 3: label is empty"),
    "a row cut short": (b"file,label\na/1.jpg\n", "line 2: label is empty"),
    "a file that is empty": (b"file,label\n,cat\n", "line 2: file is empty"),
    "a comma without quotes": (b"file,label\nb, c/3.jpg,cat\n", "line 2: 3 columns, but the header has 2"),
    "quotes that do not end": (b'file,label\na/1.jpg,"cat\na/2.jpg,dog\n', "line 2: unexpected end of data"),
    "folds": (b"file,label,fold\na/1.jpg,cat,3\n", "line 2: the split '3' must be one of train, val, test"),
    "splits for some": (b"file,label,split\na/1.jpg,cat,train\na/2.jpg,dog,\n", "1 of 2 rows have no split"),
    "two labels of one file": (
        b"file,label\na/1.jpg,cat\n./a/1.jpg,dog\n",
        "a/1.jpg is in two rows that differ: cat; dog",
    ),
    "two splits of one file": (
        b"file,label,split\na/1.jpg,cat,train\na/1.jpg,cat,test\n",
        "two rows that differ: cat, train; cat, test",
    ),
    "files that do not exist": (
        b"file,label\na/1.jpg,cat\nx/1.jpg,cat\ny,cat\nz,cat\na,cat\n",
        "4 of 5 files do not exist: 'x/1.jpg', 'y', 'z', ...; ",
    ),
    "a class that only test has": (
        b"file,label,split\na/1.jpg,cat,train\na/2.jpg,dog,test\n",
        "test has a class that train lacks, 'dog'",
    ),
    "nothing but NUL": (b"\0\0\0", "must have columns file and label"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TABLES)
@pytest.mark.promise("bad inputs")
def test_a_table_that_is_wrong_is_refused_in_one_line_that_names_it(photos, case):
    content, words = BAD_TABLES[case]
    (photos / "labels.csv").write_bytes(content)
    message = refusal(photos, labels="labels.csv")
    assert words in message and str(photos / "labels.csv") in message


@pytest.mark.promise("bad inputs")
def test_a_name_alone_that_two_folders_have_is_not_guessed(photos):
    touch(photos, "b, c/2.jpg")
    (photos / "labels.csv").write_text("file,label\n1.jpg,cat\n2.jpg,dog\n")
    assert "1 of 2 files do not exist: '2.jpg'; " in refusal(photos, labels="labels.csv")


@pytest.mark.promise("bad inputs")
def test_a_table_that_does_not_exist_is_refused(photos):
    assert refusal(photos, labels="nowhere.csv") == f"data.labels=nowhere.csv: no such file, nor is it in {photos}"


# --- what holds for any input

quick = settings(max_examples=60, derandomize=True)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@quick
@given(rows=st.lists(st.tuples(texts, texts), min_size=1), split=st.sampled_from(["", "train", "val", "test"]))
def test_a_table_that_is_written_is_read_as_it_was(tmp_path_factory, rows, split):
    path = tmp_path_factory.mktemp("table") / "split.csv"
    rows = [Row(*row, split) for row in rows]
    write_table(path, rows)
    assert read_table(path) == rows


@quick
@given(st.binary(max_size=60) | st.text(alphabet='file,label\n;"\t10. \r', max_size=60).map(str.encode))
def test_any_bytes_are_a_table_or_a_user_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("table") / "labels.csv"
    for start in (b"", b"file,label\n"):
        path.write_bytes(start + content)
        with contextlib.suppress(UserError):
            assert read_table(path)


plain = st.sampled_from(["a", "b", "B", "c1", "c2", "c10", "é"])
names = st.sampled_from(["1.jpg", "2.jpg", "10.png", "x.JPEG"])


@st.composite
def data_sets(draw):
    """Files of a data set with their class and split, some wrapped, some with deeper folders."""
    splits = draw(st.sampled_from([[""], ["train"], ["train", "test"], ["Train", "valid", "TEST"], ["test"]]))
    classes = draw(st.lists(plain, min_size=2, unique=True))
    wrapper = draw(st.sampled_from(["", "photos/"]))
    deeper = st.sampled_from(["", "", "p/", "p/q/"])
    meaning = {"Train": "train", "valid": "val", "TEST": "test"}
    placed = {}
    for split in splits:
        chosen = (
            classes
            if split in ("", "train", "Train")
            else draw(st.lists(st.sampled_from(classes), min_size=2, unique=True))
        )
        for name in chosen:
            for file in draw(st.lists(st.tuples(deeper, names), min_size=1, unique=True)):
                path = f"{wrapper}{split}{'/' * bool(split)}{name}/{''.join(file)}"
                placed[path] = name, meaning.get(split, split)
    return placed


JUNK = [".DS_Store", "Thumbs.db", "notes.txt", "._1.jpg", ".ipynb_checkpoints/1.jpg"]


@quick
@given(data_sets(), st.sets(st.sampled_from(JUNK)), st.randoms(use_true_random=False))
def test_every_picture_is_listed_once_with_its_class_whatever_order_the_file_system_gives(
    tmp_path_factory, placed, junk, random
):
    root = tmp_path_factory.mktemp("root")
    touch(root, *placed, *junk, *(str(Path(file).parent / name) for file in placed for name in junk))
    first = ImageFolder(root)
    found = listed(root)
    assert {file: (name, split) for file, name, split in found} == placed and len(found) == len(placed)
    scan = os.scandir

    class Shuffled:
        def __init__(self, path):
            with scan(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name)
            random.shuffle(self.entries)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", Shuffled)
        again = ImageFolder(root)
        assert again.pictures().files == first.pictures().files and again.class_names == first.class_names
    assert np.array_equal(again.pictures().labels, first.pictures().labels)
    assert again.pictures().fingerprint == first.pictures().fingerprint


parts = st.sampled_from(["train", "Test", "val ", "a", "a ", "A", "é", "e\u0301", "1", "\udcff", "x\n", ".h", "c.jpg"])
files = st.sampled_from(["1.jpg", "x", "a.zip", "b.parquet", "t.csv", "\udcfe.png", "ü\n.gif", ".jpg"])


@settings(max_examples=150, derandomize=True)
@given(st.sets(st.tuples(st.lists(parts, max_size=4).map(tuple), files), max_size=8), st.booleans(), st.booleans())
def test_any_tree_is_a_data_set_or_a_user_error(tmp_path_factory, tree, leaf, link):
    root = tmp_path_factory.mktemp("root")
    for folders, file in tree:
        place = root.joinpath(*folders)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{file}" if file[0] != "." else place / file).touch()
        if link and not (place / "link").is_symlink():
            (place / "link").symlink_to(root)
    source = ImageFolder(root, classes="leaf" if leaf else "top")
    with contextlib.suppress(UserError):
        source.prepare()
        pictures = source.pictures()
        assert len(set(pictures.files)) == len(pictures.files) > 0
        assert all(pictures.read(index).is_file() for index in range(len(pictures)))
        assert describe(pictures, source.class_names)
