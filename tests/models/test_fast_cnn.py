"""The network that learns in few epochs, and its optimizer: each part does what its paper says."""

from copy import deepcopy as copy_of

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from cifar10.errors import UserError
from cifar10.models.efficientnet import EfficientNet
from cifar10.models.networks.fast_cnn import FastCNN
from cifar10.models.optimizers import Muon
from cifar10.models.scratch import ScratchClassifier
from tests.conftest import TINY_BACKBONE

NAMES = ["cat", "dog", "frog", "ship"]
FAST = {"_target_": "cifar10.models.networks.fast_cnn.FastCNN", "widths": [4, 4, 4]}


def images(count=64, side=32):
    """Smooth random images, whose neighbouring pixels are alike as those of pictures are."""
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, (side, side), mode="bilinear")


def test_the_whitened_components_are_uncorrelated_and_of_equal_size():
    network, at_once = FastCNN(), FastCNN()
    network.start_from(images().split(10))
    at_once.start_from([images()])
    assert torch.allclose(network.whiten.weight, at_once.whiten.weight, rtol=1e-3, atol=1e-3)
    components = network.whiten(images())[:, :12].transpose(0, 1).flatten(1).double()
    covariance = components @ components.T / components.shape[1]
    assert torch.allclose(covariance.diag().amax(), torch.ones((), dtype=torch.double), atol=0.05)
    assert (covariance - covariance.diag().diag()).abs().max() < 0.01
    assert torch.equal(network.whiten(images())[:, 12:], -network.whiten(images())[:, :12])


def test_without_whitening_the_first_layer_learns_and_starts_at_random():
    network = FastCNN(whitening=False)
    before = network.whiten.weight.clone()
    network.start_from([images()])
    assert torch.equal(network.whiten.weight, before)
    assert network.whiten.weight.requires_grad and not FastCNN().whiten.weight.requires_grad


def test_a_new_convolution_hands_on_its_inputs():
    given = torch.rand(2, 64, 8, 8)
    handed_on, random = (FastCNN(identity_init=kept).blocks[1].convolutions[0](given) for kept in (True, False))
    assert handed_on.shape == (2, 256, 8, 8)
    assert torch.allclose(handed_on[:, :64], given) and not torch.allclose(random[:, :64], given)


@pytest.mark.parametrize("side", [9, 24, 32, 64])
@pytest.mark.parametrize("convolutions", [1, 2, 3])
def test_any_image_size_from_9_pixels_gives_logits(side, convolutions):
    network = FastCNN(num_classes=7, widths=(8, 8, 8), convolutions=convolutions)
    assert network(torch.rand(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("image_size", 8),
        ("widths", []),
        ("widths", [0, 4]),
        ("convolutions", 0),
        ("activation", "tanh"),
        ("logit_scale", 0),
    ],
)
def test_an_impossible_setting_is_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"^{setting}="):
        FastCNN(**{setting: value})


def filters(shape=(8, 4, 3, 3)):
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))


def test_a_step_of_the_filters_is_close_to_orthogonal_whatever_the_gradient():
    weight = filters()
    optimizer = Muon([weight], lr=0.1, steps=5)
    for size in (1e-6, 1.0, 1e6):
        weight.grad = size * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
        scaled = weight.detach() * len(weight) ** 0.5 / weight.detach().norm()
        optimizer.state.clear()
        optimizer.step()
        step = (scaled - weight.detach()).flatten(1) / 0.1
        singular = torch.linalg.svdvals(step)
        assert singular.min() > 0.5 and singular.max() < 1.3


def test_everything_else_steps_as_nesterov_sgd_does():
    weights, biases = torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(3))
    expected = [torch.nn.Parameter(each.detach().clone()) for each in (weights, biases)]
    ours = Muon([filters(), weights, biases], lr=0.1, weight_decay=0.01)
    sgd = torch.optim.SGD(expected, lr=0.1, momentum=0.85, nesterov=True, weight_decay=0.01)
    for number in range(3):
        for one, other in zip((weights, biases), expected, strict=True):
            one.grad = other.grad = torch.full_like(one, number + 1.0)
        ours.step()
        sgd.step()
    assert torch.equal(weights, expected[0]) and torch.equal(biases, expected[1])


def test_gradients_are_there_after_a_step_and_its_momentum_survives_saving():
    weight, copy = filters(), filters()
    ours, loaded = Muon([weight], lr=0.1), Muon([copy], lr=0.1)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        ours.step()
    assert torch.equal(weight.grad, torch.ones_like(weight))
    copy.data.copy_(weight.data)
    loaded.load_state_dict(copy_of(ours.state_dict()))
    for each, optimizer in ((weight, ours), (copy, loaded)):
        each.grad = torch.randn(each.shape, generator=torch.Generator().manual_seed(3))
        optimizer.step()
    assert torch.equal(weight, copy)


def model(**options):
    return ScratchClassifier(NAMES, FAST, **{"optimizer": "muon", "lr": 0.2, "head_lr": 3.0, "bias_lr": 40.0} | options)


def test_convolutions_matrices_and_vectors_have_learning_rates_of_their_own():
    ours = model()
    roles = {
        id(parameter): group["role"]
        for group in ours.configure_optimizers()["optimizer"].param_groups
        for parameter in group["params"]
    }
    assert ours.peak_rates() == {"filters": 0.2, "head": 3.0, "biases": 40.0}
    expected = {4: "filters", 2: "head", 1: "biases"}
    assert roles == {id(parameter): expected[parameter.ndim] for parameter in ours.parameters()}
    assert model(head_lr=None).peak_rates()["head"] == 0.2
    assert model(head_lr=None, bias_lr=None).peak_rates() == {"network": 0.2}


@pytest.mark.parametrize("name", ["head_lr", "bias_lr"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_learning_rate_that_makes_no_sense_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        model(**{name: value})


def test_pretrained_filters_are_not_given_to_muon():
    with pytest.raises(ValueError, match=r"^optimizer=muon: .*pretrained"):
        EfficientNet(NAMES, backbone=TINY_BACKBONE, pretrained=False, image_size=64, optimizer="muon")


def fit(datamodule, folder, epochs, resume=None):
    ours = ScratchClassifier(datamodule.class_names, FAST, optimizer="muon", lr=0.2, head_lr=3.0, schedule="linear")
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(ours, datamodule, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return ours


def test_training_begins_from_whitened_images_which_stay_as_they_are(datamodule, tmp_path):
    torch.manual_seed(0)
    ours = fit(datamodule, tmp_path, 1)
    images = datamodule.loaded["train"][0][datamodule.indices["train"]]
    again = FastCNN(widths=(4, 4, 4))
    again.start_from(ours.preprocessing(part) for part in images.split(100))
    assert torch.equal(ours.network.whiten.weight, again.whiten.weight)


def test_a_trained_network_keeps_its_first_layer_when_it_is_trained_on(datamodule, tmp_path):
    fit(datamodule, tmp_path, 1)
    loaded = ScratchClassifier.load_from_checkpoint(tmp_path / "1.ckpt", weights_only=True)
    loaded.network.whiten.weight.data.fill_(0.5)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(loaded, datamodule)
    assert (loaded.network.whiten.weight == 0.5).all()


def test_without_training_images_to_start_from_it_is_refused_in_a_line(tmp_path):
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))
    )
    with pytest.raises(UserError, match=r"^FastCNN starts from training images: use CIFAR10DataModule$"):
        trainer.fit(ScratchClassifier(list("ab"), FAST), batches)
    trainer.fit(ScratchClassifier(list("ab"), {**FAST, "whitening": False}), batches)  # which needs none


def test_a_checkpoint_predicts_as_the_model_does(datamodule, tmp_path):
    ours = fit(datamodule, tmp_path, 1).eval()
    loaded = ScratchClassifier.load_from_checkpoint(tmp_path / "1.ckpt", weights_only=True).eval()
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded(pixels), ours(pixels))
