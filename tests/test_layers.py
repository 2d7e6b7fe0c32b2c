"""Imports go downwards: the order of folders and root modules, and who may import training."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Each imports only what stands above it in this list. A folder counts as one; within a folder any
# file may import any other. `pipeline` alone is the package's own __init__, which imports late.
ORDER = (
    "kernels",
    "pipeline.errors",
    "pipeline.disk",
    "pipeline.lru",
    "pipeline.version",
    "pipeline.old_names",
    "pipeline.oom",
    "pipeline.backends",
    "pipeline.samplers",
    "pipeline.model_files",
    "pipeline.images",
    "pipeline.options",
    "pipeline.metadata",
    "pipeline.lora",
    "pipeline.prompt",
    "pipeline.latents",
    "pipeline.denoising",
    "pipeline.events",
    "pipeline.model",
    "pipeline.engine",
    "pipeline.loading",
    "pipeline.model_cache",
    "pipeline.introspection",
    "pipeline.tasks",
    "pipeline.verify",
    "pipeline.training",
    "pipeline.cli",
    "pipeline.__main__",
    "pipeline",
    "demo.limits",
    "demo.texts",
    "demo.events",
    "demo.ui",
    "demo.server",
    "demo.page",
    "demo.workspace",
    "demo.tabs",
    "demo.serving",
    "demo.document",
    "demo",
    "app",
)
# The one import that goes up: the facade that users hold calls the engine, late.
EXCEPTION = ("pipeline.model", "pipeline.engine")


def imports(path: Path) -> list[tuple[str, bool]]:
    """(absolute module name, at module level) of every import in a file but those for types."""
    package = path.relative_to(ROOT).parts[:-1]
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    top = {id(n) for n in ast.walk(tree) if n in tree.body}
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
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


def layer(module: str) -> str | None:
    """The entry of ORDER that a module belongs to; None for other packages."""
    parts = module.split(".")
    for length in (2, 1):
        name = ".".join(parts[:length])
        if name in ORDER:
            return name
    return None


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_imports_go_one_way():
    everything = [p for f in ("kernels", "pipeline", "demo") for p in files(f)] + [ROOT / "app.py"]
    wrong = []
    for path in everything:
        own = layer(module_name(path))
        stands = own == module_name(path) or own not in ("pipeline", "demo")
        assert own is not None and stands, f"{path} stands in no folder of ORDER"
        for name, _ in imports(path):
            other = layer(name)
            # `from pipeline import x` names the package too; x is judged by itself
            if other in (None, own, "pipeline", "demo") or (own, other) == EXCEPTION:
                continue
            if ORDER.index(other) > ORDER.index(own):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


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
