"""Fixtures of the tests of loading."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.errors import InputError
from pipeline.loading.load import load
from pipeline.model_files import library


@pytest.fixture(scope="session")
def sentence() -> Callable[..., str]:
    """sentence(call, ...): the text of its InputError, one printable line, no chain of errors."""

    def refused(call, *arguments, **options) -> str:
        with pytest.raises(InputError) as caught:
            call(*arguments, **options)
        text = str(caught.value)
        assert text.isprintable() and len(text) < 700, text
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        return text

    return refused


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(tiny_model, device="cpu", dtype="fp32")


@pytest.fixture
def model_folder(tmp_path, monkeypatch):
    """An empty folder in the place of pipeline/models, and an empty working directory."""
    monkeypatch.setattr(library, "EMBEDDED", tmp_path / "embedded")
    (tmp_path / "embedded").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "embedded"
