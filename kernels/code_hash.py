"""A hash of the code that decides what a GPU runs: it keys verdicts and docs/compiled.md.

Comments, docstrings and blank lines do not count, so that an explanation may be mended without a
new check on every GPU.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from functools import lru_cache
from pathlib import Path

from .registry import KERNELS

LEFT_OUT = ("cases.py", "reference.py")  # inputs and plain PyTorch: no GPU kernel is in them


def code_files() -> list[Path]:
    """Return the Python files that define and launch the kernels of KERNELS, sorted by name.

    Their hash tells whether stored results of checks are still those of the present code.
    """
    root = Path(__file__).parent
    out: set[Path] = set()
    for kernel in KERNELS.values():
        place = root.joinpath(*kernel.module.split(".")[1:])
        found = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
        out.update(path for path in found if path.name not in LEFT_OUT and path.is_file())
    return sorted(out)


def code_lines(source: str) -> list[str]:
    """Return the lines of Python code to hash: without comments, docstrings and blank lines.

    Spaces at the ends of lines are dropped too. Positions come from `ast` and `tokenize`, so every
    version of Python gives the same.
    """
    lines = [line.encode() for line in source.splitlines()]  # ast counts columns in bytes
    cuts: list[tuple[int, int, int, int]] = []  # first line, first byte, last line, end byte
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            doc = node.body[0]
            assert doc.end_lineno is not None and doc.end_col_offset is not None
            cuts.append((doc.lineno - 1, doc.col_offset, doc.end_lineno - 1, doc.end_col_offset))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0] - 1
            begin = len(token.line[: token.start[1]].encode())
            cuts.append((line, begin, line, len(lines[line])))
    for first, begin, last, end in sorted(cuts, reverse=True):
        lines[first : last + 1] = [lines[first][:begin] + lines[last][end:]]
    return [text for line in lines if (text := line.decode().rstrip())]


@lru_cache
def code_hash() -> str:
    """Return a hash of the kernels' code, 16 hex digits: results of checks are valid for one hash.

    It is the SHA-256 of the names of `code_files` and of their lines without comments and
    docstrings.
    """
    digest = hashlib.sha256()
    for path in code_files():
        digest.update(f"# {path.relative_to(Path(__file__).parent).as_posix()}\n".encode())
        digest.update("\n".join(code_lines(path.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()[:16]
