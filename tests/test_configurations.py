"""Every shipped configuration composes, builds, and takes two training steps."""

from pathlib import Path

import pytest

CONF = Path(__file__).parent.parent / "conf"
SMALL = ["data=shapes", "data.batch_size=80", "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1",
         "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "data.image_size=32", "data.val_size=40"]  # fmt: skip


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def train(command, shapes_root, *overrides) -> None:
    assert command("train.py", *SMALL, f"data.root={shapes_root}", *overrides) == 0, command.err


@pytest.mark.parametrize("model", choices("model"))
def test_every_model_takes_two_steps(command, shapes_root, model):
    offline = ["model.pretrained=false"] if model != "cnn" else []
    train(command, shapes_root, f"model={model}", *offline)


def cases() -> list[tuple[str, str | None]]:
    """Every experiment, and those that have a recipe for each model once for each."""
    found = []
    for experiment in choices("experiment"):
        recipes = [name for name in choices("recipe") if name.startswith(f"{experiment}_")]
        found += [(experiment, name.removeprefix(f"{experiment}_")) for name in recipes] or [(experiment, None)]
    return found


@pytest.mark.parametrize("experiment, model", cases())
def test_every_experiment_takes_two_steps(command, shapes_root, experiment, model):
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    offline = ["model.pretrained=false"] if model == "efficientnet_b0" or "/model: efficientnet" in text else []
    chosen = [f"model={model}"] if model else []
    train(command, shapes_root, f"experiment={experiment}", *chosen, *offline, "trainer.compile=false")


def test_every_recipe_belongs_to_an_experiment_and_a_model():
    assert {f"{experiment}_{model}" for experiment, model in cases() if model} == set(choices("recipe"))
    assert {model for _, model in cases() if model} <= set(choices("model"))


def test_an_experiment_of_both_models_is_a_sweep_over_them(command, shapes_root, tmp_path, monkeypatch):
    tiny = ["data=shapes", f"data.root={shapes_root}", "data.val_size=40", "trainer.max_epochs=1",
            "trainer.enable_progress_bar=false", "trainer.compile=false", "data.image_size=32"]  # fmt: skip
    command("train.py", "experiment=laptop", *tiny)
    assert "laptop_cnn: " in command.out and "laptop_efficientnet_b0" in command.out + command.err
    assert (tmp_path / "outputs" / "sweeps").exists()


@pytest.mark.parametrize("data", choices("data"))
def test_every_data_set_composes(command, data):
    assert command("train.py", f"data={data}", "--cfg", "job") == 0
    assert "CIFAR10DataModule" in command.out
