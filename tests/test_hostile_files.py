"""Files made to do harm, at every place where one is read: nothing in them is executed, and the answer is a line."""

import hashlib
import html.parser
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from PIL import Image

from cifar10.commandline.resume import resume_run
from cifar10.data.batch_files import META_FILE, TEST_FILE, TRAIN_FILES
from cifar10.data.sources.cifar10 import CIFAR10
from cifar10.data.sources.cifar101 import CIFAR101
from cifar10.data.sources.shapes import Shapes, write_cifar10_files
from cifar10.errors import MissingData, UserError
from cifar10.evaluation import predictions, robustness
from cifar10.inference import finished_runs as finished
from cifar10.inference.run_data import rebuild
from cifar10.models.networks.build import KERAS_CNN
from cifar10.models.scratch import ScratchClassifier
from cifar10.report.scores import score
from cifar10.sweeps import jobs
from cifar10.untrusted import check_overrides

pytestmark = pytest.mark.promise("hostile files")
BATCHES = "cifar-10-batches-py"


class Bomb:
    """Makes the folder `marker` when it is unpickled, and once more through a shell."""

    def __init__(self, marker: Path, shell: bool = False):
        self.reduced = (os.system, (f"mkdir -p {marker}",)) if shell else (os.mkdir, (str(marker),))

    def __reduce__(self):
        return self.reduced


@pytest.fixture
def marker(tmp_path):
    yield (path := tmp_path / "executed")
    assert not path.exists(), "what the file holds was executed"


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_the_bombs_of_these_tests_do_go_off(tmp_path, record_property):
    record_property("tried", "plain unpickling, which these tests are about, does harm")
    for number, shell in enumerate((False, True)):
        marker = tmp_path / str(number)
        pickle.loads(pickle.dumps(Bomb(marker, shell)))
        assert marker.is_dir()


def change_settings(run, settings):
    """Put settings into the checkpoint of a run."""
    file = run / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    content["hyper_parameters"] |= settings
    torch.save(content, file)


def refused(command, script, *arguments, words=""):
    """The command ends in one line, which is returned."""
    with warnings.catch_warnings(record=True) as warned:
        code = command(script, *arguments)
    assert not warned, "a warning is a line as well"
    assert code == 1 and command.err.startswith("error: ") and len(command.err.splitlines()) == 1, command.err
    assert words in command.err, command.err
    assert "weights_only" not in command.err, "torch's advice is to execute the file"
    return command.err


def evaluation_refused(run, words):
    """The same below the command line: the error that an evaluation of a run ends in."""
    with pytest.raises(UserError, match=words) as caught:
        predictions.predicted(finished.open_run(run), finished.Settings(accelerator="cpu"))
    assert "\n" not in str(caught.value) and not (run / "evaluation").exists()
    return str(caught.value)


def resume_refused(run, words):
    with pytest.raises(UserError, match=words) as caught:
        resume_run(run, [])
    assert "\n" not in str(caught.value)


# --- torch's files


def zip_with_code(path, bomb):
    torch.save({"state_dict": {"x": bomb}, "hyper_parameters": {}}, path)


def zip_with_its_pickle_replaced(path, bomb):
    torch.save({"x": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, pickle.dumps(bomb, 2) if name.endswith("data.pkl") else content)


def legacy_file(path, bomb):
    torch.save({"x": bomb}, path, _use_new_zipfile_serialization=False)


def bare_pickle(path, bomb):
    path.write_bytes(pickle.dumps(bomb))


def legacy_tar(path, bomb):
    with tarfile.open(path, "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(bomb, 2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def torchscript(path, bomb):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/version", "3")
        for name in ("constants.pkl", "data.pkl"):
            archive.writestr(f"a/{name}", pickle.dumps(bomb, 2))


TORCH_FILES = {
    "torch zip": zip_with_code,
    "torch zip, its data.pkl replaced": zip_with_its_pickle_replaced,
    "torch before 1.6": legacy_file,
    "pickle": bare_pickle,
    "torch before 0.2, a tar": legacy_tar,
    "TorchScript archive": torchscript,
}
torch_files = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in TORCH_FILES.items()])


@pytest.mark.parametrize("shell", [False, True], ids=["mkdir", "os.system"])
@pytest.mark.parametrize("reader", ["evaluate best.ckpt", "evaluate last.ckpt", "resume last.ckpt"])
@torch_files
def test_a_checkpoint_with_code_in_it(command, run, marker, make, reader, shell):
    name = "best" if "best" in reader else "last"
    make(run / "checkpoints" / f"{name}.ckpt", Bomb(marker, shell))
    before = {file.name for file in run.rglob("*")}
    if reader.startswith("resume"):
        refused(command, "train.py", "resume=run", words="last.ckpt: not a checkpoint")
        assert (run / "run.json").exists()
    else:
        refused(command, "evaluate.py", "run=run", f"checkpoint={name}", words=f"{name}.ckpt: not a checkpoint")
    assert {file.name for file in run.rglob("*")} - {"train.log"} == before - {"train.log"}


@torch_files
def test_load_from_checkpoint_of_a_file_with_code_in_it(tmp_path, marker, make):
    make(tmp_path / "x.ckpt", Bomb(marker))
    with pytest.raises(Exception):  # noqa: B017 - torch's own kinds
        ScratchClassifier.load_from_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize("settings", [
    {"class_names": {"_target_": "os.system"}},
    {"network": KERAS_CNN | {"widths": ["a"]}},
    {"network": KERAS_CNN | {"widths": [10**9, 10**9, 10**9]}},
    {"network": KERAS_CNN | {"hidden": float("nan")}},
    {"network": KERAS_CNN | {"unheard_of": 1}},
    {"network": {"_target_": "os.system", "command": "mkdir executed"}},
    {"network": {"_target_": "tests.benchmarks.__main__.main"}},
    {"network": {"_target_": "cifar10.models.networks.cnn.torch.hub.load"}},
    {"network": {"_target_": "cifar10.models.networks.cnn.nn.Linear", "in_features": 3, "out_features": 3}},
    {"network": {"_target_": "cifar10.models.networks..os.system"}},
    {"network": {"_target_": ["os.system"]}},
    {"network": "os.system"},
    {"network": {"_target_": "cifar10.models.networks.cnn.CNN", "widths": {"_target_": "os.system"}}},
], ids=lambda settings: "checkpoint: " + ", ".join(f"{k}={v}" for k, v in settings.items()))  # fmt: skip
def test_a_checkpoint_whose_settings_are_hostile(command, run, marker, settings):
    change_settings(run, settings)
    refused(command, "evaluate.py", "run=run", words="best.ckpt: ")


@pytest.mark.parametrize("settings", [
    {"_instantiator": "os.system"},
    {"_instantiator": "pytorch_lightning.cli.instantiate_module", "_class_path": "os.system"},
    {"lr": -1.0},
    {"unheard_of": 1},
], ids=lambda settings: "checkpoint: " + ", ".join(f"{k}={v}" for k, v in settings.items()))  # fmt: skip
def test_what_predicting_has_no_use_for_in_a_checkpoint_is_not_read(command, run, marker, settings):
    change_settings(run, settings)
    assert command("evaluate.py", "run=run") == 0 and not marker.exists()


@pytest.mark.parametrize("content", [
    [], {}, {"state_dict": {}}, {"state_dict": 1, "hyper_parameters": {}},
    {"state_dict": {"a": "b"}, "hyper_parameters": {}}, {"state_dict": {1: torch.zeros(1)}, "hyper_parameters": {}},
    {"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": {}},
], ids=["a list", "nothing", "no settings", "a number for weights", "text for a tensor", "a number for a name",
        "other weights"])  # fmt: skip
def test_a_checkpoint_of_another_form(command, run, content):
    torch.save(content, run / "checkpoints" / "best.ckpt")
    refused(command, "evaluate.py", "run=run", words="best.ckpt: ")


B0 = ["model=efficientnet_b0", "model.backbone=test_efficientnet.r160_in1k", "data.image_size=32"]


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
@torch_files
def test_weights_with_code_in_them(command, tiny, tmp_path, marker, make, suffix):
    make(tmp_path / f"w{suffix}", Bomb(marker))
    refused(command, "train.py", *tiny, *B0, f"model.weights=w{suffix}", words=f"w{suffix}: cannot be read")
    assert not (tmp_path / "outputs").exists()


HEADERS = {
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header longer than the file": struct.pack("<Q", 10**9) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"oops",
    "no header": b"\0" * 8,
    "nothing": b"",
    "a tensor of 2^60 numbers": None,
    "a tensor beyond the end": None,
    "deep JSON": struct.pack("<Q", 200_000) + b"[" * 200_000,
}


def safetensors(shape, offsets):
    header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 8


HEADERS["a tensor of 2^60 numbers"] = safetensors([2**30, 2**30], [0, 2**62])
HEADERS["a tensor beyond the end"] = safetensors([100], [0, 400])


@pytest.mark.parametrize("content", [pytest.param(content, id=f"safetensors: {n}") for n, content in HEADERS.items()])
def test_safetensors_with_an_absurd_header(command, tiny, tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    refused(command, "train.py", *tiny, *B0, "model.weights=w.safetensors", words="w.safetensors: cannot be read")


@pytest.mark.parametrize("content", [[], 3, {"state_dict": 3}, {"a": "b"}, {1: torch.zeros(1)}],
                         ids=["a list", "a number", "a state that is one", "text", "a number for a name"])  # fmt: skip
def test_weights_of_another_form(command, tiny, tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    refused(command, "train.py", *tiny, *B0, "model.weights=w.pth", words="w.pth: does not fit")


def test_every_load_of_a_run_is_of_weights_only(command, trained, shapes_root, tmp_path, monkeypatch, record_property):
    loads, load = [], torch.load

    def watched(file, *arguments, **options):
        loads.append((Path(str(getattr(file, "name", file))).name, options.get("weights_only")))
        return load(file, *arguments, **options)

    monkeypatch.setattr(torch, "load", watched)
    shutil.copytree(trained, tmp_path / "run")
    assert command("train.py", "resume=run", "trainer.max_epochs=2") == 0, command.err
    assert len(loads) >= 2  # fit goes on from last.ckpt, validate takes best.ckpt
    assert command("evaluate.py", "run=run") == 0
    assert len(loads) >= 3 and all(weights_only is True for _, weights_only in loads), loads
    for name in ("fit(ckpt_path)", "validate(ckpt_path)", "load_from_checkpoint"):
        record_property("tried", f"{name} loads weights alone")


# --- data


def drawn(root, source="shapes"):
    folder = root / source / BATCHES if source == "shapes" else root / BATCHES
    write_cifar10_files(folder, images_per_batch=40)
    return folder


BOMBS = {
    "as a whole": lambda bomb: bomb,
    "as its images": lambda bomb: {b"data": bomb, b"labels": [0]},
    "as its labels": lambda bomb: {b"data": np.zeros((1, 3072), np.uint8), b"labels": bomb},
    "as an array of objects": lambda bomb: {b"data": np.array([bomb], object), b"labels": [0]},
    "beside whole images": lambda bomb: {b"data": np.zeros((1, 3072), np.uint8), b"labels": [0], b"more": bomb},
}
bombs = pytest.mark.parametrize("place", [pytest.param(make, id=name) for name, make in BOMBS.items()])


@pytest.mark.parametrize("shell", [False, True], ids=["mkdir", "os.system"])
@bombs
def test_a_training_batch_with_code_in_it(command, tiny, tmp_path, marker, place, shell):
    file = drawn(tmp_path / "d") / TRAIN_FILES[1]
    file.write_bytes(pickle.dumps(place(Bomb(marker, shell)), 2))
    refused(command, "train.py", *tiny, f"data.root={tmp_path / 'd'}", words=f"{file} as a CIFAR batch")
    assert not (tmp_path / "outputs").exists()


@bombs
def test_a_test_batch_with_code_in_it(command, run, tmp_path, marker, place):
    file = drawn(tmp_path / "d") / TEST_FILE
    file.write_bytes(pickle.dumps(place(Bomb(marker)), 2))
    refused(command, "evaluate.py", "run=run", f"data_root={tmp_path / 'd'}", words=f"{file} as a CIFAR batch")
    assert not (run / "evaluation").exists()


@pytest.mark.parametrize("call", ["numpy.load", "numpy.core.multiarray.fromfile", "numpy.f2py.compile", "builtins.eval",
                                  "builtins.getattr", "posix.system", "subprocess.Popen", "_codecs.lookup",
                                  "torch.load", "functools.partial"])  # fmt: skip
def test_a_batch_that_asks_for(tmp_path, call):
    module, _, name = call.rpartition(".")
    file = drawn(tmp_path, "cifar10") / TEST_FILE
    file.write_bytes(f"c{module}\n{name}\n(tR.".encode())
    with pytest.raises(Exception, match="asks for"):
        CIFAR10(tmp_path).load("test")


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A function that makes small files pass for the official ones; a folder of them."""
    folder = drawn(tmp_path / "official", "cifar10")
    theirs = torchvision.datasets.CIFAR10

    def sign():
        monkeypatch.setattr(theirs, "train_list", [[name, md5(folder / name)] for name in TRAIN_FILES])
        monkeypatch.setattr(theirs, "test_list", [[TEST_FILE, md5(folder / TEST_FILE)]])
        monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": md5(folder / META_FILE)})

    sign()
    return folder, sign


@pytest.mark.parametrize("signed", [False, True], ids=["with another md5", "with the official md5"])
@pytest.mark.parametrize("name", [TRAIN_FILES[0], TEST_FILE, META_FILE])
def test_an_official_file_with_code_in_it(command, official, tmp_path, marker, name, signed):
    folder, sign = official
    (folder / name).write_bytes(pickle.dumps(Bomb(marker), 2))
    arguments = [f"data.root={folder.parent}", "data.batch_size=80", "trainer.max_epochs=1"]
    if not signed:
        refused(command, "train.py", *arguments, words=f"{name} does not match its md5")
        assert not (tmp_path / "outputs").exists()
        return
    sign()
    if name == TRAIN_FILES[0]:
        refused(command, "train.py", *arguments, words=f"{name} as a CIFAR batch")
    else:  # not read in training
        CIFAR10(folder.parent).prepare()
        assert len(CIFAR10(folder.parent).load("train")[0]) == 200


def test_the_drawn_images_names_with_code_in_them(tmp_path, marker):
    folder = drawn(tmp_path)
    (folder / META_FILE).write_bytes(pickle.dumps(Bomb(marker), 2))
    source = Shapes(tmp_path)
    source.prepare()
    assert len(source.load("test")[0]) == 40


MEMBERS = {
    "a member above the folder": {"name": "../evil"},
    "a member above the folder, far down": {"name": f"{BATCHES}/../../evil"},
    "an absolute member": {"name": "{outside}/evil"},
    "a link out of the folder": {"name": f"{BATCHES}/link", "type": tarfile.SYMTYPE, "linkname": "{outside}"},
    "a link up": {"name": f"{BATCHES}/link", "type": tarfile.SYMTYPE, "linkname": "../../.."},
    "a hard link out of the folder": {
        "name": f"{BATCHES}/link",
        "type": tarfile.LNKTYPE,
        "linkname": "{outside}/secret",
    },
    "a device": {"name": f"{BATCHES}/null", "type": tarfile.CHRTYPE},
    "a pipe": {"name": f"{BATCHES}/pipe", "type": tarfile.FIFOTYPE},
}


@pytest.mark.parametrize("member", [pytest.param(member, id=name) for name, member in MEMBERS.items()])
def test_an_archive_with(official, tmp_path, monkeypatch, member):
    folder, _ = official
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret").write_text("secret")
    archive = root / torchvision.datasets.CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, BATCHES)
        evil = tarfile.TarInfo()
        for key, value in member.items():
            setattr(evil, key, value.replace("{outside}", str(outside)) if key != "type" else value)
        evil.size = 4 if "type" not in member else 0
        tar.addfile(evil, io.BytesIO(b"evil"))
        if "link" in evil.name:  # and a file through the link
            through = tarfile.TarInfo(f"{evil.name}/evil")
            through.size = 4
            tar.addfile(through, io.BytesIO(b"evil"))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5(archive))
    before = set(tmp_path.rglob("*"))
    try:
        CIFAR10(root).prepare()
    except MissingData as error:
        assert "\n" not in str(error) and set(tmp_path.rglob("*")) == before
    else:  # what was to lie elsewhere was unpacked into the scratch folder, and went with it
        made = {root / BATCHES, *(root / BATCHES / name for name in (*TRAIN_FILES, TEST_FILE, META_FILE))}
        assert member["name"].startswith("{outside}") and set(tmp_path.rglob("*")) == before | made
    assert (outside / "secret").read_text() == "secret"


# --- numpy's files


def objects(path, bomb):
    np.save(path, np.array([bomb], object), allow_pickle=True)


def promises_too_much(path, bomb):
    np.lib.format.write_array_header_1_0(
        file := path.open("wb"), {"descr": "|u1", "fortran_order": False, "shape": (2**40, 32, 32, 3)}
    )
    file.close()


def header_with_code(path, bomb):
    header = b"{'descr': __import__('os').mkdir('executed'), 'fortran_order': False, 'shape': (1,)}\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


NUMPY_FILES = {
    "objects": objects,
    "a pickle": bare_pickle,
    "a header that promises terabytes": promises_too_much,
    "code in the header": header_with_code,
}
numpy_files = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in NUMPY_FILES.items()])


@numpy_files
def test_labels_of_ones_own_that_are(command, run, tmp_path, marker, make):
    make(tmp_path / "labels.npy", Bomb(marker))
    refused(command, "evaluate.py", "run=run", "labels=labels.npy", words="labels=labels.npy: cannot be read")
    assert not (run / "evaluation" / "report.html").exists()


@pytest.mark.parametrize("name", ["fog.npy", "labels.npy"])
@numpy_files
def test_published_corrupted_images_that_are(command, run, tmp_path, marker, make, name, monkeypatch):
    monkeypatch.setattr("cifar10.evaluation.robustness.CIFAR10.class_names", Shapes.class_names)  # the run's
    (tmp_path / "c").mkdir()
    np.save(tmp_path / "c" / "fog.npy", np.zeros((50, 32, 32, 3), np.uint8))
    np.save(tmp_path / "c" / "labels.npy", np.zeros(50, np.uint8))
    make(tmp_path / "c" / name, Bomb(marker))
    refused(command, "evaluate.py", "run=run", "data=cifar10c", "data.root=c", words=f"cannot read c/{name}")
    assert not (run / "evaluation" / "cifar10c.json").exists()


@pytest.mark.parametrize("name", ["cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy"])
@numpy_files
def test_new_test_images_that_are(command, tmp_path, marker, make, name):
    np.save(tmp_path / "cifar10.1_v6_data.npy", np.zeros((5, 32, 32, 3), np.uint8))
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.zeros(5, np.uint8))
    make(tmp_path / name, Bomb(marker))
    with pytest.raises(Exception, match=f"cannot read .*{name}"):
        CIFAR101(tmp_path).load("test")


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """The run with its predictions."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(trained, folder)
    predictions.predicted(finished.open_run(folder), finished.Settings(accelerator="cpu"))
    return folder


def forged(arrays, facts, marker):
    bomb = np.array([Bomb(marker)], object)
    yield "objects for logits", arrays | {"logits": bomb}, facts
    yield "objects for facts", arrays | {"facts": bomb}, None
    yield "objects for class names", arrays | {"class_names": bomb}, facts
    yield "logits of one axis", arrays | {"logits": arrays["logits"][0]}, facts
    yield "text for logits", arrays | {"logits": arrays["logits"].astype(str)}, facts
    yield "labels beyond the classes", arrays | {"labels": arrays["labels"] + 100}, facts
    yield "fewer labels than images", arrays | {"labels": arrays["labels"][1:]}, facts
    yield "no validation images", arrays | {"val_logits": arrays["val_logits"][:0], "val_labels": []}, facts
    yield "facts that are a list", arrays, []
    yield "facts that lack most", arrays, {"checkpoint": "best"}
    yield "a name that is a number", arrays, facts | {"data": 3}


def test_stored_predictions_that_are_forged_are_made_anew(evaluated, tmp_path, marker, record_property):
    shutil.copytree(evaluated, tmp_path / "run")
    file = tmp_path / "run" / "evaluation" / "predictions.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    facts, settings = json.loads(str(arrays["facts"])), finished.Settings(accelerator="cpu")
    assert predictions.read_predictions(file) is not None
    for name, changed, changed_facts in forged(arrays, facts, marker):
        if changed_facts is not None:
            changed = changed | {"facts": np.array(json.dumps(changed_facts))}
        np.savez_compressed(file, **changed)
        assert predictions.read_predictions(file) is None, name
        record_property("tried", f"predictions.npz: {name}")
    for name, content in (("a pickle", pickle.dumps(Bomb(marker))), ("half a zip", b"PK\3\4" + b"\0" * 40)):
        file.write_bytes(content)
        assert predictions.read_predictions(file) is None, name
        record_property("tried", f"predictions.npz: {name}")
    again = predictions.predicted(finished.open_run(tmp_path / "run"), settings)
    assert np.array_equal(again.logits, arrays["logits"])


def test_stored_predictions_cannot_claim_what_is_computed(evaluated, tmp_path, record_property):
    record_property("tried", "predictions.npz: facts that claim an accuracy")
    shutil.copytree(evaluated, tmp_path / "run")
    file = tmp_path / "run" / "evaluation" / "predictions.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    claimed = json.loads(str(arrays["facts"])) | {"acc": 2.0, "temperature": "<script>"}
    np.savez_compressed(file, **arrays | {"facts": np.array(json.dumps(claimed))})
    run = predictions.predicted(finished.open_run(tmp_path / "run"), finished.Settings(accelerator="cpu"))
    assert score(run)["acc"] == run.correct.mean()


@pytest.mark.parametrize("content", [
    "[]", "3", '"text"', "{}", "[" * 100_000, '{"acc": 3}',
    '{"checkpoint_sha256": "x", "images": 1, "clean": 0.5, "acc": {"<script>": {"1": 0.5}}}',
    '{"checkpoint_sha256": "x", "images": 1, "clean": 0.5, "acc": {"fog": {"<script>": 0.5}}}',
    '{"checkpoint_sha256": "x", "images": 1, "clean": 0.5, "acc": {"fog": {"1": "<script>"}}}',
    '{"checkpoint_sha256": "x", "images": 1, "clean": 1e400, "acc": {"fog": {"1": 0.5}}}',
    '{"checkpoint_sha256": "x", "images": [], "clean": 0.5, "acc": {"fog": {"1": 0.5}}}',
], ids=["a list", "a number", "text", "nothing", "deep", "a number for accuracies", "a corruption by another name",
        "another severity", "text for an accuracy", "an endless accuracy", "a list for a number"])  # fmt: skip
def test_corruption_results_that_are(tmp_path, content):
    (tmp_path / "corruptions.json").write_text(content)
    assert robustness.read(tmp_path / "corruptions.json") is None
    good = '{"checkpoint_sha256": "x", "images": 1, "clean": 0.5, "acc": {"fog": {"1": 0.5}}}'
    (tmp_path / "corruptions.json").write_text(good)
    assert robustness.read(tmp_path / "corruptions.json") == json.loads(good)


# --- a run's configuration


TARGETS = [
    ("data._target_", "os.system"),
    ("data._target_", "cifar10.training.build.os.system"),
    ("data._target_", "cifar10.data.datamodule.math"),
    ("data._target_", "cifar10.data.datamodule.split"),
    ("data._target_", "cifar10.data.datamodule.Path"),
    ("data._target_", "cifar10.data.sources.cifar10.CIFAR10"),
    ("data._target_", "cifar10.models.scratch.ScratchClassifier"),
    ("data._target_", "tests.benchmarks.__main__.main"),
    ("data._target_", "cifar10.data.no_such_module.X"),
    ("data._target_", "pytorch_lightning.LightningDataModule"),
    ("data._target_", "..cifar10.data"),
    ("data._target_", None),
    ("data._target_", ["os.system"]),
    ("model._target_", "os.system"),
    ("model._target_", "cifar10.inference.finished_runs.os"),
    ("model._target_", "cifar10.models.scratch.torch"),
    ("model._target_", "cifar10.models.networks.cnn.CNN"),
    ("model._target_", "cifar10.models.efficientnet.timm.create_model"),
    ("model._target_", "cifar10.models.classifier.pl.LightningModule"),
    ("model._target_", "torch.hub.load"),
    ("model._target_", "cifar10.data.datamodule.CIFAR10DataModule"),
    ("callbacks.two_phase", "os.system"),
    ("callbacks", "os.system"),
    ("data._args_", [{"_target_": "os.mkdir", "_args_": ["executed"]}]),
    ("data.root", {"_target_": "os.mkdir", "path": "executed"}),
    ("data.val_size", {"_target_": "os.mkdir", "path": "executed"}),
    ("data.val_size", [{"_target_": "os.mkdir", "path": "executed"}]),
    ("data.extra", {"_target_": "os.mkdir", "path": "executed"}),
    ("data._partial_", True),
    ("data.val_size", "${oc.create:{_target_:os.mkdir,path:executed}}"),
    ("data.root", "\\${oc.create:{_target_:os.mkdir,path:executed}}"),
    ("data.val_size", "${oc.decode:'{_target_: os.mkdir, path: executed}'}"),
    ("data.val_size", "${no_such_resolver:1}"),
    ("data.val_size", "${data.val_size}"),
    ("name", "${oc.env:SECRET}"),
    ("name", "${oc.${x}:SECRET}"),
    ("seed", "${oc.env:SECRET}"),
    ("name", "two\nlines"),
    ("name", ["x"]),
    ("seed", "<script>"),
    ("data", None),
    ("model", 3),
]


@pytest.mark.parametrize(("key", "value"), TARGETS, ids=[f"{k}={v!r}" for k, v in TARGETS])
def test_a_run_whose_configuration_has(run, marker, monkeypatch, key, value):
    monkeypatch.setenv("SECRET", "the-secret")
    store(run, key, value)
    line = evaluation_refused(run, "its configuration|not a configuration|run: data|run: callbacks")
    assert "the-secret" not in line


@pytest.mark.parametrize("key", ["trainer", "logger", "callbacks.checkpoint", "callbacks.extra", "hydra.launcher"])
def test_what_an_evaluation_does_not_build_is_not_built_either(trained, tmp_path, marker, key):
    shutil.copytree(trained, tmp_path / "run")
    file = tmp_path / "run" / ".hydra" / "config.yaml"
    cfg = OmegaConf.load(file)
    OmegaConf.update(cfg, key, {"_target_": "os.mkdir", "path": str(marker)}, force_add=True)
    OmegaConf.save(cfg, file)
    rebuild(finished.open_run(tmp_path / "run"), finished.Settings(accelerator="cpu"))


YAML = {
    "python/object/apply": "!!python/object/apply:os.mkdir [executed]",
    "python/object/new": "!!python/object/new:os.mkdir [executed]",
    "python/name": "!!python/name:os.mkdir",
    "python/module": "!!python/module:os",
    "an unknown tag": "!evil x",
    "laughs": "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "deep": "[" * 5000,
    "a list": "- 1\n- 2",
    "a date that is none": "x: 2024-13-45",
    "bytes": "\x00\x01",
    "nothing": "",
}  # fmt: skip


@pytest.mark.parametrize("text", [pytest.param(text, id=f"YAML: {name}") for name, text in YAML.items()])
@pytest.mark.parametrize("name", ["config", "overrides"])
def test_a_run_whose_settings_are(run, marker, name, text):
    (run / ".hydra" / f"{name}.yaml").write_text(text)
    if name == "config":
        evaluation_refused(run, "config.yaml is not a configuration")
        resume_refused(run, "config.yaml is not a configuration")
    else:
        resume_refused(run, "overrides.yaml cannot be read as a list of settings")


OVERRIDES = [
    "+x._target_=os.system",
    "trainer._target_=os.system",
    "callbacks.timer._target_=os.mkdir",
    "+callbacks.evil={_target_:os.mkdir,path:executed}",
    "+callbacks.evil={'_target_':os.mkdir,path:executed}",
    "+callbacks.evil={_target_:'os.mkdir',path:executed}",
    "+callbacks.evil=[{_target_:os.mkdir,path:executed}]",
    "logger={_target_:pytorch_lightning.loggers.CSVLogger,save_dir:{_target_:os.mkdir,path:executed}}",
    "data._target_=cifar10.training.build.os.system",
    "trainer._target_=pytorch_lightning.trainer.trainer.os.system",
    "trainer._target_=pytorch_lightning.seed_everything",
    "trainer._target_=cifar10.files.sync",
    "trainer._target_=cifar10.no_such_module.X",
    "trainer._target_=${x}",
    "+callbacks.evil=${oc.create:{_target_:os.mkdir,path:executed}}",
    "+callbacks.evil=${oc.decode:'{_tar${x}get_: os.mkdir, path: executed}'}",
    "+callbacks.evil=${oc.${x}:1}",
    "hydra.run.dir=/somewhere/else",
    "+hydra.run.dir=/somewhere/else",
    "++hydra.output_subdir=/somewhere/else",
    "hydra/launcher=evil",
    "+hydra/callbacks=evil",
    "~hydra.run",
    "hydra.searchpath=[file:///tmp]",
    "+x@hydra.callbacks=evil",
    "+hydra={callbacks:{evil:{_target_:os.mkdir,path:executed}}}",
    "model=../../run/evil",
    "+experiment=/etc/passwd",
    "experiment=[laptop,../../evil]",
    "output_dir=/somewhere/else",
    "callbacks.epoch_log.path=/somewhere/else/.bashrc",
    "callbacks.checkpoint.dirpath=../../elsewhere",
    "callbacks.checkpoint.filename='../../../evil'",
    "+trainer.default_root_dir=~/evil",
    "--config-dir=/tmp",
    "--config-path=/tmp",
    "-cd/tmp",
    "-m",
    "--multirun",
    "--info",
    "seed=1\nhydra.run.dir=/somewhere/else",
    "seed",
    "",
    "=1",
    "../x=1",
    "'seed'=1",
]


@pytest.fixture
def sweep(tmp_path):
    """A function that makes the folder of a sweep that was started with these overrides."""

    def make(overrides):
        (tmp_path / "sweep" / jobs.NOTES).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sweep" / jobs.NOTES / jobs.OVERRIDES).write_text(json.dumps(overrides))
        return tmp_path / "sweep"

    return make


@pytest.mark.parametrize("override", OVERRIDES, ids=[f"override {o!r}" for o in OVERRIDES])
def test_a_sweep_to_be_resumed_that_was_started_with(sweep, marker, override):
    with pytest.raises(UserError, match=r"overrides contains .* is not accepted from a file") as caught:
        jobs.resume_sweep(sweep(["data=shapes", override]), [])
    assert "\n" not in str(caught.value)


STORED = [
    ("trainer._target_", "os.system"),
    ("trainer._target_", "pytorch_lightning.trainer.trainer.os.system"),
    ("trainer._target_", "pytorch_lightning.seed_everything"),
    ("trainer._target_", "cifar10.files.sync"),
    ("trainer._target_", "cifar10.no_such_module.X"),
    ("trainer._target_", "${x}"),
    ("callbacks.timer._target_", "os.mkdir"),
    ("callbacks.evil", {"_target_": "os.mkdir", "path": "executed"}),
    ("callbacks.evil", {"a": [{"_target_": "os.mkdir", "path": "executed"}]}),
    ("logger.save_dir", {"_target_": "os.mkdir", "path": "executed"}),
    ("callbacks.evil", {"a": "${oc.create:{_target_:os.mkdir,path:executed}}"}),
    ("callbacks.evil", {"a": "${oc.decode:'{_tar${x}get_: os.mkdir, path: executed}'}"}),
    ("callbacks.evil", {"a": "${oc.${x}:1}"}),
    ("hydra", {"callbacks": {"evil": {"_target_": "os.mkdir", "path": "executed"}}}),
    ("hydra.run.dir", "/somewhere/else"),
    ("defaults", ["/evil"]),
    ("defaults", [{"hydra/callbacks": "evil"}]),
    ("output_dir", "/somewhere/else"),
    ("output_dir", "../elsewhere"),
    ("callbacks.epoch_log.path", "/somewhere/else/.bashrc"),
    ("callbacks.checkpoint.dirpath", "../../elsewhere"),
    ("callbacks.checkpoint.filename", "'../../../evil'"),
    ("trainer.default_root_dir", "~/evil"),
]


def store(run, key, value):
    """Put a value into the stored configuration of a run."""
    file = run / ".hydra" / "config.yaml"
    cfg = node = OmegaConf.to_container(OmegaConf.load(file))
    *above, last = key.split(".")
    for name in above:
        node = node.setdefault(name, {})
    node[last] = value
    OmegaConf.save(OmegaConf.create(cfg), file)


@pytest.mark.parametrize(("key", "value"), STORED, ids=[f"stored {k}={v!r}" for k, v in STORED])
def test_a_run_to_be_resumed_that_has_stored(run, marker, key, value):
    store(run, key, value)
    resume_refused(
        run, r"config.yaml contains .* is not accepted from a file|config.yaml is not .* \(.* reads the environment"
    )


def test_what_is_beside_the_stored_settings_is_not_read(command, run, tmp_path, marker, record_property):
    record_property("tried", "a group of settings beside a run's stored ones")
    for name in ("command", "train", "hydra/callbacks/evil"):
        file = run / ".hydra" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("# @package hydra.callbacks\nevil: {_target_: os.mkdir, path: executed}\n")
    config = run / ".hydra" / "config.yaml"
    config.write_text("# @package hydra\n" + config.read_text())
    assert command("train.py", "resume=run", "trainer.max_epochs=2") == 0, command.err


def test_settings_that_are_not_taken_from_a_file_end_the_command(command, run, sweep, tmp_path, record_property):
    for override in ("+callbacks.evil={_target_:os.mkdir,path:executed}", "hydra/launcher=evil", "-m", "a=1\nb=2"):
        sweep(["data=shapes", override])
        before = sorted(tmp_path.rglob("*"))
        refused(command, "train.py", "resume=sweep", words="sweep/.jobs/overrides contains ")
        assert sorted(tmp_path.rglob("*")) == before
        record_property("tried", f"from the command line: override {override!r}")
    store(run, "callbacks.evil", {"_target_": "os.mkdir", "path": "executed"})
    before = sorted(tmp_path.rglob("*"))
    refused(command, "train.py", "resume=run", words="run/.hydra/config.yaml contains ")
    assert sorted(tmp_path.rglob("*")) == before
    record_property("tried", "from the command line: a stored class")


@pytest.mark.parametrize("content", ["a: 1", "- 1", "- [seed=1]", "text", "- null"])
def test_overrides_that_are_no_list_of_text(run, content):
    (run / ".hydra" / "overrides.yaml").write_text(content)
    resume_refused(run, "overrides.yaml cannot be read as a list of settings|holds")


def test_honest_overrides_are_replayed(tmp_path, record_property):
    record_property("tried", "honest overrides still pass")
    honest = [
        *("model=efficientnet_b0", "+experiment=laptop", "~callbacks.early_stopping", "++trainer.max_epochs=3"),
        *("data.root=/data/cifar", "data.root=../data", "model.weights=~/w.safetensors", "name=a/b", "seed=1"),
        *(
            "data.root=${oc.env:CIFAR10_ROOT,data}",
            "model.network.widths=[8,16]",
            "trainer.precision=16-mixed",
            "logger=null",
        ),
        "+callbacks.swa={_target_:pytorch_lightning.callbacks.StochasticWeightAveraging,swa_lrs:0.1}",
        "logger._target_=pytorch_lightning.loggers.CSVLogger",
        "callbacks.checkpoint.filename=other",
        *("hydra.sweep.subdir=${hydra:job.override_dirname}", "hydra.job.config.override_dirname.kv_sep=:"),
    ]
    check_overrides(tmp_path / "overrides.yaml", honest)


def test_a_class_of_ones_own_is_given_again_by_hand(command, run, tmp_path, record_property):
    record_property("tried", "what is refused from the file may be given again")
    key = "callbacks.checkpoint.dirpath"
    store(run, key, "/somewhere/else")
    arguments = ["resume=run", f"{key}={run}/checkpoints", "trainer.max_epochs=2"]
    assert command("train.py", *arguments) == 0, command.err


def test_a_class_given_again_by_hand_takes_nothing_from_the_file(command, run, marker, record_property):
    record_property("tried", "a class given again by hand, with the file's arguments")
    store(run, "callbacks.mine", {"_target_": "os.mkdir", "monitor": "val/los"})
    mine = "+callbacks.mine={_target_: pytorch_lightning.callbacks.LearningRateMonitor}"
    assert command("train.py", "resume=run", mine, "trainer.max_epochs=2") == 0, command.err


# --- what a report shows


SUMMARIES = {
    "a list": "[]",
    "a number": "3",
    "deep": "[" * 100_000,
    "half a file": '{"data": ',
    "no text": b"\xff\xfe{}",
    "text for seconds": '{"seconds": "<script>"}',
    "a negative time": '{"seconds": -1}',
    "an endless time": '{"seconds": Infinity}',
    "a time of 400 digits": '{"seconds": 1' + "0" * 400 + "}",
    "a number of 10,000 digits": '{"seconds": 1' + "0" * 10_000 + "}",
    "text for images": '{"train_images": "many"}',
    "half an image": '{"train_images": 0.5}',
    "a list for hardware": '{"hardware": ["x"]}',
    "a list for versions": '{"versions": []}',
}


@pytest.mark.parametrize("content", [pytest.param(content, id=f"run.json: {n}") for n, content in SUMMARIES.items()])
def test_a_run_that_says_of_itself(run, content):
    (run / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    evaluation_refused(run, "run.json cannot be read")


ROWS = {
    "text": "epoch,val/loss\n0,<script>\n",
    "no epoch": "val/loss\n1\n",
    "a negative epoch": "epoch\n-1\n",
    "an endless epoch": "epoch\ninf\n",
    "an epoch that is none": "epoch\nnan\n",
    "a cell too many": "epoch\n0,1,2\n",
    "a cell too long": "epoch\n" + "1" * 200_000 + "\n",
    "another phase": "epoch,phase\n0,3\n",
    "an endless time": "epoch,seconds\n0,inf\n",
    "no text": b"epoch\n\xff\xfe\n",
}


@pytest.mark.parametrize("content", [pytest.param(content, id=f"metrics.csv: {n}") for n, content in ROWS.items()])
def test_a_run_whose_epochs_are(run, content):
    (run / "metrics.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    evaluation_refused(run, "metrics.csv cannot be read")


class Page(html.parser.HTMLParser):
    """The tags of a page that could do something, and its text."""

    def __init__(self, text):
        super().__init__()
        self.active, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        bad = [name for name, value in attributes if name.startswith("on") or str(value).startswith("javascript:")]
        if tag in ("script", "iframe", "object", "embed", "img", "b") or bad:
            self.active.append((tag, bad))

    def handle_data(self, data):
        self.text += data


EVIL = "<img src=x onerror=alert(1)><b>&quot;'`{{7*7}}$x$"


def test_a_report_shows_hostile_names_as_text(command, tmp_path, record_property):
    for split in ("train", "test"):
        for number, name in enumerate((f"cat{EVIL}", f"dog{EVIL}")):
            (tmp_path / "d" / split / name).mkdir(parents=True)
            for image in range(6):
                colour = (40 * image, 255 * number, 0)
                Image.new("RGB", (32, 32), colour).save(tmp_path / "d" / split / name / f"{image}.png")
    arguments = ["data=folder", "data.root=d", "data.batch_size=5", "trainer.max_epochs=1", "hydra.run.dir=run"]
    assert command("train.py", *arguments) == 0, command.err
    run = tmp_path / f"run{EVIL}"
    (tmp_path / "run").rename(run)
    cfg = OmegaConf.load(run / ".hydra" / "config.yaml")
    cfg.name = f"name{EVIL}"
    OmegaConf.save(cfg, run / ".hydra" / "config.yaml")
    summary = json.loads((run / "run.json").read_text()) | {"hardware": f"hardware{EVIL}"}
    (run / "run.json").write_text(json.dumps(summary))
    np.save(tmp_path / f"labels{EVIL}.npy", np.zeros(12, int))
    found = os.path.join(os.path.dirname(run), os.path.basename(run))
    quoted = found.replace("'", "\\'")
    labels = f"labels{EVIL}.npy".replace("'", "\\'")
    assert command("evaluate.py", f"run='{quoted}'", f"labels='{labels}'") == 0, command.err
    page = Page((run / "evaluation" / "report.html").read_text())
    assert page.active == [], page.active
    for what in ("name", "cat", "dog", "run", "hardware", "labels"):
        assert f"{what}{EVIL}" in page.text, what
        record_property(
            "tried", f"report.html: a {what if what not in ('cat', 'dog') else what + ' class'} that is HTML"
        )
