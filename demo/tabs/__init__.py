"""The page's tabs: one file each, one line here. A tab is `tab(models, paint, i18n)`."""

from . import generate, kernels

TABS = {"generate": generate.tab, "kernels": kernels.tab}
