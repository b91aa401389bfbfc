"""A run's folder: the names and formats of what is in it, and which settings make up its recipe. Imports no torch."""

import csv
import enum
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from cifar10.errors import UserError, cause_of, one_line
from cifar10.files import atomic_write
from cifar10.metric_names import METRICS
from cifar10.shell import argument, program, shown
from cifar10.untrusted import YAML_ERRORS, check_environment, fits, key_of, leaves, load_yaml, read_list

# formats of the training cost and of run.json, parts of which a report shows; keys may be missing
PHASE = dict.fromkeys(("phase", "epochs", "seconds", "trained_parameters", "flops_per_epoch"), float)
COST = dict.fromkeys(("parameters", "bytes", "forward_flops", "train_flops"), float) | {"phases": [PHASE]}
SUMMARY = {
    **dict.fromkeys(METRICS, object),
    **{"data": str, "synthetic": bool, "train_images": int, "val_images": int},
    **{"epochs": int, "seconds": (float, None), "hardware": str, "precision": str, "commit": str, "versions": {}},
    **{"weights_sha256": (str, None), "cost": COST, "watchers": [str], "class_counts": {"train": [int], "val": [int]}},
}


class Free(enum.Flag):
    """Where a setting may differ from what a run was trained with."""

    RECIPE = enum.auto()  # in another run of the same recipe
    RESUME = enum.auto()  # when the run is resumed
    SWEEP = enum.auto()  # when the whole sweep is resumed


# The only such table: a setting that is not in it makes a different recipe, and cannot change on resume.
SETTINGS = {
    key: free
    for free, keys in {
        Free.RECIPE | Free.RESUME | Free.SWEEP: (
            *("data.root", "data.cache", "trainer.accelerator", "trainer.devices", "trainer.num_nodes"),
            "trainer.enable_progress_bar",
        ),
        Free.RECIPE | Free.RESUME: (
            *("data.eval_batch_size", "model.weights", "trainer.strategy", "trainer.benchmark", "trainer.max_time"),
            *("trainer.checkpoint_every_n_steps", "trainer.log_every_n_steps", "trainer.profiler"),
            *("trainer.enable_model_summary", "callbacks.dashboard", "callbacks.timer"),
        ),
        Free.RECIPE: (
            *("name", "seed", "data.seed", "resume", "output_dir", "logger", "tags", "callbacks.epoch_log"),
            *("callbacks.checkpoint.dirpath", "callbacks.checkpoint.every_n_steps", "trainer.deterministic"),
            *("trainer.default_root_dir", "trainer.num_sanity_val_steps"),
        ),
        Free.RESUME: ("trainer.max_epochs", "trainer.precision", "trainer.compile", "hydra"),
        Free.RESUME | Free.SWEEP: (
            *("hydra.launcher", "hydra.sweeper.n_trials", "hydra.sweeper.n_jobs", "hydra.verbose"),
            *("hydra.job_logging", "hydra.hydra_logging", "hydra.job.env_set", "hydra.job.env_copy"),
        ),
    }.items()
    for key in keys
}
# Lightning's callbacks that only watch; your own class says `changes_training = False`
WATCHERS = (
    *("DeviceStatsMonitor", "LearningRateMonitor", "ThroughputMonitor", "ModelSummary", "RichModelSummary", "Timer"),
    *("ProgressBar", "TQDMProgressBar", "RichProgressBar", "ModelCheckpoint", "OnExceptionCheckpoint"),
)


def is_free(setting: str, free: Free) -> bool:
    """Whether a setting, or a section it is in, may differ there; `hydra/launcher` is in the section `hydra`."""
    parts = re.split(r"[./]", setting)
    return any(free in SETTINGS.get(".".join(parts[:length]), Free(0)) for length in range(1, len(parts) + 1))


def recipe(cfg: DictConfig, watchers: Sequence[str] = (), resolve: bool = False) -> dict[str, object]:
    """Every setting that a result depends on, by dotted key, without the seed and null values.

    watchers: keys in `cfg.callbacks` of what changes nothing; runs of earlier versions list the checkpoint too.
    """
    settings: Any = OmegaConf.to_container(cfg, resolve=resolve)
    for key, callback in list((settings.get("callbacks") or {}).items()):
        module, _, name = str((callback or {}).get("_target_")).rpartition(".")
        lightning = module.partition(".")[0] in ("pytorch_lightning", "lightning")
        if (key in watchers and key != "checkpoint") or (lightning and name in WATCHERS):
            del settings["callbacks"][key]
    found = {key: value for key, value in leaves(settings) if not is_free(key, Free.RECIPE)}
    return {key: value for key, value in found.items() if value is not None and value != {}}


class RunFolder:
    """Where things are in a run's folder, and how they are read and written."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.settings = self.path / ".hydra"
        self.config = self.settings / "config.yaml"
        self.overrides = self.settings / "overrides.yaml"
        self.summary = self.path / "run.json"  # of a finished run
        self.metrics = self.path / "metrics.csv"
        self.split = self.path / "split.csv"  # of pictures: file, label, split
        self.unreadable = self.path / "unreadable.csv"  # pictures that were left out
        self.duplicates = self.path / "duplicates.csv"  # pictures that are in several splits
        self.checkpoints = self.path / "checkpoints"
        self.best, self.last = self.checkpoint("best"), self.checkpoint("last")
        self.logits = self.path / "logits"  # of training images, for runs that learn from this one
        self.tensorboard = self.path / "tensorboard"
        self.lock = self.path / ".lock"  # held by the process that trains

    def checkpoint(self, name: str) -> Path:
        return self.checkpoints / f"{name}.ckpt"

    def evaluation(self, source: str | None = None) -> Path:
        """Where the evaluation is; source: of test images other than the run's own."""
        return self.path / ("evaluation" if source is None else f"evaluation_{source}")

    @property
    def calibration(self) -> Path:
        """The temperature fitted on the run's validation images, see `cifar10.inference.calibration`."""
        return self.evaluation() / "calibration.json"

    @property
    def begun(self) -> bool:
        return any(file.exists() for file in (self.overrides, self.last, self.best, self.metrics, self.summary))

    @property
    def can_go_on(self) -> bool:
        return self.last.is_file() or self.best.is_file()

    @property
    def resume_command(self) -> str:
        return f"{program('python')} train.py {argument('resume', self.path)}"

    @property
    def evaluate_command(self) -> str:
        return f"{program('python')} evaluate.py {argument('run', self.path)}"

    def __str__(self) -> str:
        return shown(self.path)

    def read_config(self) -> DictConfig:
        """The settings that the run was trained with; UserError if they are not a configuration."""
        try:
            cfg = load_yaml(self.config)
            if not isinstance(cfg, DictConfig):
                raise ValueError("it has no sections")
            check_environment("", OmegaConf.to_container(cfg, resolve=False))
            wanted = {"data": DictConfig, "model": DictConfig, "name": str, "seed": int}
            for key, kind in wanted.items():
                if not isinstance(cfg.get(key), kind):
                    raise ValueError(f"{key} is missing or not {'a section' if kind is DictConfig else kind.__name__}")
            callbacks = cfg.get("callbacks") or {}
            if not isinstance(callbacks, dict | DictConfig) or not all(
                isinstance(one or {}, dict | DictConfig) for one in callbacks.values()
            ):
                raise ValueError("callbacks is not a section of sections")
            if not cfg.name.isprintable():
                raise ValueError("name is more than one line of text")
        except YAML_ERRORS as error:
            reason = one_line(error)[:200] or type(error).__name__
            raise UserError(
                f"run={self.path}: {self.config} is not a configuration of this project ({reason})"
            ) from error
        return cfg

    def write_settings(self, cfg: Any, overrides: Sequence[str], hydra: DictConfig | None = None) -> None:
        """The files that Hydra writes, each atomically."""
        self.settings.mkdir(parents=True, exist_ok=True)
        files = {self.config: cfg, self.overrides: OmegaConf.create(list(overrides))}
        if hydra is not None:
            files[self.settings / "hydra.yaml"] = hydra
        for path, content in files.items():
            with atomic_write(path, "w", encoding="utf-8") as file:
                file.write(OmegaConf.to_yaml(content))

    def change_settings(self, cfg: DictConfig, changes: Sequence[str]) -> None:
        """Make the stored settings say what the run is trained with from now on; changes: the overrides given."""
        stored = read_list(self.overrides) if self.overrides.exists() else []
        changed = {key_of(override): override for override in changes if key_of(override) != "resume"}
        kept = [changed.pop(key_of(override), override) for override in stored]
        self.write_settings(OmegaConf.merge(cfg, {"resume": None}), [*kept, *changed.values()])

    def read_summary(self) -> dict:
        """A finished run's run.json; FileNotFoundError if it has not finished, UserError if its format differs."""
        problem = f"run={self.path}: {self.summary} cannot be read"
        try:
            summary = json.loads(self.summary.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise
        except (ValueError, OSError, RecursionError) as error:
            raise UserError(f"{problem} ({cause_of(error)})") from error
        if not isinstance(summary, dict):
            raise UserError(f"{problem} (not a summary of a run)")
        if odd := [key for key, form in SUMMARY.items() if key in summary and not fits(summary[key], form)]:
            raise UserError(f"{problem} ({odd[0]} is {summary[odd[0]]!r:.40})")
        return {key: value for key, value in summary.items() if key in SUMMARY}

    def write_summary(self, summary: dict) -> None:
        """Write run.json: from now on the run counts as finished."""
        with atomic_write(self.summary, "w", encoding="utf-8") as file:
            file.write(json.dumps(summary, indent=2) + "\n")

    def read_metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, one per epoch, without empty cells; none if there is no such file.

        Raises UserError for a file that is not a table of numbers with an epoch in each row.
        """
        if not self.metrics.is_file():
            return []
        try:
            with self.metrics.open(newline="", encoding="utf-8") as file:
                rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
            for row in rows:
                sane = 0 <= row.get("epoch", -1) < 1e9 and 0 <= row.get("seconds", 0) < 1e9
                if not sane or row.get("phase", 1) not in (1, 2):
                    raise ValueError(f"a row of epoch {row.get('epoch')}, phase {row.get('phase', 1)}")
        except (ValueError, OSError, csv.Error, TypeError) as error:  # TypeError: an extra cell
            reason = f"{self.metrics} cannot be read ({cause_of(error)})"
            raise UserError(f"{reason}: remove it to do without its curves") from error
        return [row | {"epoch": int(row["epoch"])} for row in rows]


def overrides_of(hydra: HydraConf, kind: str = "task") -> list[str]:
    """Hydra's record of the command line's settings, or of Hydra's own, as they were written."""
    found: Any = OmegaConf.to_container(getattr(hydra.overrides, kind), resolve=False)
    return found
