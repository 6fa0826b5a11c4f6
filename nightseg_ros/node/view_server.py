# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The page of ``nightseg view`` over HTTP: events with values, and pictures one by one.

Each connection has a thread, so that nobody waits for a slow one. Pictures are asked for by the
page, each as the newest there is, and come with their age: in a stream (MJPEG) a browser cannot
tell the last picture of a dead camera from a live one.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
import json
import math
from pathlib import Path
import re
import secrets
import socket
from socketserver import TCPServer
import sys
import threading
import time
from typing import Any, TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from nightseg_ros.node.view import Viewer

#: Tried first, so that the address can be kept; where it is taken the system chooses another.
PORT = 8740
#: Seconds between two events of a page, at least and at most.
EVENT_S, HEARTBEAT_S = 1 / 15, 0.5
#: Pages that get events at once, and connections of all kinds.
PAGES, CONNECTIONS = 8, 64
#: Seconds after which a connection that takes nothing, or asks for nothing, is closed.
TIMEOUT_S = 10.0
#: Bytes that may wait in the system for a slow page: about a second of events.
WAITING = 16_384
#: Nothing is kept by the browser, and nobody else may read it.
HEADERS = {
    'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff',
    'Cross-Origin-Resource-Policy': 'same-origin', 'Referrer-Policy': 'no-referrer',
}  # fmt: skip
POLICIES = ('script-src', 'style-src')


class PageServer(ThreadingHTTPServer):
    """Serves the page and what it asks for, each connection in a thread of its own."""

    daemon_threads = True
    block_on_close = False
    viewer: Viewer

    def __init__(self, host: str, port: int | None) -> None:
        """Listen on a port of ``host``, by default ``PORT`` or, where it is taken, another."""
        self.host = host
        self.address_family = socket.AF_INET6 if ':' in host else socket.AF_INET
        try:
            super().__init__((host, PORT if port is None else port), Handler)
        except OSError:
            if port is not None:
                raise
            super().__init__((host, 0), Handler)
        self.nonce, self.pages = secrets.token_urlsafe(), threading.Semaphore(PAGES)
        text = (Path(__file__).parent / 'view.html').read_text(encoding='utf-8')
        self.page = text.replace('NONCE', self.nonce).encode('utf-8')
        self._places = threading.Semaphore(CONNECTIONS)

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'http://{host}:{self.server_address[1]}/'

    def server_bind(self) -> None:
        """Bind without asking DNS for a name of the host, which may take long and helps nobody."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Close a connection that is one too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection until its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = 'HTTP/1.1'
    timeout = TIMEOUT_S
    server_version, sys_version = 'nightseg', ''
    server: PageServer

    def do_GET(self) -> None:
        """Send the page, events, or the newest picture."""
        url = urlsplit(self.path)
        if not self._is_ours():
            self._send(HTTPStatus.FORBIDDEN)
        elif url.path == '/':
            policy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
            policy += ' '.join(f"{kind} 'nonce-{self.server.nonce}';" for kind in POLICIES)
            headers = {'Content-Security-Policy': policy, 'X-Frame-Options': 'DENY'}
            self._send(HTTPStatus.OK, 'text/html; charset=utf-8', self.server.page, headers)
        elif url.path == '/events':
            self._events()
        elif match := re.fullmatch(r'/picture/(\d{1,4})/(camera|overlay)', url.path):
            after = re.fullmatch(r'after=(\d{1,15})', url.query)
            self._picture(int(match[1]), match[2], int(after[1]) if after else 0)
        else:
            self._send(HTTPStatus.NOT_FOUND)

    def _is_ours(self) -> bool:
        """
        Tell whether the page itself asks, or a person.

        Another site could name this machine by a host name of its own, or embed the pictures.
        """
        host = re.sub(r':\d+$', '', self.headers.get('Host', '')).strip('[]')
        try:
            known = bool(ip_address(host))
        except ValueError:
            # browsers send it in lower case
            known = host.lower() in ('localhost', self.server.host.lower())
        return known and self.headers.get('Sec-Fetch-Site') in (None, 'same-origin', 'none')

    def _picture(self, number: int, kind: str, after: int) -> None:
        """Send a picture later than ``after``, or that there is none yet."""
        cameras = list(self.server.viewer.cameras.values())
        if number >= len(cameras):
            self._send(HTTPStatus.NOT_FOUND)
            return
        picture = cameras[number].pictures[kind]
        picture.watched = time.monotonic()
        if picture.number > after:
            count, arrived, content = picture.jpeg()
            headers = {'X-Number': str(count), 'X-Age': f'{time.monotonic() - arrived:.3f}',
                       'X-Server': self.server.nonce}  # fmt: skip
            if content:
                self._send(HTTPStatus.OK, 'image/jpeg', content, headers)
                return
        self._send(HTTPStatus.NO_CONTENT)

    def _events(self) -> None:
        """Send all values now, and again whenever they change, until the page is gone."""
        if not self.server.pages.acquire(blocking=False):
            self._send(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        try:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WAITING)
            self.close_connection = True
            self._head(HTTPStatus.OK, {'Content-Type': 'text/event-stream'})
            viewer, since = self.server.viewer, -math.inf
            while True:
                found = viewer.snapshot(since) | {'server': self.server.nonce}
                since = found['time']
                self.wfile.write(f'data: {json.dumps(found)}\n\n'.encode())
                time.sleep(EVENT_S)
                with viewer.changed:
                    viewer.changed.wait(HEARTBEAT_S)
        finally:
            self.server.pages.release()

    def _send(
        self, status: HTTPStatus, kind: str = '', content: bytes = b'',
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        more = {'Content-Length': str(len(content))} if status != HTTPStatus.NO_CONTENT else {}
        self._head(status, {**(headers or {}), **more, **({'Content-Type': kind} if kind else {})})
        self.wfile.write(content)

    def _head(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Keep the terminal free of requests."""
