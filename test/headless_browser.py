# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A real browser without a window, spoken to by the Chrome DevTools protocol over a pipe."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
import select
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
_FLAGS = (
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--disable-dev-shm-usage', '--remote-debugging-pipe',
)  # fmt: skip
#: Becomes the browser, with the protocol's ends where it looks for them.
_START = """
import os, sys
for number, end in enumerate(sys.argv[1:3], 3):
    os.dup2(int(end), number)
    os.close(int(end))
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """Return the path of a Chromium, None where none is installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page; what the page asks of the network and complains of is kept."""

    def __init__(self, executable: str) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # the protocol's ends are descriptors 3 and 4; numbers above them cannot be in the way
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
        flags = [*_FLAGS, f'--user-data-dir={self._profile.name}', 'about:blank']
        self._process = subprocess.Popen(
            [sys.executable, '-I', '-S', '-c', _START, *map(str, ends), executable, *flags],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        self._buffer = b''
        self._number = 0
        self._session: str | None = None
        self._loaded = False
        self._urls: dict[str, str] = {}
        self.requests: list[str] = []
        """Addresses that the page asked for."""
        self.blocked: list[str] = []
        """Those that the page's own policy stopped."""
        self.complaints: list[str] = []
        """Errors and warnings of the console, and uncaught exceptions."""
        page = next(
            t for t in self.call('Target.getTargets')['targetInfos'] if t['type'] == 'page'
        )
        attach = {'targetId': page['targetId'], 'flatten': True}
        self._session = self.call('Target.attachToTarget', attach)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def show(self, page: Path | str, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Show a file or address on a screen of ``width`` CSS pixels, a phone's below 600."""
        phone = width < 600
        screen = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': phone}
        self.call('Emulation.setDeviceMetricsOverride', screen)
        scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
        self.call('Emulation.setEmulatedMedia', {'features': [scheme]})
        self.requests, self.blocked, self.complaints = [], [], []
        self._loaded = False
        self.call(
            'Page.navigate', {'url': page if isinstance(page, str) else page.resolve().as_uri()}
        )
        deadline = time.monotonic() + 60
        while not self._loaded:
            self._handle(self._receive(deadline))

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; JSON types only."""
        arguments = {'expression': expression, 'returnByValue': True, 'awaitPromise': True}
        try:
            answer = self.call('Runtime.evaluate', arguments)
        except RuntimeError as error:
            # the page that was asked is just being left
            if 'navigated' not in str(error):
                raise
            return self.evaluate(expression)
        if 'exceptionDetails' in answer:
            raise RuntimeError(str(answer['exceptionDetails']))
        return answer['result'].get('value')

    def call(self, method: str, arguments: dict[str, Any] | None = None) -> Any:
        """Call a method of the protocol and return its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {'id': number, 'method': method, 'params': arguments or {}}
        if self._session:
            message['sessionId'] = self._session
        data = json.dumps(message).encode() + b'\0'
        while data:
            written = os.write(self._write, data)
            data = data[written:]
        deadline = time.monotonic() + 60
        while True:
            answer = self._receive(deadline)
            if answer.get('id') == number:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]}')
                return answer['result']
            self._handle(answer)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b'\0' not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError('the browser does not answer')
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError('the browser has ended')
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(message)

    def _handle(self, event: dict[str, Any]) -> None:
        method, about = event.get('method'), event.get('params', {})
        if method == 'Page.loadEventFired':
            self._loaded = True
        elif method == 'Network.requestWillBeSent':
            self.requests.append(about['request']['url'])
            self._urls[about['requestId']] = about['request']['url']
        elif method == 'Network.loadingFailed' and about.get('blockedReason') == 'csp':
            self.blocked.append(self._urls[about['requestId']])
        elif method == 'Log.entryAdded' and about['entry']['level'] in ('error', 'warning'):
            self.complaints.append(about['entry']['text'])
        elif method == 'Runtime.consoleAPICalled' and about['type'] in ('error', 'warning'):
            self.complaints.append(str(about['args']))
        elif method == 'Runtime.exceptionThrown':
            self.complaints.append(str(about['exceptionDetails']))
