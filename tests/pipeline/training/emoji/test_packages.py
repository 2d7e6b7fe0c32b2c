"""The npm packages: a sentence where they are missing and cannot be fetched."""

import pytest

from pipeline.training.emoji import packages

pytestmark = pytest.mark.quick


def test_missing_data_without_npm_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    with pytest.raises(RuntimeError, match="--data"):
        packages.fetch(tmp_path)
