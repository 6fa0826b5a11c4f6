# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Some hundred damaged inputs for each reader; ``make fuzz`` goes on for a million each."""

import random

import fuzz_targets
import pytest

pytestmark = pytest.mark.slow
#: For each reader.
TRIES = 300


@pytest.mark.parametrize('name', fuzz_targets.TARGETS)
def test_whole_samples_are_read_and_wrong_bytes_in_them_do_no_harm(name):
    target, _ = fuzz_targets.TARGETS[name]
    samples = fuzz_targets.samples(name)
    for content in samples:
        target(content)
    chance = random.Random(name)
    for _ in range(TRIES):
        damaged = bytearray(chance.choice(samples))
        for _ in range(chance.randint(1, 4)):
            at = chance.randint(0, len(damaged))
            end = at + chance.choice((0, 1, 2, 4, 8, 64))
            damaged[at:end] = chance.randbytes(chance.choice((0, 1, 2, 4, 8)))
        try:
            target(bytes(damaged))
        except Exception as error:
            raise AssertionError(f'{name}: {bytes(damaged)!r}') from error
