"""Names that the field has other words for stay gone: definitions are read, not sentences."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Each meant one thing in this project; the field's word is in its place.
GONE = set(
    re.findall(
        r"\w+",
        """
        Shelf shelf KEEP lent LENT lent_gpu watched why_not Running BEFORE
        hear _hear Steer steer steered Past begin_at _listen noised
        Moment Watch Branch Remake EACH ALL Lane Rival Out News Board Track
        Checked _around Mark _way _onward recognise _Trial NoRoom Whole Fitted
        sized gentle refined sparing quiet Pool Kept Learner Lesson _Wearing Look Placement hears
        tongue grove Eye Looking gone carried leaves whole_kernel b_fade lse BY_HAND
        """,
    )
)


def definitions(path: Path) -> set[str]:
    """Names of the module and of its classes, functions, parameters, variables and attributes."""
    names = {path.stem}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def test_definitions_are_read():
    assert {"GONE", "definitions", "path", "test_words"} <= definitions(Path(__file__))


def test_names_that_are_gone_stay_gone():
    files = [p for f in ("kernels", "pipeline", "demo", "tests") for p in (ROOT / f).rglob("*.py")]
    assert len(files) > 300
    back = {str(p.relative_to(ROOT)): found for p in files if (found := definitions(p) & GONE)}
    assert not back
