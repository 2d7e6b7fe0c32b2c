"""What the tests of loading share: a loaded model, an empty library, a check of errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.errors import InputError
from pipeline.loading.load import load
from pipeline.model_files import library


@pytest.fixture(scope="session")
def sentence() -> Callable[..., str]:
    """sentence(call, ...) calls `call`, which must raise InputError, and returns its sentence.

    Fails unless the sentence is one printable line without a chained exception.
    """

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
    """Return the tiny model, loaded on the CPU in fp32."""
    return load(tiny_model, device="cpu", dtype="fp32")


@pytest.fixture
def model_folder(tmp_path, monkeypatch):
    """Return an empty folder that is used in place of pipeline/models, the embedded models.

    The working directory is empty too.
    """
    monkeypatch.setattr(library, "EMBEDDED", tmp_path / "embedded")
    (tmp_path / "embedded").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "embedded"
