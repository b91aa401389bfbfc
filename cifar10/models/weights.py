"""Weights and checkpoints, read as data: tensors and plain values alone, whoever wrote the file."""

import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cifar10.errors import UserError


def load_plain(file: str | Path) -> object:
    """What is in a torch file, tensors and plain values alone; ValueError, in one line, for anything else."""
    try:
        if zipfile.is_zipfile(file):  # torch looks at no checksum
            with zipfile.ZipFile(file) as parts:
                if damaged := parts.testzip():
                    raise ValueError(f"damaged: the checksum of its part {damaged} is another")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle each raise their own kinds for damaged files
        reason = str(error).strip() or type(error).__name__
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in reason:  # torch advises to execute the file
            reason = "no plain file of tensors, or damaged"
        elif isinstance(error, OSError | EOFError) or "PytorchStreamReader" in reason:
            reason = "damaged, or not complete"
        raise ValueError(reason.splitlines()[0][:200]) from error


def read_checkpoint(file: Path) -> dict:
    """A checkpoint of Lightning's: tensors and plain values; UserError for anything else. Nothing in it is executed."""
    try:
        content = load_plain(file)
    except ValueError as error:
        raise UserError(f"{file}: not a checkpoint ({error})") from error
    content = content if isinstance(content, dict) else {}
    state, settings = content.get("state_dict"), content.get("hyper_parameters")
    if not isinstance(state, dict) or not isinstance(settings, dict):
        raise UserError(f"{file}: not a checkpoint of this project (no weights, or no settings of the model)")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise UserError(f"{file}: not a checkpoint of this project (its weights are no tensors)")
    return content


def load_weights(network: nn.Module, path: str, name: str) -> None:
    """Put a local file's tensors into the backbone; UserError that names the tensors if they do not fit."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"model.weights={path}: no such file")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else load_plain(file)
    except Exception as error:  # safetensors, zip and pickle each raise their own kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"model.weights={path}: cannot be read as weights ({reason})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    state = state if isinstance(state, dict) else {}
    classifier = network.default_cfg.get("classifier") or "classifier"
    classifier = [classifier] if isinstance(classifier, str) else classifier  # distilled transformers have two
    state = {
        key: value
        for key, value in state.items()
        if isinstance(value, Tensor) and not str(key).startswith(tuple(f"{name}." for name in classifier))
    }
    wanted = network.state_dict()
    # Torch files older than 0.4.1 lack the step counter of batch normalisation, which nothing here reads.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [str(key) for key in state if key not in wanted]
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if problems:
        raise UserError(f"model.weights={path}: does not fit {name}: tensors {'; '.join(problems)}")
    network.load_state_dict(state, strict=False)
