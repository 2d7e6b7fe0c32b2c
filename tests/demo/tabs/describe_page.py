"""Write what is on the page as JSON to the path in the environment variable REPORT.

test_one_row.py runs this as a test in a copy of the code (fake_row.describe).
"""

import json
import os
from pathlib import Path

import demo
from demo import tabs, texts
from demo.ui import theme
from demo.workspace import layout


def test_describe(fake_models, fake_model_cache):
    page = demo.build(fake_model_cache(fake_models()))
    found = {
        "ids": [b.elem_id for b in page.blocks.values() if getattr(b, "elem_id", None)],
        "texts": texts.translations().translations_dict,
        "css": theme.CSS + layout.css(tabs.TABS),
        "endpoints": [fn.api_name for fn in page.fns.values() if fn.api_name],
    }
    Path(os.environ["REPORT"]).write_text(json.dumps(found), encoding="utf-8")
