"""The commands as a whole: `--help`, no command, an unknown command."""

import subprocess
import sys


def test_help_is_instant_because_nothing_heavy_is_imported():
    code = (
        "import sys\ntry:\n    from pipeline.__main__ import main; main(['generate', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'diffusers', 'transformers', 'gradio', 'PIL')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]" and "--sampler" in out.stdout


def test_no_command_and_an_unknown_one(run):
    for argv in ([], ["draw"]):
        code, _, err = run(*argv)
        assert code == 2 and err.count("\n") == 1
