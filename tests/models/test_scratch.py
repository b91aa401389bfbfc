"""A network of one's own: a file with a plain nn.Module and a YAML file are all that it takes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cifar10.models import networks
from cifar10.models.networks.build import KERAS_CNN
from cifar10.models.scratch import ScratchClassifier
from tests.conftest import PROJECT

NETWORK = '''
from torch import nn


class MLP(nn.Module):
    """Pixels, a hidden layer, logits."""

    def __init__(self, num_classes: int, image_size: int, hidden: int):
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden={hidden}: must be at least 1")
        self.hidden = nn.Linear(3 * image_size**2, hidden)
        self.logits = nn.Linear(hidden, num_classes)

    def forward(self, images):
        return self.logits(self.hidden(images.flatten(1)).relu())


class Pooled(nn.Module):
    """The mean colour, logits: for images of any size."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.logits = nn.Linear(3, num_classes)

    def forward(self, images):
        return self.logits(images.mean((2, 3)))


class Unchecked(nn.Module):
    def __init__(self, num_classes: int, hidden: int):
        super().__init__()
        self.dropout = nn.Dropout(3)


def function(num_classes):
    return Pooled(num_classes)
'''
MODEL = """
# @package _global_
name: mlp
model:
  _target_: cifar10.models.scratch.ScratchClassifier
  image_size: ${data.image_size}
  network: {_target_: cifar10.models.networks.mlp.MLP, hidden: 8}
"""
MLP, POOLED = "cifar10.models.networks.mlp.MLP", "cifar10.models.networks.mlp.Pooled"


@pytest.fixture
def mlp(tmp_path, monkeypatch):
    """The file, as if it lay in cifar10/models/networks/."""
    folder = tmp_path / "networks"
    folder.mkdir()
    (folder / "mlp.py").write_text(NETWORK)
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(folder)])
    yield
    sys.modules.pop("cifar10.models.networks.mlp", None)
    vars(networks).pop("mlp", None)


@pytest.fixture
def configured(command, tiny, tmp_path, mlp):
    """Runs train.py with the YAML file, which lies in a folder of the user's."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mlp.yaml").write_text(MODEL)
    return lambda *more: command("train.py", "--config-dir", str(tmp_path / "conf"), "model=mlp", *tiny, *more)


def shown_file(name: str) -> str:
    """The file that docs/own-model.md shows under this name."""
    blocks = re.findall(r"```\w+\n(.*?)```", (PROJECT / "docs" / "own-model.md").read_text(), re.DOTALL)
    [file] = [block for block in blocks if f"# {name}\n" in block]
    return file


def test_the_network_in_the_documentation_is_trained_and_evaluated(configured, command, tmp_path):
    (tmp_path / "networks" / "mlp.py").write_text(shown_file("cifar10/models/networks/mlp.py"))
    (tmp_path / "conf" / "model" / "mlp.yaml").write_text(shown_file("conf/model/mlp.yaml"))
    settings = ["model.network.hidden=8", "hydra.run.dir=run", "+trainer.limit_train_batches=1"]
    assert configured(*settings) == 0, command.err
    assert "mlp: 24,674 parameters" in command.out  # 3,072 x 8 + 8 and 8 x 10 + 10
    assert command("evaluate.py", "run=run") == 0, command.err
    checkpoint = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["network"] == {"_target_": MLP, "hidden": 8}


def test_an_experiment_without_a_recipe_for_the_model_says_so(configured, command, tmp_path):
    few, warning = ["+trainer.limit_train_batches=1", "trainer.max_epochs=1"], "has no recipe for model=mlp"
    assert configured("experiment=overnight", "hydra.run.dir=without", *few) == 0, command.err
    assert f"experiment=overnight {warning}" in command.out
    (tmp_path / "conf" / "recipe").mkdir()
    (tmp_path / "conf" / "recipe" / "overnight_mlp.yaml").write_text("# @package _global_\nmodel: {lr: 0.01}\n")
    assert configured("experiment=overnight", "hydra.run.dir=with", *few) == 0, command.err
    assert warning not in command.out and "lr: 0.01" in (tmp_path / "with" / ".hydra" / "config.yaml").read_text()
    assert configured("hydra.run.dir=plain", *few) == 0, command.err
    assert warning not in command.out


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ("+model.network.hiden=8", "model.network.hiden: MLP has no such setting; it has: hidden"),
        ("model.network.hidden=many", "model.network.hidden=many: must be a whole number"),
        ("model.network.hidden=0", "model.network.hidden=0: must be at least 1"),
        ("~model.network.hidden", "model.network.hidden: must be given; MLP has no default for it"),
        (f"model.network._target_={MLP[:-3]}Unchecked", "model.network: dropout probability has to be"),
    ],
)
def test_a_mistake_in_a_networks_own_settings_is_one_line(configured, command, setting, answer):
    assert configured(setting) == 1
    assert command.err.startswith(f"error: {answer}") and len(command.err.splitlines()) == 1, command.err


def test_image_size_is_passed_only_to_a_network_that_takes_it(mlp):
    images = torch.rand(2, 3, 40, 40)
    assert ScratchClassifier(list("abc"), {"_target_": POOLED}, image_size=40)(images).shape == (2, 3)
    assert ScratchClassifier(list("abc"), {"_target_": MLP, "hidden": 4}, image_size=40)(images).shape == (2, 3)


@pytest.mark.parametrize(
    "name",
    [None, "", 3, "CNN", "torch.nn.Linear", "os.system", "cifar10.models.networks", "cifar10.models.networks.cnn",
     "cifar10.models.networks.cnn.nn.Linear", "cifar10.models.networks.cnn.torch", "cifar10.models.networks.cnn.Tensor",
     "cifar10.models.networks.cnn.smallest_side", "cifar10.models.networks.cnn.torch.hub.load",
     "cifar10.models.networks.nothing.CNN",
     "cifar10.models.networks..cnn.CNN", "cifar10.models.networks_of_mine.CNN", "cifar10.models.scratch.nn.Linear",
     "cifar10.models.networks.mlp.function", "cifar10.models.networks.mlp.nothing"],
)  # fmt: skip
def test_only_a_network_of_the_package_can_be_named(mlp, name):
    with pytest.raises(ValueError, match=r"^network\._target_=.*cifar10/models/networks/") as caught:
        ScratchClassifier(list("abc"), {"_target_": name})
    assert "\n" not in str(caught.value)


def test_a_module_elsewhere_is_not_imported_for_a_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="must name"):
        ScratchClassifier(list("abc"), {"_target_": "elsewhere.Net"})
    assert not Path("imported").exists()


def test_a_missing_import_of_the_networks_own_file_keeps_its_traceback(mlp, tmp_path):
    (tmp_path / "networks" / "mlp.py").write_text("import no_such_package")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        ScratchClassifier(list("abc"), {"_target_": MLP})


def test_the_settings_given_stay_as_they_are():
    network = KERAS_CNN | {"widths": [4]}
    model = ScratchClassifier(list("abc"), network)
    assert network == KERAS_CNN | {"widths": [4]} == model.hparams["network"]


def test_networks_need_torch_alone():
    script = (
        "import sys, pkgutil, importlib; from cifar10.models import networks;"
        "[importlib.import_module(f'{networks.__name__}.{m.name}') for m in pkgutil.iter_modules(networks.__path__)];"
        "assert not {'pytorch_lightning', 'timm', 'omegaconf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
