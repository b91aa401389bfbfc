"""ClosedFormHead: phase 1's head is that of scikit-learn's linear discriminant analysis, whatever the batches."""

import pytest
import pytorch_lightning as pl
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from cifar10.callbacks.averaging import EMA
from cifar10.callbacks.closed_form_head import ClosedFormHead, discriminants
from cifar10.callbacks.feature_caching import FeatureCaching
from cifar10.callbacks.two_phase import TwoPhaseFineTuning
from cifar10.errors import UserError
from tests.callbacks.test_two_phase import build, fit


def sums_of(features, labels, classes):
    shares = torch.nn.functional.one_hot(labels, classes).double()
    return shares.sum(0), shares.T @ features, features.T @ features


def test_the_head_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    features = torch.randn(300, 8, generator=generator, dtype=torch.double) + 2 * torch.nn.functional.one_hot(labels, 8)
    weight, bias = discriminants(*sums_of(features, labels, 3), shrinkage=0.0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(features.numpy(), labels.numpy())
    expected = torch.from_numpy(theirs.predict_proba(features.numpy()))
    torch.testing.assert_close((features @ weight.T + bias).softmax(1), expected, atol=1e-5, rtol=0)


def test_full_shrinkage_leaves_the_distances_to_the_classes_means():
    labels = torch.arange(60) % 2
    features = torch.randn(60, 5, dtype=torch.double) + 3 * torch.nn.functional.one_hot(labels, 5)
    weight, _ = discriminants(*sums_of(features, labels, 2), shrinkage=1.0)
    between = features[labels == 0].mean(0) - features[labels == 1].mean(0)
    assert torch.cosine_similarity(weight[0] - weight[1], between, 0) == pytest.approx(1)


def test_a_class_without_images_is_never_predicted():
    features, labels = torch.randn(60, 5, dtype=torch.double), torch.arange(60) % 2
    weight, bias = discriminants(*sums_of(features, labels, 3), shrinkage=0.1)
    assert (features @ weight.T + bias).argmax(1).max() == 1


def heads(datamodule, batch_size, views, epochs=1, others=()):
    datamodule.batch_size = batch_size
    model = build(datamodule)
    callbacks = [
        TwoPhaseFineTuning(head_epochs=epochs, patience=None),
        ClosedFormHead(0.5),
        FeatureCaching(views),
        *others,
    ]
    trainer = fit(model, datamodule, epochs, *callbacks)
    return model.head.state_dict(), trainer.callback_metrics


def test_the_batches_do_not_change_it(datamodule):
    datamodule.augmentation = type(datamodule.augmentation)()
    (first, _), (other, _) = heads(datamodule, 32, 0), heads(datamodule, 7, 0)
    torch.testing.assert_close(other["1.weight"], first["1.weight"], rtol=1e-2, atol=1e-2)


def test_validation_sees_the_solved_head_also_with_an_average(datamodule):
    plain = heads(datamodule, 32, 1)[1]["val/loss"]
    assert heads(datamodule, 32, 1, others=[EMA(decay=0.9)])[1]["val/loss"] == plain


def test_a_resumed_run_goes_on_with_what_it_has_seen(datamodule, tmp_path):
    def callbacks():
        return [TwoPhaseFineTuning(head_epochs=2, patience=None), ClosedFormHead(), FeatureCaching(1)]

    model = build(datamodule)
    trainer = fit(model, datamodule, 2, *callbacks())
    half = build(datamodule)
    fit(half, datamodule, 1, *callbacks()).save_checkpoint(tmp_path / "half.ckpt")
    resumed = build(datamodule)
    again = pl.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=callbacks(), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    again.fit(resumed, datamodule, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    torch.testing.assert_close(resumed.head.state_dict(), model.head.state_dict())
    assert again.callback_metrics["val/loss"] == trainer.callback_metrics["val/loss"]


class ScaledRows(pl.Callback):
    """How large the head's weights are as each validation begins."""

    def __init__(self):
        self.norms = []

    def on_validation_epoch_start(self, trainer, pl_module):
        self.norms.append(float(pl_module.head[1].weight.norm()))


@pytest.mark.parametrize("how", [{"max_steps": 2}, {"val_check_interval": 2}], ids=str)
def test_whatever_is_validated_is_the_solved_head(datamodule, how):
    seen, model = ScaledRows(), build(datamodule)
    phases = TwoPhaseFineTuning(head_epochs=1, patience=None)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[phases, ClosedFormHead(0.5, scale=1e-6), seen], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        **how,
    )  # fmt: skip
    trainer.fit(model, datamodule)
    assert max([*seen.norms, model.head[1].weight.norm().item()]) < 1e-2, "training's own would be near 1"


def test_weights_of_classes_count_their_images_as_so_many(datamodule):
    features, targets = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 1, 1])
    shares, twice = (torch.nn.functional.one_hot(targets, 2) * torch.tensor(weights) for weights in ([2, 1], [1, 1]))
    weighted, repeated = ClosedFormHead(), ClosedFormHead()
    weighted.add(features, shares)
    repeated.add(torch.cat([features, features[:2]]), torch.cat([twice, twice[:2]]))
    torch.testing.assert_close(weighted.sums, repeated.sums)


def test_a_finished_phase_leaves_no_sums_in_the_checkpoint(datamodule):
    closed_form = ClosedFormHead()
    fit(build(datamodule), datamodule, 1, TwoPhaseFineTuning(head_epochs=1, patience=None), closed_form)
    assert closed_form.state_dict() == {"sums": {}}


@pytest.mark.parametrize(
    ("phases", "message"),
    [([], "no frozen phase without callbacks.two_phase"), ([TwoPhaseFineTuning(head_epochs=0)], "head_epochs=0")],
)
def test_without_a_frozen_phase_it_is_refused_in_a_line(datamodule, phases, message):
    with pytest.raises(UserError, match=message):
        fit(build(datamodule), datamodule, 1, *phases, ClosedFormHead())


@pytest.mark.parametrize("setting", [{"shrinkage": -0.1}, {"shrinkage": 1.1}, {"scale": 0.0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))}="):
        ClosedFormHead(**setting)
