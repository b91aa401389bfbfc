"""Weights and checkpoints, read as data: only tensors and plain values, whoever wrote the file."""

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cifar10.errors import UserError

log = logging.getLogger(__name__)

CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # timm's order: averaged weights first
PREFIX = re.compile(r"(?:(?:_orig_mod|module|model|backbone)\.)*")


def load_plain(file: str | Path) -> object:
    """The content of a torch file, if it is only tensors and plain values; else a one-line ValueError."""
    try:
        if zipfile.is_zipfile(file):  # torch verifies no checksums
            with zipfile.ZipFile(file) as parts:
                if damaged := parts.testzip():
                    raise ValueError(f"damaged: wrong checksum of {damaged}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle each raise their own kinds for damaged files
        reason = str(error).strip() or type(error).__name__
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in reason:  # torch advises executing the file
            reason = "not a plain file of tensors, or damaged"
        elif isinstance(error, OSError | EOFError) or "PytorchStreamReader" in reason:
            reason = "damaged or incomplete"
        raise ValueError(reason.splitlines()[0][:200]) from error


def read_checkpoint(file: Path) -> dict:
    """A Lightning checkpoint as tensors and plain values, nothing in it executed; UserError for anything else."""
    try:
        content = load_plain(file)
    except ValueError as error:
        raise UserError(f"{file}: not a checkpoint ({error})") from error
    content = content if isinstance(content, dict) else {}
    state, settings = content.get("state_dict"), content.get("hyper_parameters")
    if not isinstance(state, dict) or not isinstance(settings, dict):
        raise UserError(f"{file}: not a checkpoint of this project (no weights, or no hyperparameters)")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise UserError(f"{file}: not a checkpoint of this project (its weights are not tensors)")
    return content


def load_weights(network: Any, path: str, name: str) -> None:
    """Load a local file's tensors into the backbone `name`; ValueError naming the tensors if they do not fit.

    The usual wrappers are removed, and the log says which: see `unwrap`. A classifier in the file is ignored.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"weights={path}: no such file")
    try:
        content = load_file(file) if file.suffix == ".safetensors" else load_plain(file)
    except Exception as error:  # safetensors, zip and pickle each raise their own kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"weights={path}: cannot be read as weights ({reason})") from error
    wanted = network.state_dict()
    state, wrapping = unwrap(content, wanted)
    log.info("backbone weights from %s%s", path, wrapping)
    classifier = network.default_cfg.get("classifier") or "classifier"
    classifier = [classifier] if isinstance(classifier, str) else classifier  # distilled transformers have two
    heads = tuple(f"{layer}." for layer in classifier)
    state = {key: value for key, value in state.items() if not key.startswith(heads)}
    if problems := misfits(state, wanted):
        raise ValueError(f"weights={path}: does not fit {name}: tensors {'; '.join(problems)}")
    network.load_state_dict(state, strict=False)


def unwrap(content: object, wanted: Collection[str]) -> tuple[dict[str, Tensor], str]:
    """The named tensors in a file that are meant for a network with these keys, and a note on what was removed.

    Files keep them under one of `CONTAINERS`, their names prefixed by what the network was wrapped in, such as
    `module.` (DistributedDataParallel) or `model.backbone.`; anything without that prefix is another network's.
    """
    content = content if isinstance(content, dict) else {}
    container = next((key for key in CONTAINERS if isinstance(content.get(key), dict)), None)
    content = content[container] if container else content
    state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    prefixes = sorted({"", *(found[0] for key in state if (found := PREFIX.match(key)))}, key=len)
    prefix = max(prefixes, key=lambda prefix: sum(prefix + key in state for key in wanted))
    notes = [note for note in (container, prefix and f"prefix {prefix!r}") if note]
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state, f" ({', '.join(notes)})" if notes else ""


def misfits(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """What keeps `state` from being loaded into a network that wants other tensors: number and names, by kind."""
    # Torch files older than 0.4.1 lack the step counter of batch normalisation, which nothing here reads.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    return [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of a different shape", reshaped))
        if names
    ]
