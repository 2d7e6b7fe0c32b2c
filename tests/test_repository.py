"""What a stranger finds: a README that is a Space's card, requirements that say what is needed."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def front_matter() -> dict:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_readme_is_a_space_card():
    card = front_matter()
    assert card["sdk"] == "gradio" and card["app_file"] == "app.py"
    assert len(card["short_description"]) <= 60 and card["license"] == "apache-2.0"
    assert (ROOT / card["app_file"]).exists() and (ROOT / "LICENSE").exists()


DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))


def test_the_readme_has_at_most_900_words():
    body = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    assert len(body.split()) <= 900


def test_the_moving_picture_and_the_examples_are_small():
    assert (ROOT / "docs/tour.webp").stat().st_size < 1.5e6
    files = [p for p in (ROOT / "examples").rglob("*") if p.is_file()]
    assert files and sum(p.stat().st_size for p in files) < 500_000


def commands(document: str) -> list[str]:
    """Every `python -m pipeline ...` of a document, in a block or between backticks."""
    text = (ROOT / document).read_text(encoding="utf-8")
    pattern = r"^ *(?:python -m pipeline (.+))$|`python -m pipeline ([^`\n]+(?:\n[^`\n]+)?)`"
    return [block or inline for block, inline in re.findall(pattern, text, re.MULTILINE)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_the_documents_parse(document):
    from pipeline.cli.parser import build_parser

    for command in commands(document):
        argv = shlex.split(command, comments=True)
        if "N" in argv or "PICTURE" in argv:  # a form, not a command to paste
            continue
        build_parser(argv[0]).parse_args(argv)
        for path in argv:
            if path.startswith("examples/"):
                assert (ROOT / path).exists(), command


def test_the_documents_have_commands():
    assert len([c for d in DOCUMENTS for c in commands(d)]) > 30


@pytest.mark.parametrize("card", [*DOCUMENTS, "pipeline/models/emoji/README.md"])
def test_what_a_document_points_to_is_there(card):
    path = ROOT / card
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def requirements() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    found = [Requirement(x.split("#")[0]) for x in lines if x.strip() and not x.startswith("#")]
    return {r.name: r for r in found}


def test_the_space_runs_the_gradio_that_is_required():
    assert requirements()["gradio"].specifier.contains(front_matter()["sdk_version"])


def test_wheels_that_do_not_exist_everywhere_are_not_asked_for_everywhere():
    needs = requirements()
    mac = {"sys_platform": "darwin", "platform_machine": "arm64"}
    arm = {"sys_platform": "linux", "platform_machine": "aarch64"}
    assert not needs["triton"].marker.evaluate(mac) and needs["triton"].marker.evaluate(arm)
    assert not needs["xformers"].marker.evaluate(mac)
    assert not needs["xformers"].marker.evaluate(arm)
    assert all(op.operator != "==" for r in needs.values() for op in r.specifier)
    assert "kernels" not in needs


def test_nothing_is_unpickled():
    """No call that could: torch.load, pickle, or a loader that is left to choose."""
    for folder in ("pipeline", "demo", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"torch\.load\(|import pickle|joblib|trust_remote_code=True", text)
