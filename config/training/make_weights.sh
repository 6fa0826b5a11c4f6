#!/usr/bin/env bash
# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
#
# Every shipped weight that is made of real frames, from ImageNet's encoder and DATA (laid out as docs/training.md says):
#
#   config/training/make_weights.sh DATA OUT     or  make weights DATA=… OUT=…
#
# 12 steps, about 11 hours on 2 cores. Run it again after any interruption: a step that is done is skipped, a training
# goes on. The weights end up in OUT/models; nothing else is changed.
# STEPS=2 gives every training so many steps, to try it out. FLAGS are further flags of the trainings on crops, for
# example '--accelerator cuda'. PYTHON is the interpreter.
set -euo pipefail
export OMP_WAIT_POLICY=PASSIVE
data=${1:?usage: make_weights.sh DATA OUT} out=${2:?usage: make_weights.sh DATA OUT}
here=$(cd "$(dirname "$0")" && pwd)
read -ra flags <<<"${FLAGS:-}"
read -ra steps <<<"${STEPS:+--steps $STEPS}"
# what the last step needs is not missed after ten hours
missing=
for place in "$data"/{camvid/{day_train,day_val,dusk},camvid_native/day_train,cityscapes_frankfurt,night_dev}/{images,labels} \
  "$data"/unlabelled/{day,night}/{msrs,roadscene}_*.jpg "$data"/clips/{night,seattlestreet1,seattlestreet2,desert,countryroad}.mp4; do
  [ -e "$place" ] || missing+=" '$place'"
done
if [ "$missing" ]; then
  echo "make_weights: DATA lacks$missing: lay it out as docs/training.md says" >&2
  exit 2
fi
mkdir -p "$out/models"
# what was tried out with few steps must not pass for done
[ -e "$out/steps" ] || echo "${STEPS:-}" >"$out/steps"
begun=$(cat "$out/steps")
if [ "$begun" != "${STEPS:-}" ]; then
  echo "make_weights: '$out' was begun with STEPS='$begun', now it is '${STEPS:-}': give another OUT" >&2
  exit 2
fi

nightseg() { echo "make_weights: nightseg $*"; "${PYTHON:-python3}" -m nightseg_ros.cli.main "$@"; }
once() {  # once NAME COMMAND…: what is done is not done again
  [ -e "$out/$1.done" ] && return
  "${@:2}"
  touch "$out/$1.done"
}
train() {  # train NAME RECIPE FLAG…
  once "$1" nightseg train "$2" "${@:3}" ${flags[@]+"${flags[@]}"} ${steps[@]+"${steps[@]}"} --out "$out/$1"
}
mean() { once "$1" nightseg train average --out "$out/$1.safetensors" --weights "${@:2}"; }
weights() { echo "$out/$1/weights.safetensors"; }

camvid=camvid:$data/camvid:day_train
real_day=images:$data/unlabelled/day:day real_night=images:$data/unlabelled/night:night
labelled_day=paired:$data/unlabelled/day:$out/pseudo_day:day labelled_night=paired:$data/unlabelled/night:$out/pseudo_night:night
labelled=("$camvid" "$camvid" "$camvid" "camvid:$data/camvid_native:day_train" "cityscapes:$data/cityscapes_frankfurt")

# 1. by day, twice: each checks the labels that the other gives
for seed in 0 1; do
  train "day$seed" segmenter --config "$here/day.yaml" --seed "$seed" --data "${labelled[@]}"
done
# 2. labels for day frames of the night's cameras
once pseudo_day nightseg train pseudo_labels --teacher "$(weights day0)" "$(weights day1)" --data "$real_day" --out "$out/pseudo_day"
# 3. by night, on physical nights alone
for seed in 0 1; do
  train "first$seed" segmenter --config "$here/night.yaml" --seed "$seed" --init "$(weights "day$seed")" \
    --data "${labelled[@]}" "$camvid" "$labelled_day"
done
# 4. labels for real nights
once pseudo_night nightseg train pseudo_labels --teacher "$(weights first0)" "$(weights first1)" --data "$real_night" --out "$out/pseudo_night"
# 5. the day→night GAN
train day_to_night day_to_night --segmenter "$(weights first0)" --nights "paired:$data/unlabelled/night:$out/pseudo_night/scene:night" \
  --data "$camvid" "paired:$data/unlabelled/day:$out/pseudo_day/scene:day"
# 6. its nights, with the labels of the day
once gan_nights nightseg synthesize --method generator --weights "$(weights day_to_night)" --ratio 1 --data "$camvid" --out "$out/gan_nights"
# 7. by night, on the GAN's nights, physical and real ones: three seeds
gan=folder:$out/gan_nights:night
for seed in 2 3 4; do
  train "night$seed" segmenter --config "$here/night.yaml" --seed "$seed" --init "$(weights first0)" \
    --data "${labelled[@]}" "$gan" "$gan" "$labelled_day" "$labelled_night"
done
# 8. their mean; by day, a quarter of it
mean night "$(weights night2)" "$(weights night3)" "$(weights night4)"
mean day "$(weights day0)" "$(weights day0)" "$(weights day0)" "$out/night.safetensors"
# 9. the night→day GAN, for the vehicle: pairs first, then adversarial (from the start it lost 7 points of night9)
translator() {  # translator NAME FLAG…
  train "$1" fast_translator --config "$here/fast_translator.yaml" --segmenter "$out/day.safetensors" --data "$camvid" "$labelled_day" "${@:2}"
}
translator pairs
translator translator --init "$(weights pairs)" --unpaired "$real_day" "$labelled_night" --loss.adversarial 2.0 --rate 1.0e-3
# 10. day or night?
clips=$data/clips unlabelled=$data/unlabelled
once illumination nightseg train illumination --out "$out/illumination.safetensors" ${steps[@]+"${steps[@]}"} --data \
  "day:camvid:$data/camvid/day_train/images" "night:nightdrive:$clips/night.mp4" "day:seattlestreet:$clips/seattlestreet1.mp4" \
  "day:seattlestreet:$clips/seattlestreet2.mp4" "day:desert:$clips/desert.mp4" "day:countryroad:$clips/countryroad.mp4" \
  "day:roadscene:$unlabelled/day/roadscene_*.jpg" "night:roadscene:$unlabelled/night/roadscene_*.jpg" \
  "day:msrs:$unlabelled/day/msrs_*.jpg" "night:msrs:$unlabelled/night/msrs_*.jpg"
# 11. the paper's network, day-only and with synthetic night
train erf_pspnet_day segmenter --config "$here/erf_pspnet.yaml" --data "$camvid"
train erf_pspnet_night segmenter --config "$here/erf_pspnet.yaml" --init "$(weights erf_pspnet_day)" --rate 1.2e-3 \
  --encoder-rate 1.0 --warm-up 20 --augment.night-share 0.6 --data "$camvid"
# 12. into OUT/models, and how sure they may be
publish() { once "publish_$1" nightseg publish "$2" --name "$1" --models "$out/models" "${@:3}"; }
calibrate() { once "calibrate_$1" nightseg calibrate --weights "$out/models/$1.safetensors" --faults-on "$camvid" "${@:2}"; }
val=$data/camvid/day_val/images dusk=camvid:$data/camvid:dusk
publish day "$out/day.safetensors" --bf16 "$val" "$data/camvid/dusk/images" "$unlabelled/day"
publish night "$out/night.safetensors" --bf16 "$val" "$data/camvid/dusk/images" "$unlabelled/day" "$unlabelled/night"
publish translator "$(weights translator)"
publish illumination "$out/illumination.safetensors" --no-half
for name in erf_pspnet_day erf_pspnet_night; do publish $name "$(weights $name)"; done
calibrate day --data "camvid:$data/camvid:day_val" "$dusk" --good "images:$unlabelled/day"
calibrate night --frames 24 --data "$dusk" "folder:$data/night_dev:night" --good "images:$unlabelled/day" "images:$unlabelled/night"
echo "make_weights: done, see $out/models; before they are used: nightseg evaluate"
