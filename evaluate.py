"""Finished runs on the test split: predict -> score -> compare -> report; the only command that tests a model.

python evaluate.py                                          the newest run under outputs/
python evaluate.py run=outputs/cnn/2026-01-31_12-00-00      one run: its report goes into its folder
python evaluate.py 'runs=[outputs/sweeps/2026-01-31_12-00-00]'    several: runs, sweeps' folders, globs; compared
python evaluate.py 'runs=[outputs/sweeps/2026-01-31_12-00-00]' best=3    a sweep's three best settings
"""

import logging

from omegaconf import DictConfig

from cifar10.commandline.command import Command

log = logging.getLogger("evaluate")


def evaluate(cfg: DictConfig) -> None:
    """Write the report of one run or several; runs that cannot be reported are an error at the end."""
    from cifar10.evaluation import steps as reporting

    settings = reporting.settings_of(cfg)
    folders, chosen = reporting.find(cfg)
    opened, left_out = reporting.open_runs(folders, settings)
    labels = reporting.read_labels(cfg.labels, opened[0][1])
    groups = reporting.group(opened, cfg.names)
    reporting.measure_corruptions(cfg, [run for run, _ in opened], settings)
    results = reporting.compute(groups, labels, cfg.labels, settings) | chosen
    folder = reporting.folder_of(cfg, opened, settings)
    reporting.write(folder, groups, results, opened, settings, left_out)
    reporting.conclude(folder, results, left_out)


if __name__ == "__main__":
    Command("evaluate", evaluate).run()
