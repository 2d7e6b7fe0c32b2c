"""A fixture that runs the command line in this process."""

from collections.abc import Callable

import pytest

from pipeline.__main__ import main


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str, str]]:
    """run(*arguments) runs the command line; it returns (exit code, stdout, stderr)."""

    def run_main(*arguments) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run_main
