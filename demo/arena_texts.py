"""Words of the tab Arena in English and Chinese, see texts.py."""

ARENA = {
    "tab_arena": ("Arena", "竞技场"),
}
