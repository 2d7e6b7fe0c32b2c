"""The name `kernels` is shared with a PyPI package that transformers looks for."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.quick


def test_importing_kernels_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import kernels; "
        "print(kernels.__version__, sorted(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["0.1.0", "['kernels']"]


def test_transformers_does_not_take_ours_for_the_package():
    code = (
        "import kernels; from transformers.utils import is_kernels_available; "
        "print(is_kernels_available())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
