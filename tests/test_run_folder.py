"""cifar10.run_folder: one place for names and forms, and one table of what makes a recipe and may change."""

import json
import subprocess
import sys

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cifar10.errors import UserError
from cifar10.run_folder import SETTINGS, Free, RunFolder, is_free, recipe
from cifar10.shell import program, quoted
from cifar10.untrusted import leaves
from tests.conftest import PROJECT


def compose(*overrides: str):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return hydra.compose("train", list(overrides))


def test_it_needs_no_torch():
    code = "import sys, cifar10.run_folder; print({'torch', 'numpy', 'pytorch_lightning'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_the_shipped_settings_write_where_it_looks(tmp_path):
    cfg = compose(f"output_dir={tmp_path}")
    run = RunFolder(tmp_path)
    assert cfg.callbacks.checkpoint.dirpath == str(run.checkpoints)
    assert cfg.callbacks.epoch_log.path == str(run.metrics)
    assert cfg.logger.tensorboard.save_dir == str(run.tensorboard)


@pytest.mark.parametrize("model", ["cnn", "efficientnet_b0"])
def test_every_setting_of_the_table_exists(model):
    known = {
        key
        for key, _ in leaves(OmegaConf.to_container(compose(f"model={model}", "data=folder")))
        for key in prefixes(key)
    }
    by_lightning = {"trainer.num_nodes", "trainer.profiler"}
    absent = {key for key in SETTINGS if key.partition(".")[0] != "hydra"} - known - by_lightning
    assert absent == ({"model.weights"} if model == "cnn" else set())


def prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def test_what_may_change_in_a_sweep_may_change_in_a_run():
    for setting, free in SETTINGS.items():
        assert Free.SWEEP not in free or Free.RESUME in free, setting


@pytest.mark.parametrize(
    "override",
    [
        *("seed=3", "name=other", "data.root=x", "trainer.devices=2", "trainer.max_time=00:01:00:00", "logger=[]"),
        *(
            "callbacks.dashboard=null",
            "callbacks.dashboard.images=0",
            "data.eval_batch_size=7",
            "callbacks.checkpoint.dirpath=kept",
            "+trainer.profiler=simple",
        ),
        "+callbacks.rates={_target_: pytorch_lightning.callbacks.LearningRateMonitor, logging_interval: step}",
        "+callbacks.x={_target_: pytorch_lightning.callbacks.progress.RichProgressBar}",
        "+callbacks.y={_target_: pytorch_lightning.callbacks.ModelCheckpoint, every_n_epochs: 5}",
        "+callbacks.mine={_target_: elsewhere.Watcher}",
    ],
)
def test_one_recipe_whatever_is_watched_and_wherever_it_runs(override):
    assert recipe(compose(override), watchers=["mine"]) == recipe(compose())


@pytest.mark.parametrize(
    "override",
    [
        *("model.lr=3", "data.train_size=9", "trainer.max_epochs=3", "trainer.precision=64-true"),
        "callbacks.checkpoint.monitor=val/acc",
        "+callbacks.swa={_target_: pytorch_lightning.callbacks.StochasticWeightAveraging, swa_lrs: 0.1}",
        "+callbacks.rates={_target_: elsewhere.LearningRateMonitor}",
        "+callbacks.mine={_target_: elsewhere.Callback}",
    ],
)
def test_another_recipe(override):
    assert recipe(compose(override)) != recipe(compose())


def test_what_may_change_on_resume():
    assert is_free("trainer.max_epochs", Free.RESUME) and not is_free("trainer.max_epochs", Free.RECIPE)
    assert is_free("callbacks.dashboard.images", Free.RESUME) and is_free("hydra/launcher", Free.SWEEP)
    assert not is_free("trainer.max_epochs_", Free.RESUME) and not is_free("data", Free.RESUME)
    assert not is_free("seed", Free.RESUME) and not is_free("trainer.max_epochs", Free.SWEEP)


COST = {
    **{"parameters": 10, "bytes": 40, "forward_flops": 1e3, "train_flops": 1e6},
    "phases": [{"phase": 1, "epochs": 2, "seconds": 3.5, "trained_parameters": 10, "flops_per_epoch": 5e5}],
}


def test_what_training_cost_is_in_the_summary(tmp_path):
    RunFolder(tmp_path).write_summary({"epochs": 2, "cost": COST, "watchers": ["mine"], "unheard_of": 1})
    assert RunFolder(tmp_path).read_summary() == {"epochs": 2, "cost": COST, "watchers": ["mine"]}


@pytest.mark.promise("hostile files")
@pytest.mark.parametrize(
    "summary",
    [
        *({"cost": "<script>"}, {"cost": COST | {"train_flops": -1}}, {"cost": COST | {"phases": ["one"]}}),
        *({"cost": COST | {"phases": [{"phase": "<script>"}]}}, {"watchers": "two_phase"}, {"watchers": [1]}),
    ],
    ids=lambda summary: f"run.json: {json.dumps(summary)[:60]}",
)
def test_a_summary_of_another_form(tmp_path, summary):
    (tmp_path / "run.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"run.json cannot be read \((cost|watchers) is"):
        RunFolder(tmp_path).read_summary()


@pytest.mark.parametrize(
    "text", ["plain/path.x", "two words", "a=b", 'say "x"', 'back\\"slash\\', "it's", "null", "12", ""]
)
def test_a_quoted_text_is_read_back_by_hydra(text):
    assert OverridesParser.create().parse_override(f"key={quoted(text)}").value() == text


def test_commands_are_said_as_the_shell_that_reads_them_finds_them(monkeypatch, tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program("python") == ".venv/bin/python", "as after `make train`"
    monkeypatch.setenv("PATH", str(tmp_path / ".venv" / "bin"))
    assert program("python") == "python" and program("tensorboard") == "tensorboard"
