"""What both LightningModules promise: gradients, learning rates, optimizer groups, refusals and checkpoints."""

import math
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import multiclass_f1_score

from cifar10.models.classifier import ImageClassifier
from cifar10.models.efficientnet import EfficientNet
from cifar10.models.learning_rates import SCHEDULES, Schedule
from cifar10.models.metrics import ClassificationMetrics
from cifar10.models.networks.build import KERAS_CNN
from cifar10.models.scratch import ScratchClassifier

NAMES = ["cat", "dog", "frog", "ship"]
TINY = "test_efficientnet.r160_in1k"  # timm's own test model, 99,196 parameters
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in ("You are trying to `self.log", "no `val_dataloader`", "does not have many workers", "LeafSpec")
]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def scratch_cnn(**options):
    own = {key: options.pop(key) for key in ("widths", "hidden", "dropout") if key in options}
    return ScratchClassifier(NAMES, KERAS_CNN | own, **options)


def efficientnet(**options):
    return EfficientNet(NAMES, **{"backbone": TINY, "pretrained": False, "image_size": 64} | options)


both = pytest.mark.parametrize("build", [scratch_cnn, efficientnet])


def batch_for(model, count=8):
    size = model.preprocessing.image_size
    return torch.rand(count, 3, size, size), torch.arange(count) % len(NAMES)


def fit(model, batches, tmp_path, callbacks=(), epochs=1):
    """Train on the batches given, as `train.py` would."""
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(batches, batch_size=None))
    return trainer


class RatesSeen(pl.Callback):
    """The learning rate of each group, by role, as the optimizer stepped with it."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append({group["role"]: group["lr"] for group in optimizer.param_groups})


# the steps


@both
def test_every_parameter_gets_a_gradient(build):
    model = build()
    model.training_step(batch_for(model), 0).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_one_small_batch_can_be_overfitted():
    model = scratch_cnn()
    batch = batch_for(model, 16)
    optimizer = model.configure_optimizers()["optimizer"]
    for step in range(120):
        optimizer.zero_grad()
        model.training_step(batch, step).backward()
        optimizer.step()
    with torch.no_grad():
        assert F.cross_entropy(model.eval()(batch[0]), batch[1]) < 0.05


@both
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_is_the_smoothed_cross_entropy_of_labels_or_of_class_probabilities(build, label_smoothing):
    model = build(label_smoothing=label_smoothing, dropout=0.0).eval()
    images, labels = batch_for(model)
    one_hot = F.one_hot(labels, len(NAMES)).float()
    with torch.no_grad():
        log_probabilities = model(images).log_softmax(1)
        for targets, wanted in ((labels, one_hot), (0.75 * one_hot + 0.25 * one_hot.flip(0),) * 2):
            smoothed = wanted * (1 - label_smoothing) + label_smoothing / len(NAMES)
            expected = -(smoothed * log_probabilities).sum(1).mean()
            torch.testing.assert_close(model.training_step((images, targets), 0), expected)


@both
def test_logits_and_labels_come_out_of_prediction_in_order(build):
    model = build().eval()
    images, labels = batch_for(model)
    with torch.no_grad():
        logits, out_labels = model.predict_step((images, labels), 0)
        assert logits.shape == (8, len(NAMES)) and logits.dtype == torch.float32
        assert torch.equal(logits, model(images)) and torch.equal(out_labels, labels)


# several GPUs


@pytest.mark.parametrize(("world_size", "device", "wanted", "converted"), [
    (2, "cuda", True, True), (1, "cuda", True, False), (2, "cpu", True, False), (2, "cuda", False, False),
])  # fmt: skip
def test_batch_normalisation_is_synchronised_over_several_gpus_and_stays_what_it_was(
    world_size, device, wanted, converted
):
    model = efficientnet()
    images, _ = batch_for(model)
    keys, expected = list(model.state_dict()), model.eval()(images)
    parameters = {id(parameter) for parameter in model.parameters()}
    strategy = SimpleNamespace(root_device=torch.device(device))
    trainer = SimpleNamespace(world_size=world_size, strategy=strategy, datamodule=None)
    model.trainer, model.sync_batchnorm = trainer, wanted
    model.setup("fit")
    kinds = {type(module).__name__ for module in model.modules() if "BatchNorm" in type(module).__name__}
    assert kinds == ({"SyncBatchNormAct"} if converted else {"BatchNormAct2d"})
    assert list(model.state_dict()) == keys and {id(parameter) for parameter in model.parameters()} == parameters
    torch.testing.assert_close(model(images), expected)  # with its activations


# learning rates


@pytest.mark.parametrize("step", [0, 1, 50, 99])
def test_a_constant_rate_is_its_peak_at_every_step(step):
    assert Schedule({"head": 0.3, "backbone": 0.1}, 0, 100).at(step) == {"head": 0.3, "backbone": 0.1}


@pytest.mark.parametrize(
    ("step", "factor"), [(10, 1.0), (35, 0.8535533906), (60, 0.5), (85, 0.1464466094), (110, 0.0), (500, 0.0)]
)
def test_the_cosine_goes_from_the_peak_to_zero_over_its_own_steps(step, factor):
    assert Schedule({"head": 0.2}, 10, 110, "cosine").at(step)["head"] == pytest.approx(0.2 * factor, abs=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(("step", "factor"), [(0, 1 / 11), (4, 5 / 11), (9, 10 / 11), (10, 1.0)])
def test_the_warm_up_climbs_in_equal_steps_and_reaches_the_peak(schedule, step, factor):
    rates = Schedule({"head": 0.2}, 0, 100, schedule, warmup=0.1)
    assert rates.at(step)["head"] == pytest.approx(0.2 * factor)
    assert max(rates.at(each)["head"] for each in range(100)) == pytest.approx(0.2)


def test_the_cosine_takes_what_the_warm_up_leaves():
    rates = Schedule({"head": 1.0}, 0, 100, "cosine", warmup=0.2)
    assert [rates.at(step)["head"] for step in (20, 60, 100)] == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.33, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_no_step_is_wasted_at_zero_and_none_exceeds_the_peak(schedule, warmup, steps):
    rates = Schedule({"head": 0.5}, 30, 30 + steps, schedule, warmup)
    seen = [rates.at(step)["head"] for step in range(30, 30 + steps)]
    assert all(0 < rate <= 0.5 for rate in seen)
    if warmup == 0:
        assert seen[0] == 0.5


def test_a_phase_without_steps_does_not_divide_by_zero():
    assert Schedule({"head": 0.5}, 7, 7, "cosine").at(7) == {"head": 0.5}


@both
def test_a_run_steps_with_the_rates_of_its_schedule(build, tmp_path):
    model, seen = build(lr=0.01, schedule="cosine", warmup=0.25), RatesSeen()
    fit(model, [batch_for(model)] * 4, tmp_path, [seen], epochs=2)
    wanted = Schedule({"any": 0.01}, 0, 8, "cosine", 0.25)
    assert [set(rates.values()) for rates in seen.steps] == [{wanted.at(step)["any"]} for step in range(8)]


def test_groups_that_are_not_named_rest_at_zero(tmp_path):
    model, seen = efficientnet(optimizer="sgd"), RatesSeen()
    model.followed = Schedule({"head": 0.1}, 0, 2)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    fit(model, [batch_for(model)] * 2, tmp_path, [seen])
    assert seen.steps == [{"head": 0.1, "backbone": 0.0}] * 2
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if name.startswith("head.")}


def test_a_schedule_is_added_by_a_function_and_a_row(tmp_path, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "linear", lambda done, total: 1 - done / total)
    model, seen = scratch_cnn(lr=0.1, schedule="linear"), RatesSeen()
    fit(model, [batch_for(model)] * 4, tmp_path, [seen])
    assert [rates["network"] for rates in seen.steps] == pytest.approx([0.1, 0.075, 0.05, 0.025])


# the optimizer


@both
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_parameter_is_in_one_group_and_vectors_have_no_weight_decay(build, optimizer):
    model = build(optimizer=optimizer, weight_decay=0.05)
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)  # frozen ones have their place too
    groups = model.configure_optimizers()["optimizer"].param_groups
    placed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(placed) == len(set(placed))
    assert set(placed) == {id(parameter) for parameter in model.parameters()}
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0)
    assert len({group["name"] for group in groups}) == len(groups)


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_the_optimizer_is_the_one_that_was_asked_for(name, kind):
    optimizer = scratch_cnn(optimizer=name).configure_optimizers()["optimizer"]
    assert type(optimizer) is kind
    assert name != "sgd" or (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.9, True)


def test_head_and_backbone_are_groups_of_their_own():
    model = efficientnet()
    roles = {
        id(p): group["role"]
        for group in model.configure_optimizers()["optimizer"].param_groups
        for p in group["params"]
    }
    assert {roles[id(parameter)] for parameter in model.head.parameters()} == {"head"}
    assert {roles[id(parameter)] for parameter in model.backbone.parameters()} == {"backbone"}


# refusals


@both
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", "lion"),
        ("schedule", "step"),
        ("lr", -1e-3),
        ("lr", 0.0),
        ("lr", math.inf),
        ("lr", math.nan),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("warmup", 1.0),
        ("warmup", -0.1),
        ("weight_decay", -0.01),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_one_line(build, key, value):
    with pytest.raises(ValueError, match=rf"^{key}={value}: ") as caught:
        build(**{key: value})
    assert "\n" not in str(caught.value)


def test_a_cnn_too_deep_for_the_image_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^image_size=21: .*\b22\b") as caught:
        scratch_cnn(image_size=21)
    assert "\n" not in str(caught.value)


# checkpoints


def weights_file(path):
    """A file of random weights for the tiny backbone."""
    save_file(timm.create_model(TINY, pretrained=False, num_classes=0).state_dict(), path)
    return path


@both
def test_a_checkpoint_brings_everything_back_bit_by_bit(build, tmp_path, monkeypatch):
    options = {"image_size": 40, "dropout": 0.1, "lr": 0.02, "optimizer": "sgd", "label_smoothing": 0.1, "warmup": 0.5}
    if build is scratch_cnn:
        options |= {"widths": [8, 16], "hidden": 20}
    else:
        options |= {"weights": str(weights_file(tmp_path / "weights.safetensors")), "pretrained": True}
    model = build(**options)
    trainer = fit(model, [batch_for(model)] * 2, tmp_path)
    trainer.save_checkpoint(tmp_path / "best.ckpt")

    (tmp_path / "weights.safetensors").unlink(missing_ok=True)
    create_model = timm.create_model

    def offline(*args, pretrained=False, **options):
        assert not pretrained, "the checkpoint asks for a download"
        return create_model(*args, pretrained=pretrained, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    torch.manual_seed(1)
    loaded = type(model).load_from_checkpoint(tmp_path / "best.ckpt", map_location="cpu", weights_only=True)
    images, _ = batch_for(model)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), model.eval()(images))
    assert loaded.preprocessing.settings == model.preprocessing.settings
    assert loaded.preprocessing.image_size == 40 and loaded.class_names == NAMES
    for setting in ("lr", "optimizer_name", "weight_decay", "label_smoothing", "schedule", "warmup"):
        assert getattr(loaded, setting) == getattr(model, setting)


@pytest.mark.parametrize(
    ("backbone", "mean", "interpolation"),
    [(TINY, 0.485, "bicubic"), ("test_convnext.r160_in1k", 0.5, "bicubic"), ("test_resnet.r160_in1k", 0.5, "bilinear")],
)
def test_preprocessing_survives_a_checkpoint_also_where_the_image_size_was_left_to_the_weights(
    backbone, mean, interpolation, tmp_path
):
    model = efficientnet(backbone=backbone, image_size=None)
    checkpoint = {
        "state_dict": model.state_dict(),
        "pytorch-lightning_version": pl.__version__,
        ImageClassifier.CHECKPOINT_HYPER_PARAMS_KEY: dict(model.hparams),
    }
    torch.save(checkpoint, tmp_path / "best.ckpt")
    loaded = EfficientNet.load_from_checkpoint(tmp_path / "best.ckpt", map_location="cpu", weights_only=True)
    assert loaded.preprocessing.settings == model.preprocessing.settings
    assert (loaded.preprocessing.image_size, loaded.preprocessing.mean[0]) == (160, mean)
    assert loaded.preprocessing.interpolation == interpolation


@both
def test_the_settings_in_a_checkpoint_are_plain_values(build):
    plain = (str, int, float, bool, type(None), list, tuple)
    hparams = dict(build().hparams)
    values = [*hparams.pop("network", {}).values(), *hparams.values()]
    assert all(isinstance(value, plain) for value in values)


# metrics, summed on the device and logged once an epoch


def test_the_metrics_are_those_of_all_images_whatever_the_batches():
    torch.manual_seed(0)
    logits, labels, metrics = torch.randn(50, 4), torch.randint(0, 4, (50,)), ClassificationMetrics(4)
    for part in torch.arange(50).split(7):
        metrics.update(F.cross_entropy(logits[part], labels[part]), logits[part], labels[part])
    found = metrics.compute()
    torch.testing.assert_close(found["loss"], F.cross_entropy(logits, labels))
    assert float(found["acc"]) == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert metrics.confusion.tolist() == confusion_matrix(labels, logits.argmax(1), labels=range(4)).tolist()
    metrics.reset()
    assert not metrics.confusion.any()


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@settings(max_examples=100, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_macro_f1_and_balanced_accuracy_are_scikit_learns_and_torchmetrics(pairs):
    labels, predictions = torch.tensor(pairs).T
    metrics = ClassificationMetrics(5)
    metrics.update(torch.tensor(0.0), F.one_hot(predictions, 5).float(), labels)
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predictions, average="macro"), abs=1e-6)
    assert found["macro_f1"] == pytest.approx(float(multiclass_f1_score(predictions, labels, 5)), abs=1e-6)
    assert found["balanced_acc"] == pytest.approx(balanced_accuracy_score(labels, predictions), abs=1e-6)


def test_the_metrics_hold_no_graph():
    metrics, logits = ClassificationMetrics(2), torch.randn(3, 2, requires_grad=True)
    metrics.update(F.cross_entropy(logits, torch.zeros(3).long()), logits, torch.zeros(3).long())
    assert not any(value.requires_grad for value in metrics.compute().values())


def test_metrics_go_on_from_the_sums_of_a_checkpoint():
    logits, labels = torch.randn(20, 3), torch.randint(0, 3, (20,))
    whole, first, second = (ClassificationMetrics(3) for _ in range(3))
    for metrics, part in ((whole, slice(0, 20)), (first, slice(0, 12))):
        metrics.update(F.cross_entropy(logits[part], labels[part]), logits[part], labels[part])
    second.restore(first.sums())
    second.update(F.cross_entropy(logits[12:], labels[12:]), logits[12:], labels[12:])
    torch.testing.assert_close(second.compute(), whole.compute())


@both
def test_raw_pixels_and_preprocessed_images_give_the_same_logits(build):
    model = build().eval()
    pixels = torch.randint(0, 256, (3, 3, 50, 44), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(model(pixels), model(model.preprocessing(pixels)))


def test_a_compiled_network_keeps_its_keys_and_its_output():
    model = scratch_cnn(widths=(4, 4, 4), hidden=8).eval()
    images, keys = torch.randn(2, 3, 32, 32), list(model.state_dict())
    expected = model(images)
    model.compile_network("default")
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
