"""`python -m cifar10 predict`: a row for each picture, whatever it is called, and a line for each mistake."""

import csv
import io
import json
import os
import sys

import pytest
from PIL import Image

from cifar10.inference.predicting import streaming
from cifar10.inference.predicting.inputs import Input

DOOR = "cifar10/__main__.py"
ODD_NAMES = [
    "IMG (1).png",
    "a b.png",
    "a,b.png",
    "Zoë & Ana's.png",
    "x=1.png",
    "{a}.png",
    "100%.png",
    "[b].png",
    "#1.png",
]


@pytest.fixture
def predict(command, evaluated, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    return lambda *arguments: command(DOOR, "predict", f"run={evaluated}", *arguments)


def test_a_picture_has_its_first_classes_in_a_table(predict, command, model):
    assert predict("images=photo.png") == 0, command.err
    found = model.predict("photo.png")[0].top(3)
    assert "".join(command.out.split()) == ("photo.png" + "".join(f"{name}{p:.1%}" for name, p in found)).replace(
        " ", ""
    )
    assert "calibrated: temperature" in command.err


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_may_be_called_anything(predict, command, photo, tmp_path, name):
    (tmp_path / name).write_bytes(photo)
    assert predict(f"images={name}", "format=json") == 0, command.err
    assert json.loads(command.out)[0]["file"] == name


def test_a_folder_a_glob_and_several_are_in_the_order_of_people(predict, command, photo, tmp_path):
    for name in ("2.png", "10.png", "1.png", "notes.txt", "below/3.png", ".hidden.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(photo if name.endswith("png") else b"text")

    def files(images):
        assert predict(f"images={images}", "format=csv") == 0, command.err
        return [row["file"] for row in csv.DictReader(io.StringIO(command.out))]

    assert files("photos") == ["photos/1.png", "photos/2.png", "photos/10.png", "photos/below/3.png"]
    assert files("photos/*.png") == ["photos/1.png", "photos/2.png", "photos/10.png"]
    assert files("[photo.png,photos/2.png]") == ["photo.png", "photos/2.png"]


def test_a_picture_may_come_through_standard_input(predict, command, photo, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo)))
    assert predict("images=-", "format=json", "top=99") == 0, command.err
    [row] = json.loads(command.out)
    assert row["file"] == "-" and len(row["predictions"]) == 10
    assert sum(one["probability"] for one in row["predictions"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_name_that_is_not_utf_8_comes_through(predict, command, photo, tmp_path, form):
    (folder := tmp_path / "old").mkdir()
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(photo)
    assert predict("images=old", f"format={form}", "output=rows") == 0, command.err
    assert form == "table" or b"caf" in (tmp_path / "rows").read_bytes()


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_an_unreadable_picture_is_a_row_that_says_so_and_the_exit_code_tells(predict, command, tmp_path, form):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff" + bytes(50))
    assert predict("images=[bad.jpg,photo.png]", f"format={form}") == 1
    assert "not a picture" in command.out and "photo.png" in command.out
    assert command.err.splitlines()[-1] == "error: 1 of 2 pictures cannot be read: bad.jpg"
    if form == "json":
        bad, good = json.loads(command.out)
        assert "error" in bad and "error" not in good and "predictions" in good


def test_rows_go_into_a_file_that_is_whole_or_not_there(predict, command, tmp_path, monkeypatch):
    assert predict("images=photo.png", "format=csv", "output=rows.csv") == 0, command.err
    assert command.out == "" and (tmp_path / "rows.csv").read_text().startswith("file,class_1,probability_1,")
    monkeypatch.setattr(streaming, "predict_batch", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict("images=photo.png", "format=csv", "output=others.csv")
    assert not (tmp_path / "others.csv").exists() and not list(tmp_path.glob(".others*"))


def test_explanations_are_pictures_beside_the_rows(predict, command, tmp_path):
    assert predict("images=photo.png", "explain=why") == 0, command.err
    [file] = (tmp_path / "why").iterdir()
    assert file.name.startswith("1_photo.png_")
    assert Image.open(file).size == (224, 224)


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize(("argument", "words"), [
    ("images=", "which pictures?"), ("images=null", "no such file or folder"), ("images=none.jpg", "no such file"),
    ("images=a.jpg,b.jpg", "several: 'images=[a.jpg,b.jpg]'"), ("images=none/*.jpg", "nothing matches"),
    ("images=[]", "which pictures?"), ("images=empty", "has no pictures in it"), ("format=xml", "one of table, csv"),
    ("top=0", "at least 1"), ("batch_size=0", "at least 1"), ("run=none", "not a run's folder"),
    ("checkpoint=first", "does not exist"), ("accelerator=tpu", "must be one of auto"), ("top=many", "a whole number"),
    ("output=none/rows.csv", "cannot be written"), ("imags=x", "imags"),
])  # fmt: skip
def test_a_mistake_is_one_line(predict, command, tmp_path, argument, words):
    (tmp_path / "empty").mkdir()
    arguments = [argument] if argument.startswith("images=") else ["images=photo.png", argument]
    assert predict(*arguments) != 0
    assert words in command.err.splitlines()[-1] and command.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in command.err and command.out == ""


def test_no_more_than_a_few_batches_are_kept_at_once(model, photo):
    taken = done = 0

    def many():
        nonlocal taken
        for number in range(100):
            taken += 1
            assert taken - done <= (streaming.AHEAD + 1) * 4
            yield Input(str(number), photo)

    for _ in streaming.predict_all(model, many(), batch_size=4):
        done += 1
    assert done == 100
