#!/usr/bin/env bash
# How the weights shipped in 2026 were made, step by step: 23 trainings and 15 means. Kept as a record; config/training/make_weights.sh
# replaces it. DATA is a folder with camvid/SPLIT/images and labels (ids of CamVid-11) and unlabelled/day, unlabelled/night.
# Seed 0 where none is named, 2-core x86-64 CPU with AVX-512 bf16 that did other work. `train soup` is `train average`.
# The code was that of the commits of November 2026: pseudo_labels had --prior and --without then. The settings were:
R=out/recipe_2026; mkdir -p $R
cat > $R/day.yaml <<'END'
{steps: 1200, augment: {photometric: {gain: [0.3, 1.5], curve_probability: 0.5}}}
END
cat > $R/day2.yaml <<'END'
{steps: 800, rate: 0.0025, warm_up: 40, balance: 0.3, average: 0.995, augment: {photometric: {gain: [0.7, 1.4], gamma: [0.8, 1.25], curve_probability: 0.5,
      cast: 0.05, saturation: [0.6, 1.3], blur_probability: 0.1, noise_probability: 0.15, jpeg_probability: 0.15, halo_probability: 0.05}}}
END
cat > $R/day3.yaml <<'END'
{steps: 500, rate: 0.002, warm_up: 20, seed: 1, average: 0.995, augment: {photometric: {gain: [0.7, 1.4], gamma: [0.8, 1.25], curve_probability: 0.5, cast: 0.05,
      saturation: [0.6, 1.3], blur_probability: 0.1, noise_probability: 0.15, jpeg_probability: 0.15, halo_probability: 0.05}}}
END
cat > $R/day4.yaml <<'END'
{steps: 500, rate: 0.0015, warm_up: 20, seed: 2, average: 0.995, augment: {photometric: {gain: [0.7, 1.4], gamma: [0.8, 1.25], curve_probability: 0.5, cast: 0.05,
      saturation: [0.6, 1.3], blur_probability: 0.1, noise_probability: 0.15, jpeg_probability: 0.15, halo_probability: 0.05}}}
END
cat > $R/day5.yaml <<'END'
{steps: 2400, rate: 0.002, warm_up: 40, seed: 3, balance: 0.3, average: 0.998, augment: {photometric: {gain: [0.7, 1.4], gamma: [0.8, 1.25], curve_probability: 0.5,
      cast: 0.05, saturation: [0.6, 1.3], blur_probability: 0.1, noise_probability: 0.15, jpeg_probability: 0.15, halo_probability: 0.05}}}
END
cat > $R/day_fitted.yaml <<'END'
{steps: 1100, batch: 4, rate: 0.0015, warm_up: 40, balance: 0.3, average: 0.998, long_side: 640, augment: {long_side: 640, crop: [480, 640], scale: [0.8,
      1.8], photometric: {gain: [0.7, 1.4], gamma: [0.8, 1.25], curve_probability: 0.5, cast: 0.05, saturation: [0.6, 1.3], blur_probability: 0.1, noise_probability: 0.15,
      jpeg_probability: 0.15, halo_probability: 0.05}}}
END
cat > $R/night.yaml <<'END'
{steps: 1000, rate: 0.002, warm_up: 40, balance: 0.3, average: 0.995, augment: {night_share: 0.6, night: {mixture: {street: 0.3, dark: 0.22, suburb: 0.18,
        wet: 0.08, highway: 0.12, twilight: 0.1}}, photometric: {gain: [0.4, 1.4], gamma: [0.7, 1.4], curve_probability: 0.5, cast: 0.08, saturation: [
        0.5, 1.3], blur_probability: 0.2, noise_probability: 0.25, jpeg_probability: 0.2, halo_probability: 0.1}}}
END
cat > $R/night2.yaml <<'END'
{steps: 500, rate: 0.0012, warm_up: 20, seed: 1, balance: 0.2, average: 0.995, augment: {night_share: 0.6, night: {mixture: {street: 0.3, dark: 0.22, suburb: 0.18,
        wet: 0.08, highway: 0.12, twilight: 0.1}}, photometric: {gain: [0.4, 1.4], gamma: [0.7, 1.4], curve_probability: 0.5, cast: 0.08, saturation: [
        0.5, 1.3], blur_probability: 0.2, noise_probability: 0.25, jpeg_probability: 0.2, halo_probability: 0.1}}}
END
cat > $R/night3.yaml <<'END'
{steps: 2000, rate: 0.002, warm_up: 40, seed: 5, balance: 0.2, average: 0.998, augment: {night_share: 0.6, night: {mixture: {street: 0.3, dark: 0.22, suburb: 0.18,
        wet: 0.08, highway: 0.12, twilight: 0.1}}, photometric: {gain: [0.4, 1.4], gamma: [0.7, 1.4], curve_probability: 0.5, cast: 0.08, saturation: [
        0.5, 1.3], blur_probability: 0.2, noise_probability: 0.25, jpeg_probability: 0.2, halo_probability: 0.1}}}
END
cat > $R/night_fitted.yaml <<'END'
{steps: 800, batch: 4, rate: 0.0015, warm_up: 40, balance: 0.2, average: 0.998, long_side: 640, augment: {long_side: 640, crop: [480, 640], scale: [0.8,
      1.8], night_share: 0.6, night: {mixture: {street: 0.3, dark: 0.22, suburb: 0.18, wet: 0.08, highway: 0.12, twilight: 0.1}}, photometric: {gain: [
        0.4, 1.4], gamma: [0.7, 1.4], curve_probability: 0.5, cast: 0.08, saturation: [0.5, 1.3], blur_probability: 0.2, noise_probability: 0.25, jpeg_probability: 0.2,
      halo_probability: 0.1}}}
END
cat > $R/night_unlit.yaml <<'END'
{steps: 600, batch: 4, rate: 0.0012, warm_up: 40, balance: 0.2, average: 0.998, long_side: 640, augment: {long_side: 640, crop: [384, 544], scale: [0.8,
      1.8], night_share: 0.7, unlit: 20, night: {mixture: {street: 0.28, dark: 0.2, suburb: 0.14, wet: 0.07, highway: 0.07, twilight: 0.08, unlit: 0.22}},
    photometric: {gain: [0.4, 1.4], gamma: [0.7, 1.4], curve_probability: 0.5, cast: 0.08, saturation: [0.5, 1.3], blur_probability: 0.2, noise_probability: 0.25,
      jpeg_probability: 0.2, halo_probability: 0.1}}}
END
cat > $R/erf_pspnet_day.yaml <<'END'
{network: erf_pspnet, init: random, steps: 700, rate: 0.002, warm_up: 50, average: 0.99, augment: {crop: [256, 352], scale: [0.5, 1.5], photometric: {gain: [
        0.3, 1.5], curve_probability: 0.5}}}
END
cat > $R/erf_pspnet_night.yaml <<'END'
{network: erf_pspnet, steps: 400, rate: 0.0012, encoder_rate: 1.0, warm_up: 20, average: 0.99, augment: {crop: [256, 352], scale: [0.5, 1.5], night_share: 0.6,
    photometric: {gain: [0.3, 1.5], curve_probability: 0.5}}}
END
cat > $R/fast_translator.yaml <<'END'
{steps: 800, batch: 6, augment: {crop: [224, 320], scale: [0.6, 1.4], night_share: 0.9}}
END
# 1. the day segmenter: CamVid by day, ImageNet encoder, strong photometric augmentation ...
nightseg train segmenter --config $R/day.yaml \
    --data camvid:DATA/camvid:day_train --out out/train/day1
# ... then three further looks with milder changes, one with weights for rare classes
nightseg train segmenter --config $R/day2.yaml --init out/train/day1/weights.safetensors \
    --data camvid:DATA/camvid:day_train --out out/train/day2
nightseg train segmenter --config $R/day3.yaml --init out/train/day2/weights.safetensors \
    --data camvid:DATA/camvid:day_train --out out/train/day3
nightseg train segmenter --config $R/day4.yaml --init out/train/day3/weights.safetensors \
    --data camvid:DATA/camvid:day_train --out out/train/day4
#    ... the last of them with two further seeds
for S in 12 22; do
    nightseg train segmenter --config $R/day4.yaml --seed $S --workers 0 \
        --init out/train/day3/weights.safetensors --data camvid:DATA/camvid:day_train --out out/train/day4_$S
done

# 2. labels for the unlabelled day frames of other cameras, where the day segmenter is surest:
#    half of the night gap is a gap of camera and city
nightseg train pseudo_labels --teacher out/train/day2/weights.safetensors \
    --data images:DATA/unlabelled/day:day --prior camvid:DATA/camvid:day_train \
    --without fence bicyclist --out out/train/pseudo_day

# 3. the night segmenter: both, 60 % of the crops turned into synthetic night
nightseg train segmenter --config $R/night.yaml --init out/train/day2/weights.safetensors \
    --data camvid:DATA/camvid:day_train paired:DATA/unlabelled/day:out/train/pseudo_day \
    --out out/train/night1

# 4. labels for real, unlabelled night frames, where the first round is surest; only of classes that
#    it does not see everywhere
nightseg train pseudo_labels --teacher out/train/night1/weights.safetensors \
    --data images:DATA/unlabelled/night:night --prior camvid:DATA/camvid:day_train \
    --without fence bicyclist tree pavement sign --out out/train/pseudo_night

# 5. a second, short round with those
nightseg train segmenter --config $R/night2.yaml --init out/train/night1/weights.safetensors \
    --data camvid:DATA/camvid:day_train paired:DATA/unlabelled/day:out/train/pseudo_day \
    paired:DATA/unlabelled/night:out/train/pseudo_night:night --out out/train/night2

# 6. steps 3 to 5 with two further seeds: night.yaml with --seed 10 and 20, night2.yaml with --seed 11 and 21,
#    all with --workers 0, labels of the nights by each first round itself; into out/train/s1_night1,
#    s1_night2, s2_night1 and s2_night2

# 7. means of them all, to be used at a long side of 640, from which a longer round goes on
T=out/train D=out/train/day F=weights.safetensors
mean() { O=$1; shift; nightseg train soup --weights "$@" --long-side 640 --out $T/$O.safetensors; }
mean of_day ${D}2/$F ${D}3/$F ${D}4/$F ${D}4_12/$F ${D}4_22/$F
mean of_night1 $T/night1/$F $T/s1_night1/$F $T/s2_night1/$F
mean day $T/of_day.safetensors $T/of_day.safetensors $T/of_day.safetensors $T/of_night1.safetensors
for S in '' s1_ s2_; do
    A=$T/${S}night1/$F B=$T/${S}night2/$F; mean ${S}night ${D}4/$F $A $A $A $B $B $B
done
mean night_of_3 $T/night.safetensors $T/s1_night.safetensors $T/s2_night.safetensors

# 8. a long look at the day, and a long round of the night with labels of better teachers
nightseg train segmenter --config $R/day5.yaml --workers 0 --init $T/of_day.safetensors \
    --data camvid:DATA/camvid:day_train --out $T/day5
nightseg train pseudo_labels --teacher $T/day.safetensors --data images:DATA/unlabelled/day:day \
    --prior camvid:DATA/camvid:day_train --without fence bicyclist --out $T/pseudo_day3
nightseg train pseudo_labels --teacher $T/night_of_3.safetensors --data images:DATA/unlabelled/night:night \
    --prior camvid:DATA/camvid:day_train --without fence bicyclist tree pavement sign --out $T/pseudo_night3
nightseg train segmenter --config $R/night3.yaml --workers 0 --init $T/night_of_3.safetensors \
    --data camvid:DATA/camvid:day_train paired:DATA/unlabelled/day:$T/pseudo_day3 \
    paired:DATA/unlabelled/night:$T/pseudo_night3:night --out $T/night3

# 9. means of these two: three to one for the day, two to one for the night
D=$T/day5/$F N=$T/night3/$F
mean day_shipped $D $D $D $N
mean night_shipped $N $N $D

# 10. into models/ as float16, rounded to what bfloat16 holds and compared in it, and scores
V=DATA/camvid/day_val/images U=DATA/camvid/dusk/images
nightseg publish out/train/day_shipped.safetensors --name day --bf16 $V $U DATA/unlabelled/day
nightseg publish out/train/night_shipped.safetensors --name night --bf16 $V $U DATA/unlabelled/day DATA/unlabelled/night

# 11. a further round from that `night`: two seeds by day, one by night, all at 640
I="--workers 0 --long-side 640 --init models/night.safetensors"
nightseg train segmenter --config $R/day5.yaml --seed 6 --steps 1600 $I \
    --data camvid:DATA/camvid:day_train --out $T/day6
nightseg train segmenter --config $R/day5.yaml --seed 8 --steps 1600 $I \
    --data camvid:DATA/camvid:day_train --out $T/day7
A=$T/day6/$F B=$T/day7/$F O=models/night.safetensors
mean d6_3n $A $A $A $O
nightseg train pseudo_labels --teacher $T/d6_3n.safetensors --data images:DATA/unlabelled/day:day \
    --prior camvid:DATA/camvid:day_train --without fence bicyclist --out $T/pseudo_day4
nightseg train pseudo_labels --teacher $O --data images:DATA/unlabelled/night:night \
    --prior camvid:DATA/camvid:day_train --without fence bicyclist tree pavement sign --out $T/pseudo_night4
nightseg train segmenter --config $R/night3.yaml --seed 7 --steps 1300 $I \
    --data camvid:DATA/camvid:day_train paired:DATA/unlabelled/day:$T/pseudo_day4 \
    paired:DATA/unlabelled/night:$T/pseudo_night4:night --out $T/night4
C=$T/night4/$F
mean day_shipped $A $A $A $B $B $B $O $O
mean night_shipped $C $C $O $O $A $B
# ... published by the two commands of step 10, which make `day` and `night` anew

# 12. a round on whole pictures at the size of use, with a third source of day frames: a frame a second of
#     three clips by day
CLIPS="DATA/clips/seattlestreet1.mp4 DATA/clips/desert.mp4 DATA/clips/countryroad.mp4"
nightseg data extract $CLIPS --every 1 --out $T/clips_day
cp models/day.safetensors models/night.safetensors $T    # what this round starts from
label() { nightseg train pseudo_labels --prior camvid:DATA/camvid:day_train --without fence bicyclist "$@"; }
label --teacher $T/day.safetensors --data images:DATA/unlabelled/day:day --out $T/pseudo_day5
label --teacher $T/day.safetensors --data images:$T/clips_day:day --out $T/pseudo_clips5
label tree pavement sign --teacher $T/night.safetensors --data images:DATA/unlabelled/night:night --out $T/pseudo_night5
L="camvid:DATA/camvid:day_train paired:DATA/unlabelled/day:$T/pseudo_day5 paired:$T/clips_day:$T/pseudo_clips5"
for S in 0 1; do
    nightseg train segmenter --config $R/night_fitted.yaml --seed $S --workers 0 \
        --init $T/night.safetensors --data $L paired:DATA/unlabelled/night:$T/pseudo_night5:night --out $T/f_n$S
done
nightseg train segmenter --config $R/day_fitted.yaml --workers 0 --init $T/day.safetensors \
    --data camvid:DATA/camvid:day_train --out $T/f_d0
A=$T/f_n0/$F B=$T/f_n1/$F N=$T/night.safetensors D=$T/day.safetensors E=$T/f_d0/$F
mean fitted $A $B $N $N $D $D
#     ... and once more from their mean, with trees and pavement among the labels of the nights
label sign --teacher $T/fitted.safetensors --data images:DATA/unlabelled/night:night --out $T/pseudo_night6
for S in 3 4 5; do
    nightseg train segmenter --config $R/night_fitted.yaml --seed $S --steps 600 --rate 1.2e-3 --workers 0 \
        --init $T/fitted.safetensors --data $L paired:DATA/unlabelled/night:$T/pseudo_night6:night --out $T/f_n$S
done
C=$T/f_n3/$F S=$T/fitted.safetensors
mean night_shipped $C $T/f_n4/$F $T/f_n5/$F $S $S $S
mean day_shipped $E $E $D $C
# ... published by the two commands of step 10 once more,
# and then they learn how sure they may be: the two calls of `nightseg calibrate` in docs/training.md
# 13. against persons in the black: another city, unlit roads. frankfurt/ holds the images and labels of Cityscapes'
#     frames and a taxonomy.json (Cityscapes-19); run A with `unlit: 12` and a share of 0.16, B and C as the file has it
label --teacher $T/day.safetensors --data images:DATA/unlabelled/day:day --out $T/pseudo_day7
label sign --teacher $T/night.safetensors --data images:DATA/unlabelled/night:night --out $T/pseudo_night7
unlit() { nightseg train segmenter --config $R/night_unlit.yaml --precision 32-true --workers 0 \
    --data camvid:DATA/camvid:day_train camvid:DATA/camvid:day_train camvid:DATA/camvid:day_train \
    camvid:DATA/camvid_native:day_train folder:$T/frankfurt:day paired:DATA/unlabelled/day:$T/pseudo_day7:day \
    paired:DATA/unlabelled/night:$T/pseudo_night7:night "$@"; }
unlit --seed 0 --init $T/night.safetensors --augment.unlit 12 --out $T/unlitA
unlit --seed 1 --init $T/unlitA/$F --out $T/unlitB
mean unlit_start $T/unlitB/$F $T/unlitB/$F $T/night.safetensors
unlit --seed 2 --steps 500 --init $T/unlit_start.safetensors --out $T/unlitC
mean night_shipped $T/unlitB/$F $T/unlitC/$F
# 14. `day` once more: 217 frames of Frankfurt (all but the sequence 000000, whose 50 frames are scored), CamVid native.
#     --config is that of day_fitted above with crops of [384, 544] and a rate of 1.0e-3
city() { nightseg train segmenter --config $R/day_fitted.yaml --rate 1.0e-3 --augment.crop 384 544 --precision 32-true \
    --workers 0 --data camvid:DATA/camvid:day_train camvid:DATA/camvid:day_train camvid:DATA/camvid_native:day_train "$@"; }
city folder:$T/frank_train:day paired:DATA/unlabelled/day:$T/pseudo_day7:day \
    --steps 500 --seed 0 --init models/day.safetensors --out $T/cityA
city folder:$T/frank_train:day folder:$T/frank_train:day --steps 600 --seed 1 --init $T/cityA/$F --out $T/cityB
city folder:$T/frank_train:day folder:$T/frank_train:day --steps 500 --seed 2 --init $T/cityB/$F --out $T/cityC
mean day_shipped models/day.safetensors $T/cityB/$F $T/cityC/$F
nightseg publish out/train/day_shipped.safetensors --name day --bf16 $V DATA/camvid/dusk/images DATA/unlabelled/day
nightseg calibrate --weights day --data camvid:DATA/camvid:day_val camvid:DATA/camvid:dusk \
    --faults-on camvid:DATA/camvid:day_train --good images:DATA/unlabelled/day
nightseg evaluate --backend openvino --route day --out out/eval/city \
    --dataset folder:$T/frank_held:day camvid:DATA/camvid:dusk camvid:DATA/camvid:day_val
# 15. nights of the day->night GAN in further rounds of `night` (results/gan_nights.csv; G3 is shipped, a third of the mean)
nightseg train day_to_night --segmenter night --steps 3000 --precision 32-true --workers 0 --out $T/d2n \
    --data camvid:DATA/camvid:day_train paired:DATA/unlabelled/day:$T/pseudo_day7/scene:day \
    --nights paired:DATA/unlabelled/night:$T/pseudo_night7/scene:night
gan() { nightseg synthesize --method generator --weights $T/d2n/$F --ratio 1 --long-side 640 "$@"; }
gan --data camvid:DATA/camvid:day_train --seed 1 --out $T/gan_camvid
gan --data folder:$T/frankfurt:day --seed 2 --out $T/gan_frank
# scored by: nightseg evaluate --backend openvino --route night --dataset folder:DATA/night_dev camvid:DATA/camvid:dusk
# G1: `unlit` with two times CamVid, --rate 1.0e-3, --augment.night-share 0.4 and two times gan_camvid, once gan_frank;
# G2: the same with a night-share of 0.7 and gan_camvid once
# G3: that with --rate 5.0e-4, and a second night of the GAN for each picture (--seed 11)
mean night_shipped models/night.safetensors models/night.safetensors $T/G3/$F
nightseg publish out/train/night_shipped.safetensors --name night --bf16 $V DATA/camvid/dusk/images DATA/unlabelled/day DATA/unlabelled/night
# ... and `nightseg calibrate --weights night` of docs/training.md
nightseg evaluate --backend openvino --compare route=day route=night route=auto --out out/eval/routes \
    --dataset camvid:DATA/camvid:day_test camvid:DATA/camvid:dusk folder:DATA/night_dev

# -- ERF-PSPNet
nightseg train segmenter --config $R/erf_pspnet_day.yaml --data camvid:DATA/camvid:day_train \
    --out out/train/erf_day
nightseg train segmenter --config $R/erf_pspnet_night.yaml --init out/train/erf_day/weights.safetensors \
    --data camvid:DATA/camvid:day_train --out out/train/erf_night
nightseg publish out/train/erf_day/weights.safetensors --name erf_pspnet_day
nightseg publish out/train/erf_night/weights.safetensors --name erf_pspnet_night
nightseg evaluate --route night --weights-night erf_pspnet_night --out out/eval/erf \
    --dataset camvid:DATA/camvid:day_test camvid:DATA/camvid:dusk folder:DATA/night_dev

# -- translator
fast() { nightseg train fast_translator --config $R/fast_translator.yaml \
    --steps 400 --batch 4 --augment.crop 192 288 --long-side 640 "$@"; }
# with the `day` of step 7 of one seed as its judge ...
fast --data camvid:DATA/camvid:day_train paired:DATA/unlabelled/day:out/train/pseudo_day:day \
    --segmenter DAY_OF_STEP_7 --out out/train/fast_translator
nightseg publish out/train/fast_translator/weights.safetensors --name translator
# ... with the `day` of step 12, and the mean of both
fast --workers 0 --data camvid:DATA/camvid:day_train paired:DATA/unlabelled/day:out/train/pseudo_day5:day \
    --segmenter models/day.safetensors --out out/train/fast_translator2
nightseg train soup --weights models/translator.safetensors out/train/fast_translator2/weights.safetensors \
    --out out/train/translator.safetensors
nightseg publish out/train/translator.safetensors --name translator
# ... and adversarial, with the `day` of step 14 (from the start with `--steps 3600`, without --init: 0.558 for 0.629)
fast --workers 0 --init models/translator.safetensors --rate 1.0e-3 --steps 500 --batch 3 --night-batch 3 --precision 32-true \
    --loss.adversarial 2.0 --loss.night_semantic 1.0 --segmenter models/day.safetensors \
    --data camvid:DATA/camvid:day_train paired:DATA/unlabelled/day:$T/pseudo_day7:day \
    --unpaired images:DATA/unlabelled/day:day paired:DATA/unlabelled/night:$T/pseudo_night7:night --out out/train/fast_translator3
nightseg publish out/train/fast_translator3/weights.safetensors --name translator
# ... and without colour in the black, on nights with the labels of `night`
nightseg predict DATA/unlabelled/night --route night --backend openvino --out $T/night_labels
nightseg train fast_translator --config config/training/fast_translator.yaml --init translator --rate 1.0e-3 --steps 600 \
    --loss.adversarial 2.0 --segmenter day --data camvid:DATA/camvid:day_train --picture-every 0 \
    --unpaired images:DATA/unlabelled/day:day paired:DATA/unlabelled/night:$T/night_labels/labels:night --out out/train/fast_translator4
nightseg publish out/train/fast_translator4/weights.safetensors --name translator
nightseg evaluate --route translate --out out/eval/translate \
    --dataset camvid:DATA/camvid:dusk folder:DATA/night_dev

# -- the small CycleGAN of results.md
nightseg train translator --ngf 16 --blocks 4 --ndf 16 --residual --crop 128 --long-side 320 --day-to-night.identity 0 \
    --night-to-day.identity 0 --rate 4e-4 --steps 3000 --data images:DATA/unlabelled/day:day images:DATA/unlabelled/night:night \
    --segmenter day --night-segmenter night --out out/cyclegan_small
