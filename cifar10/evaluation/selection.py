"""The best of a sweep, chosen on validation images before any test image is read."""

from collections.abc import Sequence
from pathlib import Path

from cifar10.errors import UserError
from cifar10.report.sweep.jobs import SEED
from cifar10.sweeps.jobs import is_sweep
from cifar10.sweeps.summary import read_sweep


def best_of(runs: str | Sequence[str] | None, best: int) -> tuple[list[Path], str]:
    """The runs of a sweep's best settings, all their seeds, best first; and a sentence that says so.

    Raises UserError if `runs` is not one sweep, or none of its jobs has a result.
    """
    wanted = [runs] if isinstance(runs, str) else list(runs or ())
    if best < 1:
        raise UserError(f"best={best}: must be at least 1")
    if len(wanted) != 1 or not is_sweep(folder := Path(wanted[0])):
        raise UserError(f"best={best}: takes the best of one sweep; name its folder: 'runs=[outputs/sweeps/DATE_TIME]'")
    sweep = read_sweep(folder)
    name, chosen = sweep.objective.name, sweep.ranked[:best]
    if not chosen:
        raise UserError(f"best={best}: no job of {folder} has finished with a {name}")
    # a search may try the same settings twice; another run of a seed tells nothing new
    seeds = [
        {job.overrides.get(SEED): job for job in setting.jobs if job.value(name) is not None} for setting in chosen
    ]
    jobs = [job for setting in seeds for job in setting.values()]
    folders = [folder / job.folder for job in jobs]
    if any(not each.resolve().is_relative_to(folder.resolve()) for each in folders):
        raise UserError(f"runs=[{folder}]: its notes name a run outside its folder")
    of_seeds = f", {len(jobs)} runs with their seeds" * (len(jobs) > len(chosen))
    text = f"The best {len(chosen)} of {len(sweep.settings)} settings tried{of_seeds}, by {name} on validation images."
    text += (
        " Being chosen flatters their validation figures; choosing once more by the test figures would flatter these."
    )
    return folders, text
