#!/usr/bin/env bash
# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
#
# Run ROS tests again and again beside busy loops; a row of CSV a round says what failed:
#
#   PYTHON=.venv/bin/python ROUNDS=20 LOOPS=4 test/repeat_ros.sh [pytest's arguments] >rounds.csv
#
# MARK chooses the tests; '' takes those of the arguments. Exits with 1 where any failed.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp) bad=0
for _ in $(seq "${LOOPS:-4}"); do
    while :; do :; done &
done
trap 'kill $(jobs -p) 2>/dev/null; rm -f "$log"' EXIT
echo 'round,seconds,passed,failed,names'
for round in $(seq "${ROUNDS:-20}"); do
    begun=$SECONDS
    "${PYTHON:-python3}" -m pytest -q -rfE -m "${MARK-ros and not slow}" "$@" >"$log" 2>&1 || bad=1
    names=$(sed -nE 's/^(FAILED|ERROR) //; T; s/ - .*//; p' "$log")
    passed=$(tail -n 1 "$log" | sed -nE 's/.*\b([0-9]+) passed.*/\1/p')
    echo "$round,$((SECONDS - begun)),${passed:-0},$(grep -c . <<<"$names"),\"${names//$'\n'/; }\""
    [ "${passed:-0}" -gt 0 ] || cat "$log" >&2
done
exit $bad
