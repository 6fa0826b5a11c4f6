# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The environment of ROS 2 processes: the DDS profile for images, and domains that are private."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import os
import random
import socket

from nightseg_ros.files import share_dir

# Jazzy's Fast DDS reads only the first name, Kilted's only the second
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

# the domains that Linux never collides with its ephemeral ports; 0 is everybody's default
_DOMAINS = range(1, 101)


def profile_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """
    Return the variables that make Fast DDS load the profile for large images, unless one is set.

    They count in the process that PUBLISHES the images, and are read when its first node starts.
    A profile that the user has named under either variable is left alone.
    """
    if any(environ.get(name) for name in PROFILE_VARIABLES):
        return {}
    profile = share_dir() / 'config' / 'fastdds_large_images.xml'
    return dict.fromkeys(PROFILE_VARIABLES, str(profile))


@contextmanager
def private_domain(environ: Mapping[str, str] = os.environ) -> Iterator[dict[str, str]]:
    """
    Yield the variables of a ROS domain that nothing else on this machine uses.

    Demo, tests and benchmarks run in it, so they never reach a live vehicle: discovery stays on
    this host, static peers are dropped, and two runs at a time get two domains. The domain is
    reserved until the block ends or the process dies. ``RuntimeError`` when all are taken.
    """
    candidates = [d for d in _DOMAINS if str(d) != environ.get('ROS_DOMAIN_ID')]
    random.shuffle(candidates)
    for domain in candidates:
        if reservation := _reserve(domain):
            with reservation:
                yield {
                    'ROS_DOMAIN_ID': str(domain),
                    'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
                    'ROS_STATIC_PEERS': '',
                }
            return
    raise RuntimeError(
        f'no free ROS domain among {_DOMAINS.start}..{_DOMAINS.stop - 1}: '
        'stop other nightseg demos and tests on this machine'
    )


def _reserve(domain: int) -> socket.socket | None:
    """Return a socket that holds ``domain`` for this process, or None where it is in use."""
    # an abstract address lives as long as its process and leaves no file behind
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        reservation.bind(f'\0nightseg-ros-domain-{domain}')
        # the discovery port of the DDS-RTPS specification, 9.6.1.1: PB + DG * domainId
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(('', 7400 + 250 * domain))
    except OSError:
        reservation.close()
        return None
    return reservation
