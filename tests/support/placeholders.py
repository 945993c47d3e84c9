"""Compare replies with documented examples: placeholders for volatile values, a tolerance for numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest

AT = "2026-01-05T09:00:00.000000Z"
QUERY_ID = "0f6d1c52a1f34b1c8a55c1c7f0f1d2e3"
REQUEST_ID = "5e3c1b0e2f7c4a1d9b8a7c6d5e4f3a2b"
FIXED = {
    "query_id": QUERY_ID,
    "request_id": REQUEST_ID,
    "created_at": AT,
    "updated_at": AT,
    "labeled_at": AT,
    "incarnation": QUERY_ID,
    "date": AT[:10],
    "simulation_id": QUERY_ID,
}


def with_placeholders(value: Any) -> Any:
    """Replace times and generated ids by fixed placeholders."""
    if isinstance(value, dict):
        return {key: FIXED[key] if key in FIXED and below else with_placeholders(below) for key, below in value.items()}
    if isinstance(value, list):
        return [with_placeholders(below) for below in value]
    if isinstance(value, str):
        return re.sub(r"'[0-9a-f]{32}'", repr(QUERY_ID), re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", AT, value))
    return value


def approx_nested(value: Any) -> Any:
    """Wrap all floats in pytest.approx, to the four digits that examples show."""
    if isinstance(value, dict):
        return {key: approx_nested(below) for key, below in value.items()}
    if isinstance(value, list):
        return [approx_nested(below) for below in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
