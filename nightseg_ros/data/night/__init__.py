# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
