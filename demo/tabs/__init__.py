"""The page's tabs: one file each, one line here. A tab is `tab(page)`, see page.py."""

from . import generate, info, kernels

TABS = {"generate": generate.tab, "info": info.tab, "kernels": kernels.tab}
