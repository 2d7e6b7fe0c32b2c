"""Words of the tab Inside in English and Chinese, see texts.py."""

INSIDE = {
    "tab_inside": ("Look inside", "看内部"),
}
