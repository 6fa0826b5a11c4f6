#!/usr/bin/env bash
# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
#
# The full-size trainings, for a GPU that is at hand for some minutes at a time.
#
#   bench/gpu_train.sh pack DATA   where the data is: out/gpu/data.tar, at most 40 MB
#   bench/gpu_train.sh STAGE       on the GPU machine, until it exits with 0: each call goes on
#                                  where the last one was stopped, and exits with 75 if it is not
#                                  done (until bench/gpu_train.sh cyclegan; do :; done)
#   STAGE  lite0     segmenter, EfficientNet-Lite0, 480 wide
#          lite2     a teacher, EfficientNet-Lite2, 480 wide (config/training/teacher_day.yaml)
#          cyclegan  translator, ngf 64, 9 blocks, 256x256 crops
#          fast      fast generator, night to day
#
# OUT          what is to be brought back: weights, metrics, pictures (out/gpu/back)
# SECONDS_A_CALL   (540)
# STEPS        fewer or more than the stage's own
# ACCELERATOR  cuda, or cpu to try it out
# WORKERS      processes that load crops (one a core but one)
# EXTRA        further flags of `nightseg train`, for example '--ngf 8 --crop 64'
# CHECKPOINT   yes: bring the checkpoint back as well, to go on elsewhere; up to 400 MB
# PYTHON       interpreter with requirements/runtime.txt and train.txt (no ROS is needed)
#
# It has not been run on a GPU yet: tried with ACCELERATOR=cpu and few steps only.
set -euo pipefail
cd "$(dirname "$0")/.."

here=out/gpu
python=${PYTHON:-python3}
[ -x .venv/bin/python ] && python=${PYTHON:-.venv/bin/python}
stage=${1:?usage: gpu_train.sh pack DATA | lite0 | lite2 | cyclegan | fast}
die() { echo "gpu_train: $*" >&2; exit 2; }

"$python" - <<'END' || die "install what is missing: pip install -r requirements/runtime.txt -r requirements/train.txt"
import importlib.util, sys
missing = [name for name in ('torch', 'cv2', 'yaml', 'safetensors', 'tyro', 'rich', 'lightning_fabric')
           if importlib.util.find_spec(name) is None]
sys.exit(f'missing: {", ".join(missing)}' if missing else 0)
END

if [ "$stage" = pack ]; then
  exec "$python" bench/gpu_pack.py "${2:?usage: gpu_train.sh pack DATA}" "$here/data.tar"
fi

[ -f "$here/data.tar" ] || die "no $here/data.tar: run bench/gpu_train.sh pack DATA where the data is"
data=$here/data
if [ ! -d "$data" ]; then
  rm -rf "$data.partial" && mkdir -p "$data.partial"
  tar -xf "$here/data.tar" -C "$data.partial" && mv "$data.partial" "$data"
fi

accelerator=${ACCELERATOR:-cuda}
cores=$(nproc)
common=(--accelerator "$accelerator" --workers "${WORKERS:-$((cores > 1 ? cores - 1 : 1))}"
  --out "$here/runs/$stage")
labelled=camvid:$data/camvid:day_train
day=images:$data/unlabelled/day:day
night=images:$data/unlabelled/night:night
case $stage in
  lite0)
    recipe=(segmenter --config config/training/day.yaml --data "$labelled"
      --steps "${STEPS:-6000}" --batch 16 --checkpoint-every 200) ;;
  lite2)
    recipe=(segmenter --config config/training/teacher_day.yaml --data "$labelled"
      --steps "${STEPS:-6000}") ;;
  cyclegan)
    recipe=(translator --data "$day" "$night" --segmenter models/day.safetensors
      --night-segmenter models/night.safetensors --ngf 64 --blocks 9 --crop 256 --batch 4
      --steps "${STEPS:-40000}" --checkpoint-every 250) ;;
  fast)
    recipe=(fast_translator --data "$labelled" --segmenter models/day.safetensors
      --unpaired "$day" "$night" --batch 16 --night-batch 8 --steps "${STEPS:-6000}"
      --checkpoint-every 200) ;;
  *) die "no stage '$stage': pack, lite0, lite2, cyclegan or fast" ;;
esac

read -ra extra <<<"${EXTRA:-}"
code=0
timeout --signal=TERM --kill-after=15 "${SECONDS_A_CALL:-540}" \
  "$python" -m nightseg_ros.cli.main train "${recipe[@]}" "${common[@]}" \
  ${extra[@]+"${extra[@]}"} || code=$?

back=${OUT:-$here/back}/$stage
rm -rf "$back" && mkdir -p "$back/pictures"
run=$here/runs/$stage
for file in "$run"/*.safetensors "$run/metrics.jsonl"; do
  [ -f "$file" ] || continue
  [ "$(basename "$file")" = checkpoint.safetensors ] && [ "${CHECKPOINT:-no}" != yes ] && continue
  cp "$file" "$back/"
done
# the latest sheets are enough
for file in $(find "$run/pictures" -name '*.jpg' 2>/dev/null | sort | tail -8); do
  cp "$file" "$back/pictures/"
done

case $code in
  0) echo "gpu_train: $stage is done, see $back" ;;
  124 | 137) tail -n 1 "$run/metrics.jsonl" 2>/dev/null || true
    echo "gpu_train: $stage is not done, call again"; exit 75 ;;
  *) exit "$code" ;;
esac
