"""Imports go one way: app.py -> demo -> pipeline -> kernels; training stands apart."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = {"kernels": (), "pipeline": ("kernels",), "demo": ("pipeline", "kernels")}


def imports(path: Path) -> list[tuple[str, bool]]:
    """(absolute module name, at module level) of every import in a file."""
    package = path.relative_to(ROOT).parts[:-1]
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    top = {id(n) for n in ast.walk(tree) if n in tree.body}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [stem, *(f"{stem}.{a.name}" for a in node.names)]
        found += [(n, id(node) in top) for n in names]
    return found


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_imports_go_one_way():
    for layer, below in LAYERS.items():
        above = set(LAYERS) - {layer} - set(below) | {"app", "tests"}
        assert files(layer)
        for path in files(layer):
            wrong = [n for n, _ in imports(path) if n.split(".")[0] in above]
            assert not wrong, f"{path} imports {wrong}"


def test_training_is_imported_late_and_only_from_the_command_line_and_tabs():
    for path in [*files("pipeline"), *files("demo"), ROOT / "app.py"]:
        if "training" in path.parts:
            continue
        uses = [(n, top) for n, top in imports(path) if n.startswith("pipeline.training")]
        assert not any(top for _, top in uses), f"{path} imports training at module level"
        allowed = "cli" in path.parts or "tabs" in path.parts
        assert allowed or not uses, f"{path} imports training"


def test_heavy_packages_are_not_imported_by_the_light_modules():
    light = ["errors", "options", "prompt/text", "metadata/infotext", "metadata/save"]
    light += ["model_files/diffusers_folder", "__main__", "__init__"]
    heavy = {"torch", "diffusers", "transformers", "gradio", "numpy", "PIL", "safetensors"}
    for name in light:
        top = {n.split(".")[0] for n, top in imports(ROOT / f"pipeline/{name}.py") if top}
        assert not top & heavy, f"pipeline/{name}.py imports {top & heavy}"
