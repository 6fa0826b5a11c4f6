# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""No process of ours opens a connection that nobody asked for, or a pool of idle threads."""

from collections.abc import Iterator
import contextlib
from importlib.util import find_spec
import json
import os
from pathlib import Path
import socket
import subprocess
import sys
import threading
import time

from nightseg_ros.config import to_mapping
from nightseg_ros.files import cache_dir
import pytest
from tiny_data import tiny_config, write_streets
from tiny_weights import weight_flags, write_all
import yaml

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
    """
    Gives a process its environment, and hears what it and its children want from the network.

    Three nets: a proxy on the loopback that every HTTP client is told to use, which hears the name
    of the server, native code's too, and lets nothing through; an audit hook that hears and
    refuses what Python looks up or connects to; the kernel's table of sockets, read again and
    again. The home is a new one, in which a library would leave the id that it reports with.
    """

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
    """Tell whether an address of the kernel's tables is none, or on the loopback."""
    # hexadecimal words of four bytes, in the order of a little-endian machine
    return address.endswith('0100007F') or address in ('0' * 8, '0' * 32, '0' * 24 + '01000000')


# -- tests -----------------------------------------------------------------------------------

#: What openvino and nncf report with.
REPORTER = 'openvino_telemetry'
PATIENCE = 120.0
#: onnxruntime sends nine seconds after it was loaded.
BUNDLE_S = 12.0


@pytest.fixture
def watch(tmp_path):
    folder = tmp_path / 'watch'
    folder.mkdir()
    found = NetworkWatch(folder)
    yield found
    found.close()


def run(watch: NetworkWatch, *arguments: str) -> str:
    """Run Python to its end, fail where it fails, and return what it says."""
    process = subprocess.Popen(
        [sys.executable, *arguments], env=watch.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with watch.sockets(process.pid):
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0, output[-2000:]
    return output


def test_the_watch_hears_what_openvino_sends_on_its_import(watch):
    spec = 'import importlib.util as u; assert u.find_spec("openvino_telemetry")'
    run(watch, '-c', f'import openvino, time; {spec}; time.sleep(2)')
    heard = watch.heard()
    assert any('google-analytics' in text or text.startswith('socket.') for text in heard), heard
    assert any('openvino_ga_cid' in text for text in heard), heard


def test_the_watch_hears_a_connection(watch):
    connect = 'import socket; socket.socket().connect(("192.0.2.1", 80))'
    run(watch, '-c', f'try:\n  {connect}\nexcept OSError: pass')
    assert watch.heard() == {'socket.connect 192.0.2.1'}


def test_the_watch_hears_a_socket_that_python_does_not_tell_of(watch, monkeypatch):
    monkeypatch.setitem(globals(), 'at_home', lambda address: False)
    with (
        socket.create_server(('127.0.0.1', 0)) as server,
        socket.create_connection(server.getsockname()),
    ):
        assert 'tcp 0100007F' in peers(os.getpid())
        with watch.sockets(os.getpid()):
            while 'socket to tcp 0100007F' not in watch.heard():
                time.sleep(0.02)


def test_the_package_sets_the_switches_on_its_import_but_for_those_of_the_user():
    code = (
        'import json, os, sys, nightseg_ros; '
        f'assert sys.modules["{REPORTER}"] is None; '
        'assert not {"numpy", "cv2", "torch"} & set(sys.modules); '
        'print(json.dumps(dict(os.environ)))'
    )
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    for own in ({}, {'RAY_USAGE_STATS_ENABLED': '1'}):
        said = subprocess.check_output([sys.executable, '-c', code], env=kept | own)
        found = json.loads(said)
        assert {name: found.get(name) for name in SWITCHES} == SWITCHES | own


@pytest.mark.slow
def test_predict_by_onnxruntime_opens_no_connection(watch, tmp_path):
    write_streets(tmp_path / 'streets')
    options = ['--out', str(tmp_path / 'out'), '--backend', 'onnxruntime', '--device', 'cpu']
    arguments = [str(tmp_path / 'streets' / 'images'), *weight_flags(tmp_path), *options]
    code = (
        'import sys, time; from nightseg_ros.cli.main import main; '
        f'code = main(sys.argv[1:]); time.sleep({BUNDLE_S}); sys.exit(code)'
    )
    run(watch, '-c', code, 'predict', *arguments)
    assert watch.heard() == set()


@pytest.mark.parametrize('verb', ['info', pytest.param('train', marks=pytest.mark.slow)])
def test_verbs_open_no_connection(watch, tmp_path, verb):
    arguments = ['info']
    if verb == 'train':
        data = write_streets(tmp_path / 'streets')
        config = tiny_config(data, tmp_path / 'run', steps=1, warm_up=0, checkpoint_every=1)
        file = tmp_path / 'train.yaml'
        file.write_text(yaml.safe_dump(to_mapping(config)))
        arguments = ['train', 'segmenter', '--config', str(file)]
    run(watch, '-m', 'nightseg_ros.cli.main', *arguments)
    assert watch.heard() == set()


HUB = """
import {first}ray, transformers
from huggingface_hub.utils import send_telemetry
from ray._common.usage.usage_lib import usage_stats_enabled
import time
send_telemetry('nightseg')
# a thread sends it
time.sleep(3)
print('Ray reports:', usage_stats_enabled())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    None in map(find_spec, ('ray', 'transformers', 'huggingface_hub')), reason='not all are there'
)
def test_ray_and_huggingface_hub_report_nothing_behind_the_package(watch):
    assert 'Ray reports: False' in run(watch, '-c', HUB.format(first='nightseg_ros, '))
    assert watch.heard() == set()
    assert 'Ray reports: True' in run(watch, '-c', HUB.format(first=''))
    assert any('huggingface.co' in text for text in watch.heard())


@pytest.mark.ros
@pytest.mark.slow
def test_the_node_with_openvino_opens_no_connection(watch, tmp_path, monkeypatch):
    harness = pytest.importorskip('ros_harness')
    files = {name: str(path) for name, path in write_all(tmp_path).items()}
    environment = watch.environment()
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parameters = {**files, 'backend': 'openvino', 'device': 'cpu'}
    with harness.running(tmp_path / 'log', parameters) as node, watch.sockets(node.process.pid):
        node.until('active; waiting')
        with pytest.raises(subprocess.TimeoutExpired):
            node.process.wait(BUNDLE_S)
    assert watch.heard() == set()


POOLS = """
import {first}
import json
import cv2
import nightseg_ros
import numpy
{then}
import threadpoolctl
pools = [p for p in threadpoolctl.threadpool_info() if p['internal_api'] == 'openblas']
print(json.dumps([cv2.getNumThreads(), *(p['num_threads'] for p in pools)]))
"""


@pytest.mark.parametrize(
    ('first', 'then'),
    [
        ('nightseg_ros', ''),
        ('numpy, cv2', 'from nightseg_ros.runtime.backends import open_backend as o; o()'),
    ],
)
def test_openblas_and_opencv_have_one_thread(first, then):
    named = ('OPENBLAS_NUM_THREADS', 'OPENCV_FOR_THREADS_NUM', 'OMP_NUM_THREADS')
    environment = {name: value for name, value in os.environ.items() if name not in named}
    command = [sys.executable, '-c', POOLS.format(first=first, then=then)]
    said = subprocess.check_output(command, env=environment, text=True, timeout=120)
    pools = json.loads(said.splitlines()[-1])
    assert len(pools) > 1 and set(pools) == {1}
