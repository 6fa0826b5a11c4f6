# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The process ``semantic_cloud``."""

from __future__ import annotations

from typing import Any

from nightseg_ros.node.main import serve


def main() -> None:
    """Run semantic_cloud until SIGINT or SIGTERM."""

    def make() -> Any:
        from nightseg_ros.node.clouds.semantic_cloud import SemanticCloud

        return SemanticCloud()

    serve(make)


if __name__ == '__main__':
    main()
