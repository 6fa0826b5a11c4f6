# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What a process and its children send, or would send, out of this machine.

Three nets: a proxy on the loopback that every HTTP client is told to use, which hears the name of
the server, native code's too, and lets nothing through; an audit hook that hears and refuses what
Python looks up or connects to; the kernel's table of sockets, read again and again. The home is a
new one, in which a library would leave the id that it reports with.
"""

from collections.abc import Iterator
import contextlib
from ipaddress import ip_address
import os
from pathlib import Path
import socket
import sys
import threading

from nightseg_ros.files import cache_dir

HOOK = """
import os, socket, sys

def hear(event, arguments):
    if event in ('socket.getaddrinfo', 'socket.gethostbyname'):
        host = arguments[0]
    elif event in ('socket.connect', 'socket.sendto'):
        # ROS speaks to its neighbours by multicast, without connections
        if arguments[0].family not in (socket.AF_INET, socket.AF_INET6):
            return
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, '', 'localhost', '::1', socket.gethostname()) or host.startswith('127.'):
        return
    with open(os.environ['NETWORK_WATCH'], 'a') as log:
        log.write(f'{event} {host}\\n')
    raise OSError(f'{host}: refused by the test')

sys.addaudithook(hear)
"""
#: What the package sets so that no library reports.
SWITCHES = {
    'ORT_DISABLE_TELEMETRY': '1',
    'RAY_USAGE_STATS_ENABLED': '0',
    'HF_HUB_DISABLE_TELEMETRY': '1',
    'DISABLE_TELEMETRY': '1',
    'DO_NOT_TRACK': '1',
}
#: Variables that would silence a library, so that nothing would be tested.
HUSH = {
    *SWITCHES, 'CI', 'TF_BUILD', 'JENKINS_URL', 'ORT_RUNNING_UNIT_TESTS', 'NO_PROXY', 'no_proxy',
}  # fmt: skip
PROXIES = ('http_proxy', 'https_proxy', 'all_proxy')


class NetworkWatch:
    """Gives a process its environment, and hears what it wants from the network."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.home = folder / 'home'
        self.home.mkdir()
        (folder / 'sitecustomize.py').write_text(HOOK)
        self._log = folder / 'network.log'
        self._heard: list[str] = []
        self._server = socket.create_server(('127.0.0.1', 0))
        threading.Thread(target=self._refuse, daemon=True).start()

    def environment(self) -> dict[str, str]:
        """Return the variables to start a process with; the cache of graphs stays the user's."""
        kept = {name: value for name, value in os.environ.items() if name not in HUSH}
        proxy = f'http://127.0.0.1:{self._server.getsockname()[1]}'
        kept |= {name: proxy for one in PROXIES for name in (one, one.upper())}
        paths = [str(self._folder), *sys.path[1:], os.environ.get('PYTHONPATH', '')]
        return kept | {
            'PYTHONPATH': os.pathsep.join(path for path in paths if path),
            'HOME': str(self.home), 'NIGHTSEG_CACHE': str(cache_dir()),
            'NETWORK_WATCH': str(self._log),
        }  # fmt: skip

    @contextlib.contextmanager
    def sockets(self, pid: int) -> Iterator[None]:
        """Read the sockets of a process and its children again and again."""
        done = threading.Event()

        def read() -> None:
            while not done.wait(0.02):
                self._heard += [f'socket to {peer}' for one in family(pid) for peer in peers(one)]

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def heard(self) -> set[str]:
        """Return what was asked for, and the ids that were left in the home."""
        log = self._log.read_text().splitlines() if self._log.exists() else []
        left = [str(path) for path in self.home.rglob('*') if left_by_reporter(path)]
        return {*self._heard, *log, *left}

    def close(self) -> None:
        self._server.close()

    def _refuse(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(5)
                asked = client.recv(200).partition(b'\r\n')[0]
                self._heard.append(f'proxy {asked.decode(errors="replace")}')


def left_by_reporter(path: Path) -> bool:
    return any(part in ('intel', 'Microsoft') for part in path.parts) and path.is_file()


def family(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    yield pid
    for file in Path(f'/proc/{pid}/task').glob('*/children'):
        with contextlib.suppress(OSError):
            for child in file.read_text().split():
                yield from family(int(child))


def peers(pid: int) -> set[str]:
    """Return the far ends of the connected sockets of a process that lie on other machines."""
    own, found = set(), set()
    # the process and its descriptors come and go
    with contextlib.suppress(OSError):
        for descriptor in Path(f'/proc/{pid}/fd').iterdir():
            with contextlib.suppress(OSError):
                own.add(os.readlink(descriptor))
        for kind in ('tcp', 'tcp6', 'udp', 'udp6'):
            for line in Path(f'/proc/{pid}/net/{kind}').read_text().splitlines()[1:]:
                fields = line.split()
                address = fields[2].partition(':')[0]
                if f'socket:[{fields[9]}]' in own and not at_home(address):
                    found.add(f'{kind} {address}')
    return found


def at_home(address: str) -> bool:
    """
    Tell whether an address of the kernel's tables is none, or on the loopback.

    It stands there in hexadecimal words of four bytes, in the order of a little-endian machine.
    """
    words = [bytes.fromhex(address[at:][:8])[::-1] for at in range(0, len(address), 8)]
    found = ip_address(b''.join(words))
    found = getattr(found, 'ipv4_mapped', None) or found
    return found.is_unspecified or found.is_loopback
