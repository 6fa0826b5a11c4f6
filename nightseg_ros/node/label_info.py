# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the ids in a mask mean, for those who join late."""

from __future__ import annotations

import importlib
from typing import Any

from std_msgs.msg import String

from nightseg_ros.perception.frame_report import legend
from nightseg_ros.taxonomy import Taxonomy


def label_info_json(taxonomy: Taxonomy) -> String:
    """Return the classes with ids and colours as JSON, as Nav2 and people can read it."""
    return String(data=legend(taxonomy))


def vision_msgs() -> Any | None:
    """Return the module ``vision_msgs.msg``, None where it is not installed."""
    try:
        return importlib.import_module('vision_msgs.msg')
    except ImportError:
        return None


def label_info(taxonomy: Taxonomy, vision: Any, stamp: Any) -> Any:
    """Return ``vision_msgs/LabelInfo``; ``vision`` is what ``vision_msgs`` returned."""
    message = vision.LabelInfo()
    message.header.stamp = stamp
    message.class_map = [
        vision.VisionClass(class_id=index, class_name=name)
        for index, name in enumerate(taxonomy.classes)
    ]
    return message
