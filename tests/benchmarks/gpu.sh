#!/usr/bin/env bash
# Everything that needs a GPU to be measured, the most important first. Needs no network.
#   CIFAR10_ROOT=FOLDER CIFAR10_WEIGHTS=FILE tests/benchmarks/gpu.sh RESULTS     logs, tables and figures go to RESULTS
# PYTHON names the interpreter; DEVICE=cpu and EXTRA="data.train_size=250 ..." make a rehearsal of it.
set -uo pipefail # no -e: a step that fails must not stop the others
results=$(mkdir -p "${1:?name a folder for the results}" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3} device=${DEVICE:-cuda} extra=${EXTRA:-}
quick=$([ "$device" = cuda ] || echo --quick)

step() { # NAME COMMAND...: output to RESULTS/NAME.log, seconds to RESULTS/seconds.txt
    local name=$1 began=$SECONDS
    shift
    echo "== $name: $*"
    "$@" 2>&1 | tee "$results/$name.log" | tail -n 25
    echo "$name $((SECONDS - began)) s, exit ${PIPESTATUS[0]}" | tee -a "$results/seconds.txt"
}
evaluate() { # FOLDER...: every finished run on the test images
    for run in "$@"; do
        step "evaluate_$(basename "$run")" "$python" evaluate.py run="$run" tta=flip_shift
        cp "$run/evaluation/metrics.json" "$results/$(basename "$run")_metrics.json"
        cp "$run/metrics.csv" "$results/$(basename "$run")_epochs.csv"
    done
}

nvidia-smi > "$results/nvidia-smi.txt" 2>&1
nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used,power.draw --format=csv -l 1 \
    > "$results/utilisation.csv" 2>&1 &
trap 'kill %1 2> /dev/null' EXIT
runs=outputs/gpu_hour
step comparison "$python" train.py experiment=gpu hydra.sweep.dir="$runs" hydra.sweep.subdir='${name}' $extra
evaluate "$runs"/gpu_*/
step fast_cnn "$python" train.py model=fast_cnn data.val_size=0 hydra.run.dir="$runs/fast_cnn" $extra
evaluate "$runs/fast_cnn"
step backbone "$python" -m tests.benchmarks --device "$device" --only backbone cache \
    --output "$results/backbone.json" $quick
step best "$python" train.py experiment=gpu_best hydra.run.dir="$runs/best" $extra
evaluate "$runs/best"
step fast_cnn_overnight "$python" train.py experiment=overnight model=fast_cnn hydra.run.dir="$runs/overnight" $extra
evaluate "$runs/overnight"
step benchmark "$python" -m tests.benchmarks --device "$device" --only data epoch memory \
    --output "$results/benchmark.json" $quick
for precision in 32-true 16-mixed; do # fine-tuning in other precisions
    step "precision_$precision" "$python" train.py experiment=gpu model=efficientnet_b0 trainer.precision=$precision \
        data.train_size=5000 hydra.sweep.dir="$runs/$precision" $extra
done
# With trainer.deterministic=true two runs end in the same bits, and what has no deterministic kernel is an error.
same_bits() { # FOLDER FOLDER
    "$python" -c 'import sys, torch
files = [f"{run}/checkpoints/last.ckpt" for run in sys.argv[1:]]
a, b = (torch.load(file, map_location="cpu", weights_only=True)["state_dict"] for file in files)
differ = [key for key in a if not torch.equal(a[key], b[key])]
print("the same bits" if not differ else f"{len(differ)} of {len(a)} tensors differ: {differ[:5]}")
sys.exit(bool(differ))' "$@"
}
declare -A deterministic=(
    [fast_cnn]="model=fast_cnn"
    [cnn]="model=cnn data.mixup_alpha=0.4 data.cutmix_alpha=1 data.cutout=8 data.flip=true data.crop_padding=4"
    [b0]="model=efficientnet_b0 model.drop_path=0.2 callbacks.two_phase.head_epochs=1 data.train_size=5000"
    [b0_cached]="model=efficientnet_b0 callbacks.two_phase.head_epochs=1 callbacks.feature_caching.views=2 data.train_size=5000"
)
for name in "${!deterministic[@]}"; do
    for attempt in 1 2; do
        step "deterministic_${name}_$attempt" "$python" train.py ${deterministic[$name]} trainer.deterministic=true \
            trainer.max_epochs=2 hydra.run.dir="$runs/deterministic_${name}_$attempt" $extra
    done
    step "same_bits_$name" same_bits "$runs/deterministic_${name}_"{1,2}
done
cat "$results/seconds.txt"
