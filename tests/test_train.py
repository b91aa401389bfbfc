"""train.py from the command line: what a run leaves behind, and how it answers mistakes."""

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar10.files import locked
from cifar10.training import build

PROJECT = Path(__file__).parent.parent
B0 = [
    "model=efficientnet_b0",
    "model.backbone=test_efficientnet.r160_in1k",
    "model.pretrained=false",
    "data.image_size=32",
]


def the_run(folder: Path) -> Path:
    [checkpoint] = folder.glob("outputs/*/*/checkpoints/best.ckpt")
    return checkpoint.parent.parent


def tags(run: Path, stage: str, kind: str) -> set[str]:
    events = EventAccumulator(str(run / "tensorboard" / stage))
    events.Reload()
    return set(events.Tags()[kind])


def test_a_run_leaves_a_complete_folder(command, tiny, tmp_path):
    assert command("train.py", *tiny, "trainer.max_epochs=2") == 0
    run = the_run(tmp_path)
    assert run.parent.name == "cnn"
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {".hydra/config.yaml", ".hydra/overrides.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
            "metrics.csv", "train.log"} <= names  # fmt: skip
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"train/loss", "train/acc", "val/loss", "val/acc", "lr/network", "seconds", "step"} <= rows[0].keys()


def test_the_end_says_the_result_where_it_lies_and_what_to_do_next(command, tiny, tmp_path):
    command("train.py", *tiny)
    run = the_run(tmp_path).relative_to(tmp_path)
    assert f"python evaluate.py run={run}" in command.out
    assert "validation accuracy" in command.out
    assert "not CIFAR-10" in command.out, "drawn images are never taken for CIFAR-10"


def test_tensorboard_has_train_and_validation_on_one_chart_and_the_pictures(command, tiny, tmp_path):
    assert command("train.py", *tiny, *B0, "trainer.max_epochs=2", "callbacks.two_phase.head_epochs=1") == 0
    run = the_run(tmp_path)
    assert tags(run, "val", "scalars") == {"loss", "acc", "macro_f1", "balanced_acc"}
    assert {"loss", "acc", "phase", "lr/head", "lr/backbone", "best/val/acc"} <= tags(run, "train", "scalars")
    assert tags(run, "train", "images") == {"images as the network sees them"}
    assert tags(run, "val", "images") == {"confusion matrix"}
    assert "_hparams_/session_start_info" in hparams_plugins(run)


def hparams_plugins(run: Path) -> set[str]:
    events = EventAccumulator(str(run / "tensorboard" / "train"))
    events.Reload()
    return set(events.summary_metadata)


def test_training_returns_the_validation_accuracy_of_the_best_checkpoint(command, tiny, tmp_path):
    command("train.py", *tiny, "trainer.max_epochs=2")
    run = the_run(tmp_path)
    with (run / "metrics.csv").open() as file:
        best = min(csv.DictReader(file), key=lambda row: float(row["val/loss"]))
    assert f"validation accuracy   {float(best['val/acc']):.4f}" in command.out
    assert torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == int(best["epoch"])


def test_training_never_opens_the_test_files(command, tiny, tmp_path, shapes_root):
    copy = tmp_path / "copy" / "shapes" / "cifar-10-batches-py"
    copy.mkdir(parents=True)
    for file in (shapes_root / "shapes" / "cifar-10-batches-py").iterdir():
        (copy / file.name).write_bytes(b"no pickle" if file.name == "test_batch" else file.read_bytes())
    assert command("train.py", *tiny, f"data.root={tmp_path / 'copy'}") == 0


def test_the_same_command_twice_gives_the_same_weights(command, tiny, tmp_path):
    states = []
    for name in ("one", "two"):
        assert command("train.py", *tiny, "data.flip=true", "data.cutout=8", f"hydra.run.dir=outputs/cnn/{name}") == 0
        states.append(torch.load(f"outputs/cnn/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_interrupted_run_goes_on_in_its_own_folder(command, tiny, tmp_path):
    assert command("train.py", *tiny, "seed=3") == 0
    run = the_run(tmp_path)
    assert command("train.py", f"resume={run.relative_to(tmp_path)}", "trainer.max_epochs=3") == 0
    assert the_run(tmp_path) == run
    with (run / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]


def test_a_finished_run_says_so_and_what_it_cost(command, tiny, tmp_path, monkeypatch):
    looks = itertools.count(step=100)  # every look at the clock takes 100 seconds
    monkeypatch.setattr("pytorch_lightning.callbacks.timer.time.monotonic", lambda: next(looks))
    assert command("train.py", *tiny) == 0
    run = the_run(tmp_path)
    summary = json.loads((run / "run.json").read_text())
    assert summary["epochs"] == 1 and summary["train_images"] == 160 and summary["val_images"] == 40
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert summary["seconds"] == last["callbacks"]["TrainingTimer"]["training_seconds"] + 100, "counted once"
    assert "thread" in summary["hardware"] and 0 <= summary["val/acc"] <= 1
    assert command("train.py", f"resume={run.relative_to(tmp_path)}", "trainer.max_epochs=2") == 0
    assert json.loads((run / "run.json").read_text())["epochs"] == 2


def test_a_mistake_in_a_resume_leaves_the_run_as_it_was(command, tiny, tmp_path):
    assert command("train.py", *tiny) == 0
    run = the_run(tmp_path)
    before = {file: file.read_bytes() for file in run.rglob("*.*") if file.is_file() and file.suffix != ".log"}
    assert command("train.py", f"resume={run.relative_to(tmp_path)}", "data.batch_size=-1") == 1
    assert {file: file.read_bytes() for file in before} == before
    assert command("train.py", f"resume={run.relative_to(tmp_path)}", "trainer.max_epochs=2") == 0


def test_a_resume_says_where_the_run_stands_and_when_nothing_is_left(command, tiny, tmp_path):
    assert command("train.py", *tiny) == 0
    run = the_run(tmp_path)
    assert command("train.py", f"resume={run.relative_to(tmp_path)}", "trainer.max_epochs=2") == 0
    assert "last.ckpt: 1 epoch done, 2 steps" in command.out
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    assert command("train.py", f"resume={run.relative_to(tmp_path)}", "trainer.max_epochs=2") == 0
    assert "nothing left to train; set trainer.max_epochs=3 or more to continue" in command.out
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    assert json.loads((run / "run.json").read_text())["epochs"] == 2


def test_a_run_whose_folder_was_moved_still_knows_its_best_epoch(command, tiny, tmp_path):
    assert command("train.py", *tiny, "trainer.max_epochs=2", "hydra.run.dir=one") == 0
    best = (tmp_path / "one" / "checkpoints" / "best.ckpt").read_bytes()
    score = torch.load(tmp_path / "one" / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Checkpoint"]
    shutil.move("one", "other")
    worse = "callbacks.checkpoint.mode=max"  # no: the run keeps its own settings
    assert command("train.py", "resume=other", worse) == 1
    assert "callbacks.checkpoint.mode: a resumed run keeps its own settings" in command.err
    assert command("train.py", "resume=other", "trainer.max_epochs=3") == 0
    last = torch.load(tmp_path / "other" / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Checkpoint"]
    assert last["best_score"] <= score["best_score"]
    improved = last["best_score"] < score["best_score"]
    assert ((tmp_path / "other" / "checkpoints" / "best.ckpt").read_bytes() == best) is not improved


@pytest.mark.parametrize("damage", ["cut off", "empty", "a bit flipped among the weights"])
def test_a_damaged_checkpoint_is_one_line_and_the_best_one_goes_on(command, tiny, tmp_path, damage):
    assert command("train.py", *tiny, "hydra.run.dir=run") == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 4
    last.unlink()
    last.write_bytes({"cut off": content[: len(content) // 2], "empty": b""}.get(damage, content))
    assert command("train.py", "resume=run", "trainer.max_epochs=2") == 1
    assert command.err.startswith("error: run/checkpoints/last.ckpt: not a checkpoint (") and "damaged" in command.err
    assert len(command.err.splitlines()) == 1 and "delete it to resume from best.ckpt" in command.err
    assert (tmp_path / "run" / "run.json").is_file()
    last.unlink()
    assert command("train.py", "resume=run", "trainer.max_epochs=2") == 0
    assert "last.ckpt does not exist: resuming from best.ckpt" in command.out


def test_a_run_that_had_no_checkpoint_yet_begins_again(command, tiny, tmp_path):
    assert command("train.py", *tiny, "hydra.run.dir=run") == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert command("train.py", "resume=run") == 0
    assert "no checkpoint had been saved yet: the run starts over" in command.out
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


def test_a_folder_is_one_process_s_at_a_time(command, tiny, tmp_path):
    assert command("train.py", *tiny, "hydra.run.dir=run") == 0
    with locked(tmp_path / "run" / ".lock"):
        assert command("train.py", "resume=run", "trainer.max_epochs=2") == 1
    assert command.err == "error: run: another process is training in this folder; wait for it, or stop it first\n"


def test_a_run_that_stopped_early_has_nothing_left(command, tiny, tmp_path):
    stop = ["callbacks.early_stopping.patience=1", "+callbacks.early_stopping.min_delta=9", "trainer.max_epochs=9"]
    assert command("train.py", *tiny, *stop, "hydra.run.dir=run") == 0
    epochs = json.loads((tmp_path / "run" / "run.json").read_text())["epochs"]
    assert epochs == 2
    assert command("train.py", "resume=run") == 0
    assert "nothing left to train: the run was ended by callbacks" in command.out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["epochs"] == epochs


def test_a_sweep_runs_every_job_though_one_fails(command, tiny, tmp_path):
    assert command("train.py", "-m", *tiny, "data.image_size=32,8,22") == 1
    assert len(list(tmp_path.glob("outputs/sweeps/*/*/checkpoints/best.ckpt"))) == 2
    assert "data.image_size=8" in command.err and "Traceback" not in command.err


MISTAKES = {
    "misspelt key": (["data.bacth_size=8"], "data.bacth_size: no such setting; did you mean data.batch_size"),
    "misspelt group": (["modle=cnn"], "modle: no such setting; did you mean model?"),
    "unknown key added": (["+data.batchsize=8"], "data.batchsize"),
    "unknown model": (["model=resnet"], "model=resnet: no such choice; model has: cnn, efficientnet_b0"),
    "unknown data": (["data=cifar"], "data=cifar: no such choice"),
    "test images alone": (["data=cifar101"], "data=cifar101: has test images only"),
    "corrupted images alone": (["data=cifar10c"], "data.source=cifar10c: no such source"),
    "not a number": (["data.batch_size=many"], "data.batch_size=many: must be a whole number"),
    "zero batch": (["data.batch_size=0"], "data.batch_size=0"),
    "negative lr": (["model.lr=-1"], "model.lr=-1"),
    "unknown optimizer": (["model.optimizer=adamm"], "adamm"),
    "image too small": (["data.image_size=16"], "data.image_size=16: 3 blocks need at least 22 pixels"),
    "image too small for B0": ([*B0, "data.image_size=1"], "data.image_size=1"),
    "too many GPUs": (["trainer.devices=99"], "trainer.devices=99: this machine has"),
    "too many training images": (["data.train_size=1000"], "data.train_size=1000"),
    "bad seed": (["seed=-1"], "seed=-1"),
    "weights not there": ([*B0, "model.weights=nowhere.pth"], "model.weights=nowhere.pth: no such file"),
    "unknown backbone": ([*B0, "model.backbone=efficientnet_c0"], "model.backbone=efficientnet_c0"),
    "resume from nowhere": (["resume=outputs/nothing"], "resume=outputs/nothing"),
    "bad trainer value": (["trainer.max_epochs=ten"], "trainer.max_epochs=ten"),
    "bad precision": (["trainer.precision=8"], "trainer"),
    "dropout above one": (["model.network.dropout=2"], "model.network.dropout=2: must lie in [0, 1]"),
    "text among numbers": (["model.network.widths=[a,b]"], "model.network.widths=['a', 'b']"),
    "a number for a list": (["model.network.widths=3"], "model.network.widths=3"),
    "no epoch": (["trainer.max_epochs=0"], "trainer.max_epochs=0"),
    "endless epochs": (["trainer.max_epochs=-1"], "trainer.max_epochs=-1"),
    "no folder of pictures named": (["data=folder", "data.root=null"], "data.root=None: must be text"),
    "no model at all": (["model=null"], "override"),
    "no callbacks at all": (["callbacks=null"], "callbacks=None"),
    "a section as a value": (["trainer=fast"], "trainer=fast"),
    "misspelt metric": (["callbacks.early_stopping.monitor=val/los"], "callbacks.early_stopping.monitor=val/los"),
    "folder that cannot be": (["hydra.run.dir=/proc/nowhere"], "/proc/nowhere"),
    "more memory than there is": (["data.image_size=100000"], "model"),
    "unknown way to compile": (["trainer.compile=fast"], "trainer.compile=fast: must be one of false, true, auto"),
    "views without augmentation": (
        [*B0, "callbacks.feature_caching.views=2", "data.flip=false", "data.crop_padding=0"],
        "feature_caching.views=2: without data.crop_padding and data.flip",
    ),
    "cache beside mixup": ([*B0, "callbacks.feature_caching.views=1", "data.mixup_alpha=0.2"], "data.mixup_alpha"),
    "no such override syntax": (["data.batch_size"], "data.batch_size"),
    "no batch to train on": (["+trainer.limit_train_batches=0"], "trainer.limit_train_batches=0"),
    "no batch to validate": (["+trainer.limit_val_batches=0"], "trainer.limit_val_batches=0"),
    "a fraction above one": (["+trainer.limit_val_batches=1.5"], "trainer.limit_val_batches=1.5"),
    "an epoch that is never validated": (
        ["+trainer.check_val_every_n_epoch=2"],
        "trainer.check_val_every_n_epoch=2: never validates in max_epochs=1",
    ),
    "validation beyond the epoch": (["+trainer.val_check_interval=3"], "trainer.val_check_interval=3"),
    "validation by the clock": (["+trainer.val_check_interval={seconds: 1}"], "trainer.val_check_interval={"),
    "a bare run": (["+trainer.barebones=true"], "trainer.barebones: leaves no checkpoint"),
    "no checkpoint at all": (["callbacks.checkpoint=null"], "callbacks.checkpoint: is needed"),
    "logging every 0 steps": (["trainer.log_every_n_steps=0"], "trainer.log_every_n_steps=0"),
    "no step": (["+trainer.max_steps=0"], "trainer.max_steps=0"),
    "negative patience": (["callbacks.early_stopping.patience=-1"], "callbacks.early_stopping.patience=-1"),
    "negative clipping": (["+trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val=-1"),
    "a matrix every 0 epochs": (["callbacks.dashboard.confusion_every=0"], "callbacks.dashboard.confusion_every=0"),
    "fewer than no pictures": (["callbacks.dashboard.images=-1"], "callbacks.dashboard.images=-1"),
    "cutout above the image": (["data.cutout=1000"], "data.cutout=1000"),
    "mixup without end": (["data.mixup_alpha=1e300"], "data.mixup_alpha=1e+300"),
    "split seed too large": (["data.split_seed=4294967296"], "data.split_seed=4294967296"),
    "no width": (["model.network.widths=[]"], "model.network.widths=[]"),
    "width of zero": (["model.network.widths=[32,0]"], "model.network.widths=[32, 0]"),
    "no hidden unit": (["model.network.hidden=0"], "model.network.hidden=0"),
    "negative lr of the head": ([*B0, "callbacks.two_phase.head_lr=-1"], "head_lr=-1"),
    "negative drop_path": ([*B0, "model.drop_path=-1"], "model.drop_path=-1"),
    "empty name": (["name="], "name=: must be the name of a folder"),
    "no name": (["name=null"], "name=None"),
    "a name with a slash": (["name=a/b"], "name=a/b"),
    "checkpoints to nowhere": (["callbacks.checkpoint.dirpath=/proc/x"], "callbacks.checkpoint.dirpath=/proc/x"),
    "curves to nowhere": (["logger.tensorboard.save_dir=/proc/x"], "logger.tensorboard.save_dir=/proc/x"),
    "table to nowhere": (["callbacks.epoch_log.path=/proc/x/y.csv"], "callbacks.epoch_log.path=/proc/x"),
    "output apart from its settings": (["output_dir=elsewhere"], "name the folder with hydra.run.dir=FOLDER"),
    "a callback as a value": (["callbacks.dashboard=3"], "callbacks.dashboard=3: is a section"),
    "a logger as a value": (["logger.tensorboard=1"], "logger.tensorboard=1: is a section"),
    "callbacks of the trainer": (["+trainer.callbacks=[]"], "trainer.callbacks: is built from the section callbacks"),
    "a bar of 0.5": (["trainer.enable_progress_bar=0.5"], "trainer.enable_progress_bar=0.5: must be true or false"),
    "text for a choice": (
        ["trainer.deterministic=0x10"],
        "trainer.deterministic=0x10: must be true or false or one of",
    ),
    "a misspelt logger of two": (["logger=[csv,wandbb]"], "logger=wandbb: no such choice; logger has: csv, mlflow"),
    "no folder to resume": (["resume=nope"], "resume=nope: not a run that can be resumed, no such folder"),
    "averages in shards": (["trainer=fsdp", "average=ema"], "trainer.strategy=fsdp: an average needs whole weights"),
    "Muon in shards": (["trainer=fsdp", "model=fast_cnn"], "model.optimizer=muon: steps whole filters"),
    "Muon for pretrained filters": ([*B0, "model.optimizer=muon"], "model.optimizer=muon: resets the length"),
    "a network too deep for the image": (["model=fast_cnn", "data.image_size=8"], "data.image_size=8: 3 blocks need"),
    "flips that there are not": (
        ["data.flip=sometimes"],
        "data.flip=sometimes: must be true or false or one of alternating",
    ),
    "a list for text": (["trainer.accelerator=[null]"], "trainer.accelerator=[None]: must be text"),
    "accelerator that is not installed": (["trainer.accelerator=tpu"], "trainer: "),
    "a list of devices of a CPU": (
        ["trainer.accelerator=cpu", "trainer.devices=[1]"],
        "trainer.devices=[1]: must be a whole number of processes",
    ),
    "a number for a class": (
        ["model._target_=3"],
        "model._target_=3: must name cifar10.models.classifier.ImageClassifier",
    ),
    "an unknown class": (["model._target_=cifar10.models.None"], "model._target_=cifar10.models.None"),
    "a class of another kind": (["data._target_=collections.Counter"], "data._target_=collections.Counter: must name"),
    "a misspelt setting of a network": (["+model.network.width=[4]"], "model.network.width: CNN has no such setting"),
    "a setting that a network gets": (["+model.network.num_classes=3"], "model.network.num_classes: CNN has no such"),
    "no network": (["model.network=3"], "model.network=3: must be a section"),
    "a network from elsewhere": (
        ["model.network._target_=torch.nn.Linear"],
        "model.network._target_=torch.nn.Linear: must name an nn.Module defined in a file of cifar10/models/networks/",
    ),
    "a network that does not exist": (
        ["model.network._target_=cifar10.models.networks.cnn.CNNN"],
        "model.network._target_=cifar10.models.networks.cnn.CNNN: must name",
    ),
    "class names from outside": (
        ["+model.class_names=[a,b]"],
        "model.class_names: ScratchClassifier has no such setting",
    ),
    "a removed setting that is needed": (["~trainer.max_epochs"], "trainer.max_epochs: must be given"),
    "a removed section": (["~model"], "model"),
    "another model's setting": ([*B0, "model.widths=[4]"], "model.widths: no such setting"),
    "a value left open": (["data.flip=???"], "data.flip"),
    "a reference to nothing": (["data.flip=${nowhere}"], "data.flip: Interpolation key 'nowhere' not found"),
    "an environment variable not set": (["data.flip=${oc.env:NOWHERE}"], "data.flip: KeyError"),
    "an open quote": (["data.root='"], "data.root=': not a setting that Hydra can read"),
    "an open list": (["model.widths=[1"], "model.widths=[1: not a setting that Hydra can read"),
    "no such flag": (["--fast"], "unrecognized arguments: --fast; settings are KEY=VALUE"),
    "no such mode": (["hydra.mode=FAST"], "Invalid value 'FAST'"),
    "verbose as a number": (["hydra.verbose=3"], "see --hydra-help"),
}


@pytest.mark.promise("configurations")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_line_and_leaves_nothing_behind(command, tiny, tmp_path, mistake):
    arguments, answer = MISTAKES[mistake]
    data = [argument for argument in tiny if not any(argument.startswith(f"{a.partition('=')[0]}=") for a in arguments)]
    assert command("train.py", *data, *arguments) == 1
    assert command.err.startswith("error: ") and len(command.err.splitlines()) == 1, command.err
    assert answer in command.err
    assert list(tmp_path.iterdir()) == []


def test_absent_data_is_one_line_with_three_ways_on_and_its_own_exit_code(command, tmp_path, monkeypatch):
    def no_network(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("cifar10.data.sources.cifar10.CIFAR10._download", no_network)
    assert command("train.py", "data.root=nowhere") == 66
    assert all(way in command.err for way in ("data.root=", "CIFAR10_ROOT", "data=shapes"))
    assert len(command.err.splitlines()) == 1 and list(tmp_path.iterdir()) == []


WEIGHTS = os.environ.get("CIFAR10_WEIGHTS")


@pytest.mark.skipif(not (WEIGHTS and os.environ.get("CIFAR10_ROOT")), reason="CIFAR10_WEIGHTS or CIFAR10_ROOT not set")
def test_pretrained_weights_carry_to_real_images_and_random_ones_do_not(command):
    small = ["model=efficientnet_b0", "data.image_size=64", "data.train_size=1000", "data.val_size=300",
             "data.batch_size=25", "trainer.max_epochs=2", "callbacks.two_phase.head_epochs=1",
             "callbacks.feature_caching.views=1"]  # fmt: skip
    accuracy = {}
    for name, weights in (("pretrained", [f"model.weights={WEIGHTS}"]), ("random", ["model.pretrained=false"])):
        assert command("train.py", *small, *weights) == 0, command.err
        accuracy[name] = float(command.out.partition("validation accuracy")[2].split()[0])
    assert accuracy["pretrained"] > 0.6 > 0.3 > accuracy["random"]


def test_help_and_cfg_import_nothing_heavy():
    code = (
        "import sys, runpy; sys.argv = ['train.py', sys.argv[1], *sys.argv[2:]]\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'timm', 'pytorch_lightning', 'matplotlib'} & set(sys.modules)))"
    )
    for flags in (["--help"], ["--cfg", "job"]):
        result = subprocess.run([sys.executable, "-c", code, *flags], cwd=PROJECT, capture_output=True, text=True)
        assert result.stdout.rstrip().endswith("[]"), result.stdout[-300:] + result.stderr


def test_compiling_without_a_compiler_is_one_line_and_auto_does_without(command, tiny, monkeypatch):
    monkeypatch.setattr("cifar10.training.build.shutil.which", lambda name: None)
    monkeypatch.setattr("cifar10.training.build.torch.cuda.is_available", lambda: False)
    assert command("train.py", *tiny, "trainer.compile=true") == 1
    assert command.err.startswith("error: trainer.compile=true: needs a C++ compiler")
    assert command("train.py", *tiny, "trainer.compile=auto") == 0
    monkeypatch.setattr("cifar10.training.build.torch.cuda.is_available", lambda: True)
    assert build.compile_mode("auto", "gpu") is None, "Triton needs one as well"
    monkeypatch.setattr("cifar10.training.build.can_compile", lambda gpu: True)
    assert (build.compile_mode("auto", "gpu"), build.compile_mode("auto", "cpu")) == ("default", "frozen")


def test_precision_is_chosen_for_the_device_and_the_strategy(monkeypatch):
    monkeypatch.setattr("cifar10.training.build.torch.cuda.is_available", lambda: True)
    for native, expected in ((True, ("bf16-mixed", "bf16-mixed")), (False, ("16-mixed", "32-true"))):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation, native=native: native)
        assert tuple(build.resolve_precision("auto", "gpu", one) for one in ("auto", "fsdp")) == expected


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no compiler")
def test_a_compiled_run_is_the_run(command, tiny, tmp_path):
    accuracy = {}
    few = ["data.batch_size=40", "data.eval_batch_size=40", "data.val_size=40", "data.train_size=80",
           "trainer.max_epochs=3", "callbacks.two_phase.head_epochs=1", "callbacks.feature_caching.views=1",
           "data.flip=false", "data.crop_padding=0", "model.dropout=0", "model.lr=1e-2"]  # fmt: skip
    for compile in ("false", "true"):
        assert command("train.py", *tiny, *B0, *few, f"trainer.compile={compile}") == 0, command.err
        accuracy[compile] = float(command.out.partition("validation loss")[2].split()[0])
    assert accuracy["true"] == pytest.approx(accuracy["false"], rel=1e-2)


def test_a_run_with_cached_features_says_how_large_they_are_and_where(command, tiny, tmp_path):
    assert command("train.py", *tiny, *B0, "callbacks.feature_caching.views=2", "trainer.max_epochs=2",
                   "callbacks.two_phase.head_epochs=1") == 0  # fmt: skip
    assert "cached the features of 160 training images in 2 views each and 40 validation images: " in command.out
    assert " MB in memory" in command.out
    assert tags(the_run(tmp_path), "train", "images") == {"images as the network sees them"}


def test_a_run_does_without_tensorboard(command, tiny, tmp_path):
    assert command("train.py", *tiny, "logger=null") == 0
    assert not (the_run(tmp_path) / "tensorboard").exists()


def test_training_that_ends_in_mid_epoch_is_logged_and_validated(command, tiny, tmp_path):
    assert command("train.py", *tiny, "data.batch_size=40", "+trainer.max_steps=3") == 0, command.err
    run = the_run(tmp_path)
    with (run / "metrics.csv").open() as file:
        [row] = csv.DictReader(file)
    assert row["step"] == "3" and float(row["train/loss"]) > 0 and float(row["val/loss"]) > 0
    assert command("evaluate.py", f"run={run.relative_to(tmp_path)}") == 0, command.err


def test_training_that_ends_before_any_validation_is_validated_at_its_end(command, tiny):
    late = ["trainer.max_epochs=2", "+trainer.check_val_every_n_epoch=2", "+trainer.max_steps=1"]
    assert command("train.py", *tiny, *late) == 0, command.err
    assert "validation accuracy" in command.out


def test_no_time_at_all_is_a_step_and_its_validation(command, tiny):
    assert command("train.py", *tiny, "+trainer.max_time=00:00:00:00") == 0, command.err


def test_validation_may_be_every_second_epoch(command, tiny, tmp_path):
    assert command("train.py", *tiny, "trainer.max_epochs=4", "+trainer.check_val_every_n_epoch=2") == 0, command.err
    assert torch.load(the_run(tmp_path) / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] in (1, 3)


def test_an_epoch_without_its_validation_never_replaces_the_best_when_a_run_goes_on(command, tiny):
    rare = [*tiny, "+trainer.check_val_every_n_epoch=2", "trainer.max_epochs=2", "hydra.run.dir=run"]
    assert command("train.py", *rare) == 0, command.err
    assert command("train.py", "resume=run", "trainer.max_epochs=3") == 0, command.err
    assert torch.load("run/checkpoints/best.ckpt", weights_only=True)["epoch"] == 1


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_a_run_in_another_precision(command, tiny, precision):
    assert command("train.py", *tiny, f"trainer.precision={precision}", "data.mixup_alpha=0.2") == 0, command.err


def test_the_flag_of_a_sweep_may_stand_anywhere(command, tiny, tmp_path):
    assert command("train.py", *tiny, "-m", "seed=0,1", "+trainer.max_steps=1") == 0, command.err
    assert len(list(tmp_path.glob("outputs/sweeps/*/[01]/run.json"))) == 2


def test_a_bug_keeps_its_traceback(command, tiny, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("cifar10.data.preprocessing.Preprocessing.normalise", broken)
    with pytest.raises(ZeroDivisionError):
        command("train.py", *tiny)
