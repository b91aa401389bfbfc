"""A NaN or infinite loss ends the run in one line, and the last good checkpoint is kept."""

import pytest
import torch

from cifar10.models.classifier import ImageClassifier

RUN = ["data.batch_size=20", "trainer.max_epochs=3", "trainer.checkpoint_every_n_steps=1", "hydra.run.dir=run",
       "model.lr=1e-3"]  # fmt: skip


@pytest.fixture
def broken_at(monkeypatch):
    """Multiply the loss of one step by a value."""

    def break_at(step: int, value: float) -> None:
        original = ImageClassifier.training_step

        def training_step(self, batch, batch_idx):
            loss = original(self, batch, batch_idx)
            if self.trainer.global_step == step:
                loss.data.mul_(value)
            return loss

        monkeypatch.setattr(ImageClassifier, "training_step", training_step)

    return break_at


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_the_line_names_step_learning_rate_and_last_good_checkpoint(command, tiny, tmp_path, broken_at, value, word):
    broken_at(11, value)
    assert command("train.py", *tiny[:2], *RUN) == 1
    assert len(command.err.splitlines()) == 1 and command.err.startswith("error: ")
    assert f"the training loss is {word} at step 11 (epoch 2), learning rate network 0.001" in command.err
    assert "the last good checkpoint is run/checkpoints/last.ckpt" in command.err
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 11, "after the steps 0 to 10"
    assert all(value.isfinite().all() for value in last["state_dict"].values())


def test_weights_that_are_nan_are_not_saved(command, tiny, tmp_path, monkeypatch):
    def spoil(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 5:
            next(pl_module.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr("cifar10.callbacks.dashboard.Dashboard.on_train_batch_end", spoil)
    assert command("train.py", *tiny[:2], *RUN) == 1
    assert "weights are NaN or infinite after step 5; the last good checkpoint is run/checkpoints" in command.err
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4


def test_without_a_checkpoint_the_line_says_so(command, tiny, broken_at):
    broken_at(0, float("nan"))
    assert command("train.py", *tiny[:2], *RUN) == 1
    assert "no checkpoint has been saved yet; try a lower learning rate" in command.err


def test_a_learning_rate_that_is_too_high_ends_in_one_line(command, tiny):
    assert command("train.py", *tiny[:2], *RUN, "model.lr=1e30", "model.optimizer=sgd") == 1
    assert "the training loss is" in command.err or "weights are NaN" in command.err
    assert len(command.err.splitlines()) == 1
