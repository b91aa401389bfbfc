"""Every shipped configuration composes, builds, and takes two training steps."""

from pathlib import Path

import pytest

CONF = Path(__file__).parent.parent / "conf"
SMALL = ["data=shapes", "data.batch_size=80", "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1",
         "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "data.image_size=32"]  # fmt: skip


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def train(command, shapes_root, *overrides) -> None:
    assert command("train.py", *SMALL, f"data.root={shapes_root}", *overrides) == 0, command.err


@pytest.mark.parametrize("model", choices("model"))
def test_every_model_takes_two_steps(command, shapes_root, model):
    offline = ["model.pretrained=false"] if model != "cnn" else []
    train(command, shapes_root, f"model={model}", *offline)


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_experiment_takes_two_steps(command, shapes_root, experiment):
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    offline = ["model.pretrained=false"] if "efficientnet" in text else []
    train(command, shapes_root, f"experiment={experiment}", *offline)


@pytest.mark.parametrize("data", choices("data"))
def test_every_data_set_composes(command, data):
    assert command("train.py", f"data={data}", "--cfg", "job") == 0
    assert "CIFAR10DataModule" in command.out
