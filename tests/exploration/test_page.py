"""The page is one file that needs no network, and what strangers have named stays text."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from cifar10.exploration import page, projector
from cifar10.exploration.findings import Findings, look, use_features


class Elements(HTMLParser):
    """Every element with its attributes, and the data of the map."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.map, self.text = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if tag == "script" and attributes.get("type") == "application/json":
            self.map += data
        elif tag not in ("script", "style"):
            self.text.append(" ".join(data.split()))


@pytest.fixture
def findings(collection) -> Findings:
    """What is found with made-up features, by which the classes differ."""
    pytest.importorskip("cleanlab")
    found = look(collection, 1000, None, ["train", "val"])
    found.missing.clear()
    features = np.random.default_rng(0).normal(size=(40, 8)) + 4 * collection.labels[:, None]
    features[3] = -features[3]
    use_features(found, features)
    return found


@pytest.fixture
def read(findings, tmp_path) -> Elements:
    return Elements(page.write(tmp_path, findings).read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_anywhere(read):
    places = [value for _, found in read.elements for key, value in found.items() if key in ("src", "href")]
    assert places and all(place.startswith(("data:", "#")) for place in places)


def test_names_with_markup_stay_text(read, findings):
    assert not [found for _, found in read.elements if any(key.startswith("on") for key in found)]
    assert [tag for tag, _ in read.elements].count("script") == 2
    assert r"</script><img src=x onerror=alert(1)>\t\n" in read.text and 'caf\\udce9 "&" \\u202e' in read.text
    data = json.loads(read.map)
    assert data["files"][5] == r"a\tb/<b>5.jpg" and len(data["x"]) == 40 and data["sheet"].startswith("data:image/webp")


def test_what_was_found_is_shown(read, findings):
    text = "\n".join(read.text)
    assert "40 pictures in 2 classes; this needs attention before you train:" in text
    assert "1 picture has exact copies in several splits" in text and "with different labels" in text
    assert "30 files left out. The first 20 are shown; all are in explore.json." in text
    assert "broken <i>19.jpg: cut short" in text and "broken <i>20.jpg" not in text
    assert 3 in [one.place for one in findings.label_errors] and "#map-3" in [f.get("href") for _, f in read.elements]
    assert all(findings.collection.splits[one.place] != "test" for one in findings.label_errors)


def test_without_a_backbone_the_page_says_why_and_has_the_rest(collection, tmp_path):
    read = Elements(page.write(tmp_path, look(collection, 1000, None, ["train"])).read_text(encoding="utf-8"))
    assert any("weights=FILE" in text for text in read.text)
    ids = [found["id"] for tag, found in read.elements if tag == "h2"]
    assert ids == ["counts", "duplicates", "unreadable", "samples", "sizes", "pixels"]


def test_many_classes_still_make_a_page(collection, tmp_path):
    collection.class_names = tuple(f"species {label}" for label in range(300))
    read = Elements(page.write(tmp_path, look(collection, 1000, None, ["train"])).read_text(encoding="utf-8"))
    text = "\n".join(read.text)
    assert "298 classes with fewer than 10 pictures: species 2, " in text and "and 293 more" in text


def test_pixel_statistics_are_those_of_the_pictures(collection):
    found = look(collection, 1000, None, ["train"])
    images = collection.read(np.flatnonzero(collection.splits != "test")) / 255
    assert found.mean == pytest.approx(images.mean((0, 2, 3)), abs=1e-6)
    assert found.std == pytest.approx(images.std((0, 2, 3)), abs=1e-5)
    collection.splits[collection.labels == 0] = "test"
    means = look(collection, 1000, None, ["train"]).means
    of_class = collection.read(np.flatnonzero(collection.labels == 0)) / 255
    assert np.abs(means[1] / 255.0 - of_class.mean(0)).max() < 0.003, "also of a class without others"


def test_tensorboard_gets_a_row_and_a_tile_for_each_picture(findings, tmp_path):
    projector.write(tmp_path, findings)
    [table] = tmp_path.glob("projector_*/**/metadata.tsv")
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").split("\n")]
    assert rows[0] == ["class", "split", "file"] and rows[1][1:] == ["train", r"a\tb/<b>0.jpg"]
    assert [len(row) for row in rows if row != [""]] == [3] * 41
    [vectors] = tmp_path.glob("projector_*/**/tensors.tsv")
    assert len(vectors.read_text().split()) == 40 * findings.components.shape[1]
    assert list(tmp_path.glob("projector_*/**/sprite.png"))
