"""The settings that a run was started with, read from its folder to be given to Hydra once more.

Who wrote that file is not known: what could make Hydra build, read or write anything else has to be given again by
hand. Imports Hydra's part alone, as cli.py does.
"""

from pathlib import Path

from cifar10.errors import UserError
from cifar10.run_folder import check_overrides, fault, key_of, read_overrides

# of a run that is resumed: how long and where it runs, and how it is watched
MAY_CHANGE = (
    *("trainer.max_epochs.", "trainer.checkpoint_every_n_steps.", "trainer.log_every_n_steps."),
    *("trainer.accelerator.", "trainer.devices.", "trainer.num_nodes.", "trainer.strategy.", "trainer.precision."),
    *("trainer.compile.", "trainer.benchmark.", "trainer.enable_progress_bar.", "trainer.enable_model_summary."),
    *("data.root.", "data.eval_batch_size.", "model.weights.", "callbacks.dashboard.", "hydra."),
)


def resume_arguments(arguments: list[str]) -> list[str]:
    """Turn `resume=RUN` into that run's own overrides and folder; what is given beside it wins.

    Raises UserError if the folder is no run, or if anything but `MAY_CHANGE` is given.
    """
    folders = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    if not folders or folders[-1] in ("", "null"):
        return arguments
    folder = Path(folders[-1])
    overrides = folder / ".hydra" / "overrides.yaml"
    if not overrides.is_file():
        raise UserError(f"resume={folder}: not a run that can be resumed, {overrides} does not exist")
    own = [override for override in read_overrides(overrides) if not override.startswith("resume=")]
    given = [argument for argument in arguments if not argument.startswith("resume=")]
    keys = {key_of(argument) for argument in given if not argument.startswith("-")}
    refused = {key_of(override) for override in own if fault(override)}  # may be given again by hand
    if other := sorted(key for key in keys - refused if not f"{key}.".startswith(MAY_CHANGE)):
        raise UserError(
            f"{other[0]}: a resumed run keeps its own settings; trainer.max_epochs can change, and where it runs"
            " (trainer.devices, data.root, ...)"
        )
    own = [override for override in own if key_of(override) not in keys]
    check_overrides(overrides, own)
    # The run's .hydra/ stays as it was made: a mistake in `given` must not change what the run says of itself.
    run = [f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null"]
    return [*own, *given, *run, "hydra.mode=RUN"]  # whatever the experiment says: it is one run
