"""A short form of the soak test of memory, and what it judges."""

import pytest

from tests.soak import memory

pytestmark = pytest.mark.slow


def test_twelve_visits_leave_nothing_after_two_hours():
    rows = memory.soak(count=12, seed=6, first=4)
    _, full, after = rows
    assert memory.judge(rows, limit=12) == []
    assert full["sessions"] >= 9 and full["closed sessions"] >= 1 and full["files"] >= 12
    assert full["recordings (MB)"] > 0 and full["unread messages"] > 0
    assert full["their states (MB)"] / full["sessions"] < 0.2  # Gradio's own takes 1.2 MB
    assert after["sessions"] == 6  # with this seed, the pages that are left open


@pytest.mark.quick
def test_what_grows_or_stays_is_a_missed_target():
    row = dict.fromkeys(
        ("memory (MB)", "sessions", "unread messages", "requests", "recordings (MB)"), 0.0
    )
    row |= {"files": 0.0, "folders": 0.0}
    assert memory.judge([row, row, row], 9) == []
    assert "grown by 101 MB" in memory.judge([row, row, row | {"memory (MB)": 101.0}], 9)[0]
    assert "10 sessions" in memory.judge([row, row | {"sessions": 10.0}, row], 9)[0]
    for name in ("unread messages", "requests", "recordings (MB)", "files", "folders"):
        assert name in memory.judge([row, row, row | {name: 1.0}], 9)[0]
