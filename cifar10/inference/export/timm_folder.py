"""A run's network as a folder of safetensors that timm opens, with a model card."""

import copy
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors.torch import save
from torch import nn

from cifar10.errors import UserError
from cifar10.files import scratch_folder
from cifar10.inference.finished_runs import FinishedRun
from cifar10.inference.loading import Model
from cifar10.report.numbers import percent
from cifar10.run_folder import recipe

PAGES = Environment(loader=PackageLoader("cifar10.inference"), undefined=StrictUndefined, trim_blocks=True)


def write_folder(run: FinishedRun, model: Model, folder: Path) -> None:
    """Write model.safetensors, config.json and README.md; UserError if the folder exists and is not empty."""
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: exists; remove it, or name another folder with output=FOLDER")
    with scratch_folder(folder.parent) as scratch:
        (aside := scratch / folder.name).mkdir()
        config = write_timm(model, aside) if "backbone" in run.cfg.model else write_own(run, model, aside)
        (aside / "README.md").write_text(model_card(run, model, config), encoding="utf-8")
        aside.rename(folder)


def write_timm(model: Model, folder: Path) -> dict:
    """timm's own form, so that timm.create_model("local-dir:FOLDER", pretrained=True) gives the same logits."""
    from timm.models import save_for_hf

    trained: Any = model.predictor.network
    network = with_classifier(trained.backbone, trained.head[-1])
    preprocessing = model.predictor.preprocessing
    config = {
        "num_classes": len(model.class_names),
        "label_names": list(model.class_names),
        "pretrained_cfg": {
            **{"mean": preprocessing.mean, "std": preprocessing.std, "interpolation": preprocessing.interpolation},
            **{"input_size": (3, preprocessing.image_size, preprocessing.image_size), "crop_pct": 1.0},
            **{"num_classes": len(model.class_names), "crop_mode": "center"},
        },
    }
    save_for_hf(network, str(folder), model_config=config, safe_serialization=True)
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # written for its owner alone
    return json.loads((folder / "config.json").read_text())


def with_classifier(backbone: Any, head: nn.Linear) -> nn.Module:
    """A timm network with its own classifier, which holds the head's weights."""
    network = copy.deepcopy(backbone)
    network.reset_classifier(head.out_features)
    classifier = network.get_classifier()
    if not isinstance(classifier, nn.Linear) or classifier.weight.shape != head.weight.shape:
        raise UserError(f"format=safetensors: {type(backbone).__name__} has no linear classifier in timm; use onnx")
    classifier.load_state_dict(head.state_dict())
    return network.eval().to(memory_format=torch.contiguous_format)


def write_own(run: FinishedRun, model: Model, folder: Path) -> dict:
    """The same files for a network of this project, which timm does not know."""
    network = dict(model.predictor.network.named_modules()).get("network", model.predictor.network)
    takes_size = "image_size" in inspect.signature(type(network)).parameters
    sized = {"image_size": model.predictor.preprocessing.image_size} if takes_size else {}
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(tensors))
    config = {
        "architecture": str(run.cfg.model.network["_target_"]),
        "network": {key: value for key, value in run.cfg.model.network.items() if key != "_target_"} | sized,
        "num_classes": len(model.class_names),
        "label_names": list(model.class_names),
        "preprocessing": model.predictor.preprocessing.settings,
        "temperature": model.predictor.temperature,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=list) + "\n", encoding="utf-8")
    return config


def model_card(run: FinishedRun, model: Model, config: dict) -> str:
    """README.md: data, recipe, measured results, limits, licence of the weights."""
    settings = recipe(run.cfg, run.summary.get("watchers", ()), resolve=True)
    file = run.folder / "evaluation" / "metrics.json"
    try:
        scores = json.loads(file.read_text(encoding="utf-8"))["groups"][0]["runs"][0]
        current = scores["checkpoint_sha256"] == model.checkpoint_sha256
    except (OSError, ValueError, LookupError, TypeError):
        current = False
    return PAGES.get_template("model_card.md").render(
        run=run,
        name=str(run.cfg.name),
        summary=run.summary,
        recipe={key: value for key, value in settings.items() if not key.endswith("_target_")},
        scores=scores if current else None,
        imagenet=run.cfg.model.get("pretrained") and not run.summary.get("weights_sha256"),
        model=model,
        config=config,
        percent=percent,
        timm="pretrained_cfg" in config,
        preprocessing=model.predictor.preprocessing,
        parameters=sum(parameter.numel() for parameter in model.predictor.parameters()),
        torch_version=torch.__version__,
    )
