#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can say, the most valuable first, in about ten minutes on one card:
#     benchmarks/on_gpu.sh
# It installs like `make setup`, checks, measures into benchmarks/results.csv and RESULTS.md, and trains tuned_lr at full
# width for the rest of the time. Its log and the run's results are kept in on_gpu/. MINUTES=20 gives it longer, TRAIN=0
# leaves the training out. Without a GPU every part runs as far as it can: a dry run.
set -u
cd "$(dirname "$0")/.."
out=on_gpu end=$((SECONDS + 60 * ${MINUTES:-10}))
mkdir -p "$out"
make setup || exit
export WANDB_MODE=disabled PYTHONUNBUFFERED=1
python=.venv/bin/python

# part SECONDS COMMAND...: at most this long. A failure stops nothing.
part() {
    local limit=$1 start=$SECONDS
    shift
    echo "=== $*"
    timeout --signal="${SIGNAL:-INT}" --kill-after=15 "$limit" "$@" 2>&1
    echo "--- exit code $?, $((SECONDS - start)) s"
}

{
    date -u; git log -1 --oneline
    nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv || echo "no NVIDIA GPU: a dry run"
    # The slow ones test processes on the CPU.
    part 150 $python -m pytest -m "not slow" --durations=5 tests/device tests/data/test_batches.py tests/test_trainer.py
    part 60 $python -m benchmarks steps --rounds 2
    part 40 $python -m benchmarks busy --rounds 2
    part 60 $python -m benchmarks epoch64 --rounds 2
    part 70 $python -m benchmarks epoch128 --rounds 2
    part 90 $python -m benchmarks examples --rounds 1
    left=$((end - SECONDS))
    if [ "${TRAIN:-1}" = 1 ] && [ $left -gt 40 ]; then
        # A run saves on SIGTERM; a script in the background ignores SIGINT, and so would the run.
        SIGNAL=TERM part $left $python -m dcgan run tuned_lr --runs "$out/runs"
    fi
} 2>&1 | tee "$out/log.txt"
echo "kept in $out/; new rows are in benchmarks/RESULTS.md"
