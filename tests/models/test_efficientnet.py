"""The pretrained backbone: its blocks, its head, its weights files, and what is said where something does not fit."""

import copy
import json
import math
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from cifar10.models.backbones import count_features
from cifar10.models.efficientnet import EfficientNet

NAMES = [f"class {number}" for number in range(10)]
B0 = "tf_efficientnet_b0.in1k"
TINY = "test_efficientnet.r160_in1k"  # timm's own test model, 99,196 parameters


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def b0():
    """EfficientNet-B0 with random weights; read-only by agreement."""
    return EfficientNet(NAMES, B0, pretrained=False)


def build(backbone=TINY, **options):
    return EfficientNet(NAMES, backbone, **{"pretrained": False, "image_size": 64} | options)


def refusal(*words, **options):
    """The message that `build` refuses with, one line that holds the words."""
    with pytest.raises(ValueError) as caught:
        build(**options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# the network


def test_b0_has_a_stem_and_16_whole_blocks_in_order(b0):
    names = {id(parameter): name for name, parameter in b0.backbone.named_parameters()}
    blocks = [[names[id(parameter)] for parameter in block] for block in b0.backbone_blocks()]
    assert len(blocks) == 17
    assert {name.split(".")[0] for name in blocks[0]} == {"conv_stem", "bn1"}
    depths = enumerate((1, 2, 2, 3, 3, 4, 1))
    prefixes = [f"blocks.{stage}.{block}." for stage, depth in depths for block in range(depth)]
    for prefix, block in zip(prefixes, blocks[1:], strict=True):
        own = {name for name in block if name.startswith(prefix)}
        assert own == {name for name in names.values() if name.startswith(prefix)}
        assert set(block) - own == ({"conv_head.weight", "bn2.weight", "bn2.bias"} if prefix == prefixes[-1] else set())


@pytest.mark.parametrize("backbone", [B0, TINY, "test_convnext", "test_resnet", "test_vit"])
def test_every_backbone_parameter_is_in_exactly_one_block(backbone):
    model = build(backbone, image_size=None)
    placed = [id(parameter) for block in model.backbone_blocks() for parameter in block]
    assert len(placed) == len(set(placed))
    assert set(placed) == {id(parameter) for parameter in model.backbone.parameters()}
    assert all(model.backbone_blocks())


def test_the_head_is_dropout_and_a_linear_layer(b0):
    dropout, linear = b0.head
    assert isinstance(dropout, nn.Dropout) and dropout.p == 0.3
    assert isinstance(linear, nn.Linear) and (linear.in_features, linear.out_features) == (1280, 10)
    assert sum(parameter.numel() for parameter in b0.head.parameters()) == 12_810


def test_b0_with_ten_classes_has_no_parameters_but_those_of_backbone_and_head(b0):
    assert sum(parameter.numel() for parameter in b0.parameters()) == 4_007_548 + 12_810


@pytest.mark.parametrize("image_size", [32, 40, 64])
@pytest.mark.parametrize("backbone", [TINY, "test_convnext", "test_resnet"])
def test_logits_have_one_row_an_image_and_one_column_a_class(backbone, image_size):
    model = build(backbone, image_size=image_size).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, image_size, image_size)).shape == (2, 10)


# num_features, head_hidden_size or group_matcher of some of these would mislead; each is of another family
FAMILIES = ["mobilenetv3_small_050", "mobilenetv4_conv_small_035", "vgg11", "lcnet_050", "ghostnet_050", "hgnet_small",
            "inception_next_atto", "repghostnet_050", "efficientvit_b0", "cpubone_nano", "caformer_s18", "pit_ti_224",
            "csatv2", "resnet18", "regnetx_002", "densenet121", "convnext_atto", "swin_tiny_patch4_window7_224",
            "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224", "mixer_s32_224",
            "test_nfnet", "test_mambaout", "inception_v3"]  # fmt: skip


@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_family_of_timm_makes_logits_and_every_parameter_is_in_one_block(backbone):
    with torch.device("meta"):  # shapes alone: nothing is computed
        model = build(backbone, image_size=None).eval()
        side = model.preprocessing.image_size
        assert model(torch.rand(2, 3, side, side)).shape == (2, 10)
    blocks = model.backbone_blocks()
    placed = [id(parameter) for block in blocks for parameter in block]
    assert len(placed) == len(set(placed)) and len(blocks) > 2
    assert set(placed) == {id(parameter) for parameter in model.backbone.parameters()}


def test_counting_features_leaves_the_network_in_training_and_draws_no_random_numbers():
    network = timm.create_model(TINY, num_classes=0)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert count_features(network, TINY, 64) == 256
    assert network.training and all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_transformer_is_made_for_the_image_size_that_is_asked_for():
    with torch.no_grad():
        assert build("test_vit", image_size=96).eval()(torch.rand(2, 3, 96, 96)).shape == (2, 10)


# preprocessing is the weights' own

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3,) * 2


@pytest.mark.parametrize(
    ("backbone", "statistics", "interpolation", "image_size"),
    [
        (B0, IMAGENET, "bicubic", 224),
        ("tf_efficientnet_b0.ap_in1k", HALF, "bicubic", 224),
        (TINY, IMAGENET, "bicubic", 160),
        ("test_resnet.r160_in1k", HALF, "bilinear", 160),
    ],
)
def test_preprocessing_comes_from_the_weights_and_image_size_alone_can_be_chosen(
    backbone, statistics, interpolation, image_size
):
    own = {"image_size": image_size, "mean": statistics[0], "std": statistics[1], "interpolation": interpolation}
    for size, wanted in ((None, own), (96, own | {"image_size": 96})):
        assert wanted.items() <= build(backbone, image_size=size).preprocessing.settings.items()


# weights from a file


def backbone_state(backbone=TINY, num_classes=0):
    """What a file of the backbone's weights holds, no tensor at its initial value."""
    state = timm.create_model(backbone, pretrained=False, num_classes=num_classes).state_dict()
    return {key: torch.rand_like(value) if value.is_floating_point() else value + 7 for key, value in state.items()}


def save(state, path):
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return str(path)


def holds(model, state):
    own = model.backbone.state_dict()
    return own.keys() <= state.keys() and all(torch.equal(own[key], state[key]) for key in own)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "a name with spaces.pth"])
def test_a_file_is_loaded_bit_by_bit(tmp_path, name):
    state = backbone_state()
    model = build(weights=save(state, tmp_path / name))
    assert holds(model, state) and model.backbone.state_dict().keys() == state.keys()


def test_a_file_saved_under_state_dict_is_loaded_too(tmp_path):
    state = backbone_state()
    assert holds(build(weights=save({"state_dict": state, "epoch": 3}, tmp_path / "weights.pth")), state)


def behind(prefix, state):
    return {prefix + key: value for key, value in state.items()}


WRAPPINGS = {
    "module.": lambda state: behind("module.", state),
    "model.": lambda state: behind("model.", state),
    "_orig_mod.module.": lambda state: behind("_orig_mod.module.", state),
    "model": lambda state: {"model": state, "epoch": 3},
    "model_ema": lambda state: {"model": behind("a.", state), "model_ema": state},
    "state_dict_ema": lambda state: {"state_dict": zeros(state), "state_dict_ema": state, "arch": "b0"},
    "state_dict": lambda state: {"state_dict": behind("model.backbone.", state) | {"loss.weight": torch.ones(3)}},
}


def zeros(state):
    return {key: torch.zeros_like(value) for key, value in state.items()}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_usual_wrappings_are_taken_off_and_the_log_says_which(tmp_path, caplog, wrapping):
    state = backbone_state()
    with caplog.at_level("INFO"):
        model = build(weights=save(WRAPPINGS[wrapping](state), tmp_path / "weights.pth"))
    assert holds(model, state)
    [line] = [message for message in caplog.messages if message.startswith("backbone weights from ")]
    assert wrapping in line and str(tmp_path / "weights.pth") in line


def test_weights_without_a_wrapping_are_logged_without_one(tmp_path, caplog):
    path = save(backbone_state(), tmp_path / "weights.pth")
    with caplog.at_level("INFO"):
        build(weights=path)
    assert f"backbone weights from {path}" in caplog.messages


def test_the_checkpoint_of_a_run_brings_its_backbone_but_not_its_head(tmp_path):
    trained = build()
    content = {"epoch": 1, "state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams)}
    model = EfficientNet(NAMES[:3], TINY, weights=save(content, tmp_path / "best.ckpt"), image_size=64)
    assert holds(model, trained.backbone.state_dict()) and model.head[1].out_features == 3


def test_the_checkpoint_of_another_network_is_refused_by_the_tensors_that_are_missing(tmp_path):
    path = save({"state_dict": behind("network.", backbone_state("test_resnet"))}, tmp_path / "best.ckpt")
    refusal(f"weights={path}: does not fit {TINY}", "missing", weights=path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize(
    ("backbone", "image_size"),
    [(TINY, 64), ("test_convnext", 64), ("test_vit", 160), ("deit_tiny_distilled_patch16_224", 224)],
)
def test_a_classifier_in_the_file_is_left_out(tmp_path, name, backbone, image_size):
    state = backbone_state(backbone, num_classes=1000)
    model = build(backbone, image_size=image_size, weights=save(state, tmp_path / name))
    assert holds(model, state) and model.head[1].out_features == 10


def test_a_local_file_is_enough_and_nothing_is_downloaded(tmp_path, monkeypatch):
    create_model = timm.create_model

    def offline(*args, pretrained=False, **options):
        assert not pretrained
        return create_model(*args, pretrained=pretrained, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    state = backbone_state()
    assert holds(build(pretrained=True, weights=save(state, tmp_path / "weights.pth")), state)


def test_a_file_without_the_step_counters_of_batch_normalisation_is_whole(tmp_path):
    state = {key: value for key, value in backbone_state().items() if not key.endswith("num_batches_tracked")}
    model = build(weights=save(state, tmp_path / "weights.pth"))
    assert torch.equal(model.backbone.conv_stem.weight, state["conv_stem.weight"])


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_tensors_that_are_missing_unexpected_or_reshaped_are_each_named(tmp_path, name):
    state = backbone_state()
    del state["conv_stem.weight"]
    state["stray.weight"] = torch.zeros(3)
    state["bn2.bias"] = torch.zeros(5)
    path = save(state, tmp_path / name)
    message = refusal(f"weights={path}: ", TINY, weights=path)
    missing, unexpected, reshaped = message.split("tensors ")[1].split("; ")
    assert missing == "1 missing (conv_stem.weight)" and unexpected == "1 unexpected (stray.weight)"
    assert reshaped == "1 of a different shape (bn2.bias (5,) instead of (256,))"


def test_the_weights_of_another_network_are_refused_in_one_short_line(tmp_path):
    path = save(backbone_state("test_resnet"), tmp_path / "weights.pth")
    assert len(refusal("missing", "unexpected", weights=path)) < 600


def test_a_file_that_does_not_exist_is_named(tmp_path):
    refusal(f"weights={tmp_path}/absent.pth: no such file", weights=f"{tmp_path}/absent.pth")
    refusal("no such file", weights=str(tmp_path))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights.bin"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02garbage", bytes(1000), b"<html>\nnot found\n</html>\n"])
def test_a_file_of_garbage_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refusal(f"weights={tmp_path / name}: cannot be read as weights", weights=str(tmp_path / name))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_file_cut_short_is_named(tmp_path, name):
    path = Path(save(backbone_state(), tmp_path / name))
    path.write_bytes(path.read_bytes()[:5000])
    refusal(f"weights={path}: cannot be read as weights", weights=str(path))


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.zeros(3), {}, {0: torch.zeros(3)}, {"conv_stem.weight": 1}],
    ids=["list", "tensor", "empty", "numbered", "no tensor"],
)
def test_a_file_without_tensors_by_name_is_refused(tmp_path, content):
    path = save(content, tmp_path / "weights.pth")
    refusal(f"weights={path}: ", weights=path)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_file_executes_nothing(tmp_path, legacy):
    path, marker = tmp_path / "weights.pth", tmp_path / "executed"
    state = backbone_state() | {"conv_stem.weight": Malicious(marker)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    message = refusal(f"weights={path}: ", weights=str(path))
    assert not marker.exists()
    assert "weights_only" not in message and "trust" not in message  # no advice to run it
    assert message.isprintable()
    torch.load(path, weights_only=False)
    assert marker.exists()  # it would have


def test_a_plain_pickle_executes_nothing(tmp_path):
    path, marker = tmp_path / "weights.pth", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    refusal(f"weights={path}: ", weights=str(path))
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()


# names, sizes and downloads


def test_an_unknown_backbone_is_refused_with_names_that_are_near():
    refusal("backbone=efficientnet_b99: ", " efficientnet_b", backbone="efficientnet_b99")
    refusal("backbone=tf_efficientnet: ", "tf_efficientnet_", backbone="tf_efficientnet")
    refusal("backbone=nonsense: ", backbone="nonsense")


def test_an_unknown_tag_is_refused_with_those_that_there_are():
    refusal("backbone=tf_efficientnet_b0.in99k: ", "in1k", "ns_jft_in1k", backbone="tf_efficientnet_b0.in99k")


@pytest.mark.parametrize("backbone", [B0, TINY, "test_convnext", "test_resnet"])
@pytest.mark.parametrize("image_size", [31, 1, 0, -5])
def test_an_image_below_the_minimum_is_refused_and_the_minimum_named(backbone, image_size):
    refusal(f"image_size={image_size}: ", "at least 32 pixels", backbone=backbone, image_size=image_size)


@pytest.mark.parametrize(
    ("backbone", "image_size"), [("inception_v3", 64), ("test_vit", 40), ("crossvit_9_240", 96), (TINY, 2**64)]
)
def test_an_image_size_that_the_backbone_cannot_take_is_refused_in_one_line(backbone, image_size):
    with torch.device("meta"):
        refusal(f"image_size={image_size}: {backbone} cannot take this size", backbone=backbone, image_size=image_size)


def local_folder(folder, architecture):
    """A folder as `timm.models.save_for_hf` writes it, with statistics of its own."""
    config = timm.create_model(architecture, num_classes=10).default_cfg | {"mean": [0.1, 0.2, 0.3]}
    folder.mkdir()
    settings = {"architecture": architecture, "num_classes": 10, "pretrained_cfg": config}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(state := backbone_state(architecture, num_classes=10), folder / "model.safetensors")
    return f"local-dir:{folder}", state


def test_a_local_folder_is_handed_to_timm_with_its_weights_and_statistics(tmp_path):
    backbone, state = local_folder(tmp_path / "mine", "test_resnet")
    model = build(backbone, pretrained=True)
    assert holds(model, state) and list(model.preprocessing.mean) == [0.1, 0.2, 0.3]
    assert not holds(build(backbone, pretrained=False), state)


def test_a_transformer_in_a_local_folder_takes_another_image_size(tmp_path):
    backbone, _ = local_folder(tmp_path / "mine", "test_vit")
    for pretrained in (False, True):
        with torch.no_grad():
            model = build(backbone, pretrained=pretrained, image_size=96).eval()
            assert model(torch.rand(2, 3, 96, 96)).shape == (2, 10)


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"architecture": "nothing"}', None])
def test_a_local_folder_that_timm_cannot_use_is_refused_in_one_line(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    refusal(f"backbone=local-dir:{tmp_path}: ", backbone=f"local-dir:{tmp_path}")


def test_a_repository_without_its_prefix_is_refused_with_the_prefix_named():
    refusal("backbone=timm/resnet18.a1_in1k: ", "hf-hub:timm/resnet18.a1_in1k", backbone="timm/resnet18.a1_in1k")


def test_a_hub_repository_is_handed_to_timm(monkeypatch):
    asked = []

    def hub(name, **options):
        asked.append((name, options["pretrained"]))
        return create_model(TINY, **options | {"pretrained": False})

    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", hub)
    build("hf-hub:somebody/something", pretrained=True)
    assert asked == [("hf-hub:somebody/something", False), ("hf-hub:somebody/something", True)]


@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError("No pretrained weights exist")])
def test_weights_that_do_not_arrive_say_what_else_there_is(monkeypatch, error):
    def unreachable(*args, **options):
        raise error

    monkeypatch.setattr(timm, "create_model", unreachable)
    refusal("model.weights=", "model.pretrained=false", "backbone=" + TINY, pretrained=True)


def test_a_drop_path_reaches_the_blocks_and_its_absence_leaves_none():
    rates = [
        [module.drop_prob for module in build(drop_path=rate).modules() if type(module).__name__ == "DropPath"]
        for rate in (0.0, 0.2)
    ]
    assert not any(rates[0]) and any(rates[1])
    assert all(0 <= rate <= 0.2 and math.isfinite(rate) for rate in rates[1])


def test_a_drop_path_for_a_backbone_without_stochastic_depth_is_refused_in_one_line():
    refusal("drop_path=0.1: ", "densenet121", backbone="densenet121", drop_path=0.1)
    build("densenet121", drop_path=0.0)
