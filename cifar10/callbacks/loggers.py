"""Weights & Biases, MLflow and Trackio, as `conf/logger/` uses them: quiet, offline unless asked, and able to resume.

Their packages are imported when a logger is built. `go_on_after`, of a resumed run, is called before it logs anything;
`viewer` is the command that shows what was logged.
"""

import contextlib
import importlib
import inspect
import io
import logging
import os
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers
from pytorch_lightning.utilities import rank_zero_only

from cifar10.shell import shown


class WandbLogger(loggers.WandbLogger):
    """Lightning's, with a run for each job of a sweep.

    offline: None leaves it to WANDB_MODE, and is offline without. Weights & Biases cannot resume offline: the rest of a
    resumed run is a run of its own in the same group; online it is the same run. options: of `wandb.init`.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "cifar10",
        name: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        offline: bool | None = None,
        **options: Any,
    ):
        if offline is None:
            offline = "WANDB_MODE" not in os.environ
        os.environ.setdefault("WANDB_SILENT" if offline else "WANDB_QUIET", "true")
        os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "0.2")  # seconds that a kill loses; else 15
        import wandb

        known = inspect.signature(wandb.init).parameters
        if unknown := [option for option in options if option not in known]:
            raise ValueError(f"{unknown[0]}: wandb.init has no such setting; it has: {', '.join(known)}")
        super().__init__(name, save_dir, offline=offline, project=project, group=group, tags=list(tags), **options)
        del self._wandb_init["anonymous"]  # wandb warns of it
        if wandb.run is not None:  # of an earlier job, which failed
            wandb.finish(exit_code=1)

    @property
    def viewer(self) -> str:
        if self.experiment.offline:
            return f"wandb sync {shown(str(self.save_dir))}/wandb/offline-run-*"
        return self.experiment.url or "nowhere: WANDB_MODE is disabled"

    def go_on_after(self, step: int) -> None:
        for folder in sorted(Path(str(self.save_dir), "wandb").glob("run-*")):  # not offline-run-*
            self._id = self._wandb_init["id"] = folder.name.split("-", 2)[2]


class MLFlowLogger(loggers.MLFlowLogger):
    """Lightning's, with a database as its store. A resumed run is found by its name.

    save_dir: where `mlflow.db` is, unless `tracking_uri` or MLFLOW_TRACKING_URI names a store.
    """

    def __init__(
        self,
        save_dir: str,
        experiment_name: str = "cifar10",
        run_name: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        tracking_uri: str | None = None,
    ):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow  # noqa: F401  which sets the level of its log

        for name in ("mlflow", "alembic", "pytorch_lightning.loggers.mlflow"):  # each new table, each new experiment
            logging.getLogger(name).setLevel(logging.ERROR)
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        store = f"sqlite:///{Path(save_dir).absolute()}/mlflow.db"
        labels = dict.fromkeys(tags, "true") | ({} if group is None else {"group": group})
        super().__init__(
            experiment_name, run_name, tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or store, labels
        )

    @property
    def viewer(self) -> str:
        local = self._tracking_uri.removeprefix("sqlite:///")
        store = self._tracking_uri if local == self._tracking_uri else f"sqlite:///{shown(local)}"
        return f"mlflow ui --backend-store-uri {store}"

    def go_on_after(self, step: int) -> None:
        experiment = self._mlflow_client.get_experiment_by_name(self._experiment_name)
        runs = self._mlflow_client.search_runs([experiment.experiment_id]) if experiment else []  # the newest first
        self._run_id = next((run.info.run_id for run in runs if run.info.run_name == self._run_name), None)
        if self._run_id:
            self._mlflow_client.update_run(self._run_id, status="RUNNING")

    @rank_zero_only
    def log_hyperparams(self, params: dict) -> None:
        first = self.experiment.get_run(self.run_id).data.params  # MLflow does not let them change
        changed = {key: value for key, value in params.items() if first.get(key, str(value)) != str(value)}
        super().log_hyperparams({key: value for key, value in params.items() if key not in changed})
        for key, value in changed.items():
            self.experiment.set_tag(self.run_id, f"resumed {key}", value)


class TrackioLogger(loggers.Logger):
    """Trackio, whose interface is that of Weights & Biases. A resumed run is found by its name.

    save_dir: the store of all runs, unless TRACKIO_DIR names another.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "cifar10",
        name: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
    ):
        super().__init__()
        os.environ.setdefault("TRACKIO_DIR", str(Path(save_dir).absolute()))  # read when it is imported
        self.trackio: Any = importlib.import_module("trackio")
        self.run, self.resume = None, "never"
        self.options = {"project": project, "name": name, "group": group, "config": {"tags": list(tags)}}

    @property
    def name(self) -> str:
        return self.options["project"]

    @property
    def version(self) -> str | None:
        return self.options["name"]

    @property
    def viewer(self) -> str:
        return f"TRACKIO_DIR={shown(self.trackio.utils.TRACKIO_DIR)} trackio show --project {self.name}"

    @property
    def experiment(self) -> Any:
        """Trackio's run, which starts or goes on."""
        if self.run is None:
            quiet = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
            with contextlib.redirect_stdout(io.StringIO()):
                self.run = self.trackio.init(**self.options, resume=self.resume, **quiet)
            self.resume = "allow"
        return self.run

    def go_on_after(self, step: int) -> None:
        self.resume = "allow"

    @rank_zero_only
    def log_hyperparams(self, params: dict, *arguments: object) -> None:
        self.options["config"] |= params

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def save(self) -> None:
        """Have everything written, which Trackio does in a thread."""
        if self.run is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                self.trackio.finish()
            self.run = None

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
