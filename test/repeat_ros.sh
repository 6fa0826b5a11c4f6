#!/usr/bin/env bash
# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
#
# Run the ROS tests again and again beside busy loops, and say which of them failed how often:
#   PYTHON=.venv/bin/python ROUNDS=20 LOOPS=4 test/repeat_ros.sh [pytest's arguments]
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
for _ in $(seq "${LOOPS:-4}"); do
    while :; do :; done &
done
trap 'kill $(jobs -p); rm -f "$log"' EXIT
bad=0
for round in $(seq "${ROUNDS:-20}"); do
    "${PYTHON:-python3}" -m pytest -q -m ros "$@" | tee -a "$log" | tail -n 1 \
        | sed "s/^/round $round: /" || bad=1
done
grep -E '^(FAILED|ERROR)' "$log" | sed 's/ - .*//' | sort | uniq -c | sort -rn
exit $bad
