"""A run that is killed at any moment ends, resumed, in the same bits as one that was not."""

import random
import shutil
import time
from pathlib import Path

import pytest

from tests.killing import differences, outcome, start, train

CNN = ["data.batch_size=20", "data.flip=true", "data.cutout=8", "data.mixup_alpha=0.2", "model.network.dropout=0.3"]
B0 = [
    *("model=efficientnet_b0", "model.backbone=test_efficientnet.r160_in1k", "model.pretrained=false"),
    *("data.image_size=32", "data.batch_size=20", "model.drop_path=0.2", "callbacks.two_phase.patience=null"),
    *("callbacks.two_phase.head_epochs=2", "model.schedule=cosine", "model.warmup=0.1"),
]
COMMON = ["trainer.max_epochs=4", "trainer.checkpoint_every_n_steps=3", "hydra.run.dir=run", "data.eval_batch_size=10"]
MODELS = {
    "CNN": CNN,
    "B0 in two phases": [*B0, "data.mixup_alpha=0.2"],
    "B0 on cached features": [*B0, "callbacks.feature_caching.views=2"],
}
# Each run is killed at these moments one after another, resumed every time; # counts within one process.
EVERYWHERE = [
    "before a step #1",
    "with a checkpoint half written #1",
    "before a step #6",
    "before a checkpoint is in its place #2",
    "during validation #2",
    "before best.ckpt is in its place #1",
    "between best.ckpt and last.ckpt #1",
    "before metrics.csv is in its place #1",
]
LATER = [
    "after a backward pass #4",
    "after validation #1",
    "with a checkpoint half written #3",
    "after the last epoch",
    "before run.json is in its place",
]
SWITCH = ["as an epoch begins #2", "at the switch", "behind the switch", "before a step #2"]
RANDOM_KILLS = 6
KILLS = {
    "CNN": [*EVERYWHERE, *LATER],
    "B0 in two phases": [*EVERYWHERE, *SWITCH, *LATER],
    "B0 on cached features": ["while features are computed #20", *EVERYWHERE[2:5], *SWITCH, *LATER],
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory, shapes_root):
    """What each model's run comes to that nothing interrupts."""
    found = {}

    def get(model: str) -> dict:
        if model not in found:
            folder = tmp_path_factory.mktemp("reference")
            assert train(folder, *arguments(model, shapes_root)) == 0, (folder / "output.txt").read_text()
            found[model] = outcome(folder / "run")
        return found[model]

    return get


def arguments(model: str, shapes_root: Path) -> list[str]:
    return ["data=shapes", f"data.root={shapes_root}", *MODELS[model], *COMMON]


@pytest.mark.promise("kills")
@pytest.mark.parametrize("model", MODELS)
def test_a_run_killed_at_any_moment_ends_in_the_same_bits(model, reference, tmp_path, shapes_root, record_property):
    command = arguments(model, shapes_root)
    for kill in KILLS[model]:
        code = train(tmp_path, *command, kill=kill)
        assert code == -9, f"{kill} was not reached: {code}\n{(tmp_path / 'output.txt').read_text()[-3000:]}"
        record_property("tried", f"{model}, {kill}")
        command = ["resume=run"]
    assert train(tmp_path, "resume=run") == 0, (tmp_path / "output.txt").read_text()[-3000:]
    assert differences(reference(model), outcome(tmp_path / "run")) == []
    assert list((tmp_path / "run").rglob("*.tmp")) == []


@pytest.mark.promise("kills")
@pytest.mark.parametrize("model", MODELS)
def test_a_run_killed_again_and_again_at_random_ends_in_the_same_bits(
    model, reference, tmp_path, shapes_root, record_property
):
    begun = time.monotonic()
    expected, command = reference(model), arguments(model, shapes_root)
    longest, moments, kills = time.monotonic() - begun, random.Random(model), 0
    longest = max(longest, 4.0)  # where the reference was there already
    while kills < RANDOM_KILLS:
        process = start(tmp_path, *command)
        process.join(moments.uniform(0.0, longest))
        assert process.exitcode in (None, 0), (tmp_path / "output.txt").read_text()[-3000:]
        if process.exitcode == 0:  # it was quicker: begin again
            longest /= 2
            shutil.rmtree(tmp_path / "run")
            command = arguments(model, shapes_root)
            continue
        process.kill()
        process.join()
        kills += 1
        record_property("tried", f"{model}, at random, {kills}")
        command = ["resume=run"] if (tmp_path / "run" / ".hydra" / "overrides.yaml").exists() else command
    assert train(tmp_path, *command) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    assert differences(expected, outcome(tmp_path / "run")) == []
