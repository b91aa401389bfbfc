"""Random settings: a command does its work, or says in one line what is wrong, and leaves nothing behind.

The cases are the same every time. CIFAR10_FUZZ=2000 in the environment tries so many; `-k "train-17"` runs one again.
"""

import functools
import inspect
import os
import random
import shutil
import signal
from pathlib import Path

import hydra
import pytest
import pytorch_lightning as pl
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from cifar10.data.sources import shapes
from cifar10.untrusted import leaves as leaves_of
from tests.conftest import PROJECT, TINY_BACKBONE
from tests.killing import train

CONF = PROJECT / "conf"
CASES = int(os.environ.get("CIFAR10_FUZZ", 150))
SECONDS = 60  # for one case, whatever it does: it must not hang

NUMBERS = ["0", "-1", "1", "2", "3", "7", "0.5", "-0.5", "1.0", "1e-300", "1e300", "-1e300", "nan", "inf", "-inf",
           "18446744073709551616", "-9223372036854775809", "1e-3", "0x10", "007", "1_000"]  # fmt: skip
TEXTS = ["''", "null", "true", "false", "auto", "none", "'two words'", "'it\\'s \"quoted\"'", "ünï", "'a\nb'", "'a=b'",
         "'{a}'", "'%d'", "a/b", "'~'", "'[1'", "/proc/x", "' '", "a\\,b"]  # fmt: skip
NESTED = ["[]", "{}", "[1,2]", "[[1],[2]]", "{a:1}", "{_target_:os.getcwd}", "[null]", "[a]", "[nan]"]
SYNTAX = ["${seed}", "${nowhere}", "${data}", "${oc.env:NOWHERE}", "${", "choice(1,2)", "1,2", "range(1,3)", "'", "[1",
          "???", "interval(0,1)", "${now:%Y}", "glob(*)", "${nothing:1}", "int(3)", "shuffle(1,2)"]  # fmt: skip
# what of a setting's neighbourhood is not a number
NEAR = {
    "accelerator": ["cpu", "gpu", "tpu", "mps", "cuda"],
    "backbone": ["test_vit.r160_in1k", "test_convnext.r160_in1k", "test_resnet.r160_in1k", "efficientnet_b", "vit"],
    "strategy": ["single_device", "fast", "ddp_find", "deepspeed_stage_9"],
    "devices": ["1", "[0]", "'0'", "[1]", "auto", "[]", "99", "'1,'", "-1"],
    "precision": ["32", "64", "16-mixed", "bf16-mixed", "64-true", "8", "bf16-true", "16-true", "transformer-engine"],
    "optimizer": ["adam", "adamw", "sgd", "lion"],
    "schedule": ["constant", "cosine", "linear"],
    "monitor": ["val/acc", "train/loss", "train/acc", "val/los"],
    "mode": ["min", "max", "mean"],
    "compile": ["auto", "fast"],
    "profiler": ["simple", "advanced", "pytorch", "fast"],
    "max_time": ["00:00:01:00", "{seconds: 30}", "00:00:00:00", "{minutes: -1}", "soon"],
    "gradient_clip_algorithm": ["norm", "value", "size"],
    "val_check_interval": ["1", "0.5", "2", "3", "{seconds: 1}"],
    "plugins": ["[]", "fast"],
    "source": ["cifar10", "cifar101", "folder", "shape"],
    "root": ["nowhere", "~"],
    "resume": ["outputs", "outputs/nothing", "."],
    "run": ["outputs/cnn/run", "outputs/cnn/*", "outputs", "nowhere", "."],
    "runs": ["[outputs/cnn/run]", "outputs/cnn/*", "outputs/cnn", "[]", "[nowhere]", "[outputs/cnn/run,nowhere]"],
    "names": ["[a]", "[a,b]", "a"],
    "labels": ["nowhere.npy", "outputs", "outputs/cnn/run/run.json"],
    "output": ["here", "outputs/cnn/run", "outputs/cnn/run/run.json/below", "/proc/x/y"],
    "checkpoint": ["best", "last", "../best", "epoch"],
    "severities": ["[1]", "[1,1]", "[6]", "[1.0]", "[true]", "3"],
    "images": ["10", "100"],
}
GROUPS = {"train": ["model", "data", "experiment", "recipe"], "evaluate": ["data", "corruption"]}
HYDRA = ["hydra.run.dir", "hydra.job.name", "hydra.output_subdir", "hydra.sweep.dir", "hydra.mode"]
SMALL = [f"model.{key}" for key in ("backbone", "pretrained")]
# endless, or too large for a test: a run of several nodes waits for the others
NEVER = {
    "num_nodes": ("2", "3", "7"),
    "root": ("/proc/x",),
    "devices": ("2", "3", "7"),
    "compile": ("true", "1"),
    "max_steps": ("null",),
}


@functools.cache
def keys(script: str, *choices: str) -> tuple[dict[str, object], list[str]]:
    """The configuration's dotted keys: those that hold a value, with the value, and those that hold other keys."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose(script, list(choices))
    leaves = dict(leaves_of(OmegaConf.to_container(cfg)))
    return leaves, sorted({key[:place] for key in leaves for place, sign in enumerate(key) if sign == "."})


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def draw_value(rng: random.Random, key: str, default: object = None) -> str:
    """Mostly something of the setting's neighbourhood, else anything at all."""
    name = key.rpartition(".")[2]
    near = NEAR.get(name, [])
    if isinstance(default, bool):
        near = [*near, "true", "false"]
    elif isinstance(default, int | float):
        near = [*near, str(default + 1), str(default - 1), str(default * 2), str(default / 2), str(-default)]
    elif not near and key == name:  # of Lightning's trainer
        near = ["0", "1", "2", "3", "0.5", "1.0", "true", "false", "null"]
    near = near or [str(default).replace("None", "null").replace(" ", "")]
    strange = rng.choices([NUMBERS, TEXTS, NESTED, SYNTAX], [4, 2, 2, 1])[0]
    value = rng.choice(near if rng.random() < 0.6 else strange)
    return draw_value(rng, key, default) if value in NEVER.get(name, ()) else value


def draw_override(rng: random.Random, script: str, leaves: dict[str, object], sections: list[str]) -> str:
    key = rng.choice(list(leaves))
    kind = rng.random()
    if kind < 0.60:
        return f"{key}={draw_value(rng, key, leaves[key])}"
    if kind < 0.80 and script == "train":
        argument = rng.choice(list(inspect.signature(pl.Trainer).parameters))
        return f"++trainer.{argument}={draw_value(rng, argument)}"
    if kind < 0.84:
        group = rng.choice(GROUPS[script])
        return f"{rng.choice(['', '', '+'])}{group}={rng.choice([*options(group), 'null', 'nothing', '[]', '1,2'])}"
    if kind < 0.87:
        return f"{rng.choice(sections or list(leaves))}={draw_value(rng, 'section')}"
    if kind < 0.91:
        return f"~{rng.choice([*leaves, *sections])}"
    if kind < 0.93:
        place = rng.randrange(len(key))
        return f"{key[:place]}{key[place + 1 :]}={draw_value(rng, key)}"
    if kind < 0.97:
        key = rng.choice(HYDRA)
        return f"{key}={draw_value(rng, key)}"
    prefix = rng.choice(["+", "++", "~", "-", ""])
    return f"{prefix}{key}{rng.choice(['', '=', '.x=1', '@y=1', '=1=2', ' = 1'])}"


def draw(script: str, number: int) -> tuple[list[str], list[str]]:
    """What makes the run small, and what is tried on top."""
    rng = random.Random(f"{script} {number}")
    tried: list[str] = []
    if script == "train":
        tried += ["-m"] * (rng.random() < 0.05)
        tried += [f"model={rng.choice(options('model'))}"] * (rng.random() < 0.4)
        if tried and rng.random() < 0.4:
            tried += [f"experiment={rng.choice(options('experiment'))}"]
    elif rng.random() < 0.2:
        tried += [f"+corruption={rng.choice(options('corruption'))}"]
    leaves, sections = keys(script, *[one for one in tried if "=" in one])
    tried += [draw_override(rng, script, leaves, sections) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    small = {}
    if script == "train":
        small = {"data": "shapes", "data.batch_size": "80", "data.val_size": "40", "data.train_size": "160"}
        small |= {"data.image_size": "32", "trainer.max_epochs": "1", "trainer.enable_progress_bar": "false"}
        small |= {"trainer.compile": "false", "+trainer.max_steps": "2"}
        if "model.backbone" in leaves:
            small |= {"model.backbone": TINY_BACKBONE, "model.pretrained": "false"}
        elif "model.network.widths" in leaves:
            small |= {"model.network.widths": "[4]", "model.network.hidden": "8"}
    elif any("corruption" in one for one in tried):
        small = {"corruption.images": "20", "corruption.severities": "[1]"}
    mine = {one.lstrip("+~").partition("=")[0] for one in tried}
    return [f"{key}={value}" for key, value in small.items() if key.lstrip("+") not in mine], tried


@pytest.fixture
def limited():
    def stop(*_):
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)


@pytest.fixture
def offline(monkeypatch):
    def no_network(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("cifar10.data.sources.cifar10.CIFAR10._download", no_network)
    monkeypatch.setattr(
        shapes, "write_cifar10_files", functools.partial(shapes.write_cifar10_files, images_per_batch=40)
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def check_answer(command, code: int, what: str) -> None:
    assert code in (0, 1, 66), what
    assert "Traceback" not in command.err + command.out, f"{what}\n{command.err}"
    if code:
        lines = command.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1 and lines[-1] == errors[0] and len(errors[0]) > 15, f"{what}\n{command.err}"


@pytest.mark.promise("configurations")
@pytest.mark.parametrize("number", range(CASES - CASES // 4), ids=lambda number: f"train-{number}")
def test_random_settings_train_or_are_refused_in_a_line(
    command, shapes_root, tmp_path, offline, limited, record_property, number
):
    small, tried = draw("train", number)
    what = " ".join(tried)
    record_property("tried", f"train {number}: {' '.join(what.split())}")
    root = [] if any("data.root" in one for one in tried) else [f"data.root={shapes_root}"]
    code = command("train.py", *root, *small, *tried)
    check_answer(command, code, what)
    begun = "results go to" in command.out or "sweep of" in command.out or not root  # images may be drawn there
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert begun or not code or not left, f"{what}: left {left}\n{command.err}"
    shutil.rmtree(tmp_path)  # thousands of them are more than a disk holds


@pytest.fixture(scope="module")
def finished_run(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch with its evaluation, made once."""
    folder = tmp_path_factory.mktemp("finished")
    small = ["data=shapes", f"data.root={shapes_root}", "data.batch_size=80", "trainer.max_epochs=1",
             "model.network.widths=[4]", "model.network.hidden=8", "hydra.run.dir=run", "logger=null"]  # fmt: skip
    for script, arguments in (("train.py", small), ("evaluate.py", ["run=run"])):
        assert train(folder, *arguments, script=script) == 0, (folder / "output.txt").read_text()
    return folder / "run"


@pytest.mark.promise("configurations")
@pytest.mark.parametrize("number", range(CASES // 4), ids=lambda number: f"evaluate-{number}")
def test_random_settings_evaluate_or_are_refused_in_a_line(
    command, finished_run, shapes_root, tmp_path, offline, limited, record_property, monkeypatch, number
):
    small, tried = draw("evaluate", number)
    what = " ".join(tried)
    record_property("tried", f"evaluate {number}: {' '.join(what.split())}")
    run = tmp_path / "outputs" / "cnn" / "run"
    shutil.copytree(finished_run, run)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("cifar10.report.page.write", lambda folder, *_: folder.mkdir(parents=True, exist_ok=True))
    code = command("evaluate.py", *small, *tried)
    check_answer(command, code, what)
    kept = {path for path in before if path.is_file() and path.read_bytes() == before[path]}
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - set(before)
    changed = {path for path in before if path not in kept and "evaluation" not in path.parts}
    assert not changed, f"{what}: changed {changed}"
    partly = "left out of the report" in command.err or "data.root" in what  # the others' report is written
    evaluated = {
        path for path in made if path.name in ("predictions.npz", "corruptions.json")
    }  # an hour's work is kept
    assert not code or partly or not made - evaluated, f"{what}: left {made}\n{command.err}"
    shutil.rmtree(tmp_path)
