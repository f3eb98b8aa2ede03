#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can say, the most valuable first, in a quarter of an hour on one card:
#     benchmarks/on_gpu.sh
# It installs like `make setup`, checks, measures into benchmarks/results.csv and RESULTS.md, and trains for the rest of
# the time. Its log and all results are kept in on_gpu/. Without a GPU every part runs as far as it can: a dry run.
#     MINUTES=30              gives it longer, for a slower card
#     TRAIN="a b" STEPS=5000  trains other experiments, at full width, for so many steps; TRAIN= trains none
#     PYTHON=python3          takes a Python that has the packages, and installs nothing
#     OUT=folder              keeps log and results there: a folder outside the clone
set -u
cd "$(dirname "$0")/.."
out=${OUT:-on_gpu} steps=${STEPS:-10000} minutes=${MINUTES:-15}
mkdir -p "$out"
[ "${CONDA_DEFAULT_ENV:-}" != dcgan-ablation-lab ] || PYTHON=${PYTHON:-python}  # as in the Makefile
[ -n "${PYTHON:-}" ] || make setup || exit
python=${PYTHON:-.venv/bin/python}
$python -c "import torch" || exit
end=$((SECONDS + 60 * minutes))
export WANDB_MODE=disabled PYTHONUNBUFFERED=1

# part SECONDS COMMAND...: at most this long, or longer if MINUTES is over 15, and no longer than there is time.
# A failure stops nothing.
part() {
    local limit=$(($1 * (minutes > 15 ? minutes : 15) / 15)) start=$SECONDS left=$((end - SECONDS))
    shift
    echo "=== $*"
    [ $left -gt 10 ] || { echo "--- left out: no time"; return 1; }
    # A run saves on SIGTERM, and pytest tells on SIGINT what has failed. A checkpoint under way may take a while.
    timeout --signal="${signal:-TERM}" --kill-after=40 $((limit < left ? limit : left)) "$@" 2>&1
    local code=$?
    echo "--- exit code $code, $((SECONDS - start)) s"
    cp benchmarks/results.csv benchmarks/RESULTS.md "$out"
    return $code
}

{
    date -u; git log -1 --oneline
    nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv || echo "no NVIDIA GPU: a dry run"
    $python -c "import torch; print('torch', torch.__version__, 'cuDNN', torch.backends.cudnn.version())"
    signal=INT part 150 $python -m pytest -p no:cacheprovider --tb=short --durations=5 \
        -k "cuda or gpu or recorded or step or memory or kernels" tests/test_layers.py tests/device/test_cuda_graph.py \
        tests/device/test_gradients.py tests/data/test_batches.py tests/record/test_weights.py \
        tests/measures/test_fidelity.py tests/test_trainer.py
    part 240 $python -m benchmarks steps --rounds 1
    part 90 $python -m benchmarks epoch128 --rounds 1
    part 60 $python -m benchmarks busy --rounds 1
    part 60 $python -m benchmarks epoch64 --rounds 1
    part 90 $python -m benchmarks examples --rounds 1
    part 150 $python -m benchmarks writeup --rounds 1
    signal=INT part 40 $python -m pytest -p no:cacheprovider --tb=short -k cuda tests/device/test_ranks.py  # NCCL may hang
    for experiment in ${TRAIN-tuned_lr}; do
        part 600 $python -m dcgan run "$experiment" --profile full --set "steps=$steps" --runs on_gpu/runs --fresh
        case $? in 0 | 124 | 130) ;; *) continue ;; esac  # also one that its time has ended: it has saved
        newest=$(ls -td on_gpu/runs/*/full/"$experiment"{,+*}/seed-0 2>/dev/null | head -n 1)
        for file in status.json history.csv losses.png; do
            cp "$newest/$file" "$out/$experiment-$file"
        done
        cp "$(ls "$newest"/samples/*.png | tail -n 1)" "$out/$experiment-samples.png"
    done
} 2>&1 | tee "$out/log.txt"
echo "kept in $out/; the rows are in benchmarks/RESULTS.md"
