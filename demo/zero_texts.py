"""Words of the tab Zero in English and Chinese, see texts.py."""

ZERO = {
    "tab_zero": ("From zero", "从零讲起"),
}
