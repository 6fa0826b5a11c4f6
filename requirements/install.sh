#!/usr/bin/env bash
# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
#
# install.sh VENV [full]: a virtual environment with what node and demo need, and this package in
# it, editable; full: what tests, training and lint need as well. Calling it again is harmless.
#
# PYTHON      interpreter to build on (python3)
# ROS_DISTRO  jazzy or kilted: which ROS 2 wheels; ignored where ROS_SOURCED=yes
# ROS_SOURCED yes: a ROS 2 environment is sourced, its rclpy is used and no wheel is installed
# LOCKED      1: the very versions and files of requirements/lock/, refused where a hash differs;
#             always full
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:?usage: install.sh VENV [full]}
extent=${2:-light}
python=${PYTHON:-python3}
distro=${ROS_DISTRO:-jazzy}
sourced=${ROS_SOURCED:-no}
locked=${LOCKED:-}

die() { echo "setup: $*" >&2; exit 1; }

command -v "$python" >/dev/null || die "no $python: apt install python3 python3-venv"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
  3.10 | 3.11 | 3.12 | 3.13 | 3.14) ;;
  *) die "CPython 3.10 to 3.14 is wanted, $python is $version: make setup PYTHON=python3.12" ;;
esac
"$python" -c 'import ensurepip, venv' 2>/dev/null \
  || die "$python cannot make virtual environments: apt install python$version-venv"

flags=() compile=()
needs=(-r requirements/runtime.txt -c requirements/constraints.txt)
if [ "$extent" = full ]; then
  for name in torch onnx train test fleet lint; do needs+=(-r "requirements/$name.txt"); done
fi
if [ "$sourced" = yes ]; then
  echo "setup: using the rclpy of the ROS 2 environment that is sourced"
  "$python" -c 'import rclpy.event_handler' 2>/dev/null \
    || die "that ROS 2 is too old, Jazzy or later is wanted: use a shell that has not sourced it," \
    "in which ROS 2 comes as wheels"
  flags+=(--system-site-packages)
  # cv_bridge of apt is compiled against one numpy: stay on its side of 2.0
  if "$python" -c 'import cv_bridge, numpy, sys; sys.exit(int(numpy.__version__[0]) >= 2)' \
    2>/dev/null; then
    needs+=('numpy<2')
  fi
else
  # its PYTHONPATH would shadow the wheels
  [ -z "${ROS_VERSION:-}" ] || die "a ROS 2 environment is sourced, but $python ($version) cannot" \
    "import its rclpy: name its own interpreter, make setup PYTHON=/usr/bin/python3, or use a" \
    "shell without it"
  [ -f "requirements/ros-$distro.txt" ] \
    || die "no ROS 2 wheels are known for ROS_DISTRO=$distro: take jazzy or kilted, or source the" \
    "ROS 2 that is installed"
  needs+=(-r "requirements/ros-$distro.txt")
fi

# one that was interrupted has a Python, but no pip
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv "${flags[@]}" "$venv"
echo "setup: installing into $venv, this takes a minute the first time, full some minutes"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
# what is never imported need not be compiled
[ "$extent" = full ] || compile=(--no-compile)
if [ -n "$locked" ]; then
  [ "$sourced" = no ] || die "LOCKED=1 is for ROS 2 from wheels; here a ROS 2 is sourced"
  lock=("${pip[@]}" install --no-deps --require-hashes)
  "${lock[@]}" -r requirements/lock/base.txt -r "requirements/lock/ros-$distro.txt"
  "${lock[@]}" -r requirements/lock/cpu.txt 2>/dev/null \
    || { echo "setup: the torch for CPUs is not offered here, taking the one with CUDA"
         "${lock[@]}" -r requirements/lock/cuda.txt; }
  "${pip[@]}" install --no-deps --no-build-isolation --editable .
  "$venv/bin/python" -m pip check || die "requirements/lock/ does not hold everything: make lock"
else
  "${pip[@]}" install "${compile[@]}" "${needs[@]}"
  "${pip[@]}" install --no-deps --editable .
fi
"$venv/bin/python" -c 'import rclpy' || die "rclpy does not import in $venv"
echo "setup: $venv is ready"
