"""An exported file answers as PyTorch does, for pictures of any size, and says what it is."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.data.preprocessing import RESIZES, WHITE, Preprocessing, fit
from cifar10.errors import UserError
from cifar10.inference.export import quantize, steps
from cifar10.inference.export.check import check
from cifar10.inference.export.formats import FORMATS, graph_of, metadata
from cifar10.inference.export.graph import GraphPreprocessing, fit_by_matrices
from cifar10.inference.loading import load
from cifar10.models.predictor import Predictor

DOOR = "cifar10/__main__.py"
SIDE = st.integers(1, 300)


@pytest.fixture
def export(command, evaluated, tmp_path):
    return lambda *arguments: command(DOOR, "export", f"run={evaluated}", f"output={tmp_path / 'out'}", *arguments)


@pytest.mark.promise("same answers")
@settings(max_examples=60)
@given(height=SIDE, width=SIDE, size=st.integers(2, 130), resize=st.sampled_from(RESIZES), seed=st.integers(0, 99))
def test_pictures_are_made_square_with_the_same_bits(height, width, size, resize, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)
    if seed % 2:
        images = (
            images.bitwise_and(128) * 2 - images.bitwise_and(128) // 128
        )  # black and white alone: filters overshoot
    background = torch.tensor(WHITE, dtype=torch.float64).view(3, 1, 1)
    found = fit_by_matrices(images, size, resize, background)
    assert torch.equal(found, fit(images, size, resize).float())


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("image_size", [16, 32, 50])
def test_preprocessing_in_a_graph_is_preprocessing(interpolation, resize, image_size):
    original = Preprocessing(image_size, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), interpolation, 32, resize, (1, 2, 3))
    images = torch.randint(0, 256, (3, 3, 45, 61), dtype=torch.uint8)
    torch.testing.assert_close(GraphPreprocessing(original)(images), original(images), atol=1e-6, rtol=1e-6)


@pytest.fixture(scope="session", params=["evaluated", "fine_tuned"])
def onnx_file(request, tmp_path_factory):
    """An ONNX file as the command writes it, and the model it is of."""
    folder = request.getfixturevalue(request.param)
    model = load(folder, device="cpu")
    return FORMATS["onnx"].write(model.predictor, metadata(model.predictor, "a run")), model


@pytest.mark.promise("same answers")
@settings(max_examples=25)
@given(batch=st.integers(1, 5), height=SIDE, width=SIDE)
def test_onnx_answers_as_pytorch_does_at_any_size_and_batch(onnx_file, batch, height, width):
    content, model = onnx_file
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
    found = FORMATS["onnx"].read(content)(images.numpy())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model.probabilities(images), atol=1e-5)


def test_onnx_says_what_it_takes_and_gives(onnx_file):
    import onnx

    content, model = onnx_file
    graph = onnx.load_from_string(content)
    about = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(about["class_names"]) == list(model.class_names)
    rebuilt = Preprocessing(**json.loads(about["preprocessing"]))
    assert rebuilt.extra_repr() == model.predictor.preprocessing.extra_repr()
    assert float(about["temperature"]) == model.predictor.temperature
    [taken], [given] = graph.graph.input, graph.graph.output
    assert taken.name == "images" and taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim] == ["batch", 3, "height", "width"]
    assert given.name == "probabilities" and given.type.tensor_type.shape.dim[1].dim_value == len(model.class_names)


def test_a_file_is_checked_and_then_written(export, command, tmp_path):
    assert export("check_images=50") == 0, command.err
    assert "checked on 40 images, at several sizes: same classes" in command.out  # all that there are
    assert "images/s" in command.out and (tmp_path / "out").read_bytes()


def test_a_file_that_answers_otherwise_is_not_written(export, command, tmp_path, monkeypatch):
    write = FORMATS["onnx"].write

    def hotter(predictor, about):
        other = Predictor(predictor.network, predictor.preprocessing, predictor.class_names, temperature=0.1)
        return write(other, about)

    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=hotter))
    assert export() == 1
    assert "does not give what PyTorch gives" in command.err and "nothing was written" in command.err
    assert not list(tmp_path.iterdir())


def test_an_answer_that_is_no_number_is_not_the_same(model):
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(UserError, match="nothing was written"):
        check(model.predictor, lambda images: np.full((len(images), 10), np.nan, np.float32), images, "onnx")


def test_without_its_data_a_run_is_checked_on_random_pictures(export, command, monkeypatch):
    def gone(*_):
        raise UserError("no such folder")

    monkeypatch.setattr(steps, "build_data", gone)
    assert export("quantize=int8") == 1
    assert "quantize=int8: needs the run's validation images" in command.err
    assert export() == 0, command.err
    assert "checking on random pictures, as the run's data cannot be read" in command.out
    assert "checked on 1,000 images" in command.out


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_eight_bits_that_cost_more_than_allowed_are_refused(export, command, tmp_path, monkeypatch, drop):
    accuracies = iter([0.9, 0.9 - drop])
    monkeypatch.setattr(quantize, "accuracy", lambda *_: next(accuracies))
    assert export("quantize=int8", "max_drop=0.1") == (drop > 0.1), command.err
    assert f"0.9000, with 8 bits {0.9 - drop:.4f}" in command.out
    assert (tmp_path / "out").exists() == (drop <= 0.1)
    if drop > 0.1:
        assert "costs 0.5000 of the accuracy, more than max_drop=0.1; nothing was written" in command.err


def test_eight_bits_are_smaller_and_take_pictures_of_any_size(onnx_file):
    content, _ = onnx_file
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    smaller = quantize.int8(content, images)
    assert len(smaller) < 0.8 * len(content)
    found = FORMATS["onnx"].read(smaller)(torch.randint(0, 256, (2, 3, 47, 90), dtype=torch.uint8).numpy())
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@pytest.mark.promise("same answers")
def test_a_pytorch_program_opens_where_this_package_is_not(export, model, tmp_path):
    assert export("format=torch_export", "check_images=20") == 0
    images = torch.randint(0, 256, (3, 3, 50, 20), dtype=torch.uint8)
    torch.save(images, tmp_path / "images.pt")
    code = """
import sys, torch
about = {"class_names": ""}
program = torch.export.load("out", extra_files=about).module()
torch.save(program(torch.load("images.pt")), "found.pt")
assert "horizontal" in str(about["class_names"]) and "cifar10" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    torch.testing.assert_close(torch.load(tmp_path / "found.pt"), model.probabilities(images), atol=1e-6, rtol=1e-5)


@pytest.mark.promise("same answers")
def test_timm_opens_the_folder_and_gives_the_same_logits(command, fine_tuned, tmp_path):
    import timm

    assert command(DOOR, "export", f"run={fine_tuned}", "format=safetensors", f"output={tmp_path / 'out'}") == 0
    model = load(fine_tuned, device="cpu")
    opened = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    inputs = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(opened(inputs), model.predictor.network(inputs))
    data, preprocessing = timm.data.resolve_model_data_config(opened), model.predictor.preprocessing
    assert data["input_size"] == (3, 40, 40) and tuple(data["mean"]) == preprocessing.mean
    card = (tmp_path / "out/README.md").read_text()
    assert "timm.create_model" in card and "No test report of these weights" in card and "license: " in card


def test_a_network_of_this_project_is_a_folder_with_a_card_that_says_how_to_open_it(command, evaluated, tmp_path):
    assert command(DOOR, "export", f"run={evaluated}", "format=safetensors", f"output={tmp_path / 'out'}") == 0
    card = (tmp_path / "out/README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "out"))
    exec(code, found := {})
    inputs = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found["network"](inputs), load(evaluated, device="cpu").predictor.network(inputs))
    assert "On 40 test images: accuracy" in card and "Trained on drawn pictures" in card
    assert "Trained from scratch" in card
    assert command(DOOR, "export", f"run={evaluated}", "format=safetensors", f"output={tmp_path / 'out'}") == 1
    assert "exists; remove it, or name another folder" in command.err


def test_a_card_has_the_test_accuracy_of_these_weights_alone_and_the_networks_own_size(command, tiny, tmp_path):
    network = ["data.image_size=40", "hydra.run.dir=run", "+trainer.limit_train_batches=1"]
    assert command("train.py", *tiny, *network) == 0 and command("evaluate.py", "run=run") == 0, command.err
    assert command("train.py", "resume=run", "trainer.max_epochs=2") == 0, command.err
    assert command(DOOR, "export", "run=run", "checkpoint=last", "format=safetensors", "output=out") == 0, command.err
    card = Path("out/README.md").read_text()
    assert "No test report of these weights" in card
    exec(card.split("```python\n")[1].split("```")[0].replace("FOLDER", "out"), found := {})
    inputs = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        expected = load("run", checkpoint="last", device="cpu").predictor.network(inputs)
        torch.testing.assert_close(found["network"](inputs), expected)


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize(("argument", "words"), [
    ("format=tflite", "one of onnx, torch_export, safetensors"), ("quantize=int4", "must be int8"),
    ("format=torch_export quantize=int8", "is for format=onnx"), ("check_images=0", "at least 1"),
    ("max_drop=2", "from 0 to 1"), ("max_drop=much", "a number"), ("run=none", "not a run's folder"),
    ("checkpoint=first", "does not exist"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(export, command, tmp_path, argument, words):
    assert export(*argument.split()) == 1
    assert words in command.err and len(command.err.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_missing_package_is_one_line(export, command, monkeypatch):
    find_spec = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "onnxscript" else find_spec(name, *rest))
    assert export() == 1
    assert command.err.strip() == "error: exporting needs onnxscript: pip install 'cifar10[export]'"


def test_the_predictor_stays_as_it_is(model):
    graph_of(model.predictor)
    assert isinstance(model.predictor.preprocessing, Preprocessing)
