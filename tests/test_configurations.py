"""Every shipped configuration takes two training steps, and every command in the documentation composes."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep

from cifar10.models import efficientnet

PROJECT = Path(__file__).parent.parent
CONF = PROJECT / "conf"
SMALL = [
    "data=shapes",
    "data.batch_size=80",
    "data.val_size=40",
    "data.train_size=160",  # all that is left; data_efficiency sweeps it
    "data.image_size=32",
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=2",
    "+trainer.limit_val_batches=1",
    "trainer.enable_progress_bar=false",
]


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def train(command, shapes_root, *overrides) -> None:
    assert command("train.py", *SMALL, f"data.root={shapes_root}", *overrides) == 0, command.err


@pytest.mark.parametrize("model", choices("model"))
def test_every_model_takes_two_steps(command, shapes_root, model):
    offline = ["model.pretrained=false"] if "pretrained:" in (CONF / "model" / f"{model}.yaml").read_text() else []
    train(command, shapes_root, f"model={model}", *offline)


def cases() -> list[tuple[str, str | None]]:
    """Every experiment, and those that have a recipe for each model once for each."""
    found = []
    for experiment in choices("experiment"):
        recipes = [name for name in choices("recipe") if name.startswith(f"{experiment}_")]
        found += [(experiment, name.removeprefix(f"{experiment}_")) for name in recipes] or [(experiment, None)]
    return found


@pytest.mark.parametrize("experiment, model", cases())
def test_every_experiment_takes_two_steps(command, shapes_root, trained, tmp_path, experiment, model):
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    offline = ["model.pretrained=false"] if model == "efficientnet_b0" or "/model: efficientnet" in text else []
    chosen = [f"model={model}"] if model else []
    if "teacher: ???" in text:
        chosen.append(f"callbacks.distillation.teacher={shutil.copytree(trained, tmp_path / 'teacher')}")
    train(command, shapes_root, f"experiment={experiment}", *chosen, *offline, "trainer.compile=false", "seed=0")


def test_every_recipe_belongs_to_an_experiment_and_a_model():
    assert {f"{experiment}_{model}" for experiment, model in cases() if model} == set(choices("recipe"))
    assert {model for _, model in cases() if model} <= set(choices("model"))


def test_an_experiment_of_both_models_is_a_sweep_over_them(command, shapes_root, tmp_path, monkeypatch):
    def offline(name, pretrained, *options):
        return create_backbone(name, False, *options)

    create_backbone = efficientnet.create_backbone
    monkeypatch.setattr(efficientnet, "create_backbone", offline)
    train(command, shapes_root, "experiment=laptop", "trainer.compile=false")
    assert len(list(tmp_path.glob("outputs/sweeps/*/[01]/checkpoints/best.ckpt"))) == 2
    assert "laptop_cnn: 160,202 parameters" in command.out and "laptop_efficientnet_b0: 4,0" in command.out
    for number in (0, 1):
        [run] = tmp_path.glob(f"outputs/sweeps/*/{number}")
        assert command("train.py", f"resume={run}", "trainer.max_epochs=2") == 0, command.err
        assert len((run / "metrics.csv").read_text().splitlines()) == 3, "a job of a sweep is resumed as the run it is"
    assert len(list(tmp_path.glob("outputs/sweeps/*"))) == 1


@pytest.mark.parametrize("data", choices("data"))
def test_every_data_set_composes(command, data):
    assert command("train.py", f"data={data}", "--cfg", "job") == 0
    assert "CIFAR10DataModule" in command.out


DOCUMENTS = [
    *(PROJECT / "README.md", PROJECT / "train.py", PROJECT / "evaluate.py", PROJECT / "cifar10" / "__main__.py"),
    *sorted([*PROJECT.glob("docs/**/*.md"), *CONF.rglob("*.yaml")]),
]
ARGUMENT = r"'[^']+'|--?[a-z][\w-]*|[+~]*[a-z][\w./@-]*=[^\s`]+"
COMMAND = re.compile(rf"\bpython (train\.py|evaluate\.py|-m cifar10 [a-z]+\b)((?: +(?:{ARGUMENT}))*)")


def documented(pattern: re.Pattern) -> list[str]:
    """What the documentation tells a reader to type, each once."""
    return sorted({" ".join(found[0].split()) for file in DOCUMENTS for found in pattern.finditer(file.read_text())})


@pytest.fixture
def examples(tmp_path) -> Path:
    """A folder of the configuration files that README.md and docs/ show as examples, for --config-dir."""
    for page in (PROJECT / "README.md", *PROJECT.glob("docs/*.md")):
        for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
            if named := re.search(r"^# (conf/\w+/\w+\.yaml)$", text, re.MULTILINE):
                file = tmp_path / named[1]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
    return tmp_path / "conf"


def first_of(argument: str) -> str:
    """A swept setting with the first of its values, as Hydra composes no whole sweep; others as they are."""
    if (
        argument.startswith("-")
        or not (override := OverridesParser.create().parse_override(argument)).is_sweep_override()
    ):
        return argument
    values = override.value()
    first = values.start if isinstance(values, IntervalSweep) else next(override.sweep_string_iterator())
    return f"{override.get_key_element()}={first}"


@pytest.mark.parametrize("line", documented(COMMAND))
def test_every_documented_command_composes(command, trained, tmp_path, examples, line):
    _, script, *arguments = shlex.split(line.replace("-m cifar10", "cifar10/__main__.py"))
    if any(argument.startswith("resume=outputs/sweeps/") for argument in arguments):
        pytest.skip("there is nothing to compose: tests/sweeps resumes sweeps")
    shutil.copytree(trained, tmp_path / "RUN")
    arguments = ["resume=RUN" if argument.startswith("resume=") else argument for argument in arguments]
    if script == "train.py":  # the first job's of a sweep
        arguments = [first_of(argument) for argument in arguments if argument != "-m"]
    shown = ["--cfg=job", f"--config-dir={examples}"] if "resume=RUN" not in arguments else []  # that really goes on
    assert command(script, *arguments, *shown) == 0, command.err


def test_the_commands_are_found_in_the_documentation():
    found = COMMAND.findall("`python train.py -m seed=0,1` or python evaluate.py 'runs=[a b]' +x=1   # or y=2")
    assert found == [("train.py", " -m seed=0,1"), ("evaluate.py", " 'runs=[a b]' +x=1")]
    assert len(documented(COMMAND)) > 20


def test_every_documented_target_of_make_is_there():
    targets = {line.rpartition(" ")[2] for line in documented(re.compile(r"(?<=`)make \w+|^make \w+", re.MULTILINE))}
    assert {"train", "test"} <= targets
    result = subprocess.run(["make", "-n", *targets], cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("line", documented(re.compile(r"\bpython -m [a-z][\w.]*\w")))
def test_every_documented_module_is_there(line):
    module = PROJECT.joinpath(*line.split()[-1].split("."))
    assert (module / "__main__.py").is_file() or module.with_suffix(".py").is_file()
