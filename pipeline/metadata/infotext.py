"""Write and parse the "parameters" text of a picture in AUTOMATIC1111's format ("infotext").

    a cat, (blue eyes:1.2)
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x512, Model: name, ...

A value with a comma, a colon, a quote or a line break is a JSON string. The format is ambiguous: a
prompt may have a line that begins with "Negative prompt: ", blank lines at its ends, or control
characters. Where the text would be parsed to other prompts, `build` adds two fields to the line of
settings, `Exact prompt` and `Exact negative prompt`, JSON strings that `parse` prefers and other
programs ignore. So every prompt that GenerateOptions allows survives the round trip.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from ..errors import InputError
from . import containers

MAX_TEXT = 1_000_000  # characters
MAX_FIELDS = 500  # of the line of settings

_NEGATIVE = "Negative prompt:"
_EXACT = {"Prompt": "Exact prompt", "Negative prompt": "Exact negative prompt"}
# A line of settings has at least one field of these names. A line of a prompt may have them, too.
_SIGNS = {"steps", "sampler", "seed", "size", "model", "cfg scale", "cfgscale"}
_TEMPLATES = ("Template:", "Negative Template:")  # lines that may follow the settings

# Possessive quantifiers (`*+`, `++`) limit backtracking to the length of a key.
_KEY = re.compile(r"[ \t]*+(\w[\w \-/.()]{0,79}):[ \t]*+")
_STRING = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t]*+(?=[,\n]|\Z)', re.DOTALL)
_PLAIN = re.compile(r"[^,\n]*+")  # matches everywhere, possibly the empty text
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_JSON = json.JSONDecoder()

# Programs that write no parameters text: {keyword of their metadata: (its beginning, program)}.
_FOREIGN = {
    "workflow": ("", "ComfyUI"),
    "prompt": ("{", "ComfyUI"),
    "Software": ("NovelAI", "NovelAI"),
    "invokeai_metadata": ("", "InvokeAI"),
    "sd-metadata": ("", "InvokeAI"),
}


def read(path: str | Path) -> str:
    """Return A1111's parameters text (prompt and settings) of a picture file.

    It is in a text chunk of a PNG, and in the EXIF UserComment of a JPEG or WebP; no pixels are
    decoded. Control characters other than line break and tab are removed. Raises InputError for a
    file that cannot be read or has no such text.
    """
    found = containers.read_texts(path)
    text = clean_text(found.get("parameters") or found.get("UserComment") or "")
    if text.strip():
        return text
    for keyword, (start, program) in _FOREIGN.items():
        if keyword in found and found[keyword].startswith(start):
            raise InputError(
                f"{path} carries settings in {program}'s own form and no parameters text, "
                "which A1111, Forge and this program write."
            )
    raise InputError(f"{path} carries no parameters text.")


def clean_text(text: str) -> str:
    """Return `text` without control characters, lone surrogates and byte order mark.

    For parameters texts from files, which are untrusted. Line breaks and tabs are kept.
    """
    return _CONTROL.sub("", text).lstrip("\ufeff\ufffe")


def build(prompt: str, negative: str, fields: Mapping[str, object]) -> str:
    """Return A1111's parameters text: prompt, negative prompt and a line of settings.

    fields: from name ("Steps") to value, in the order to write; None values are left out. To be
    recognised when the text is parsed, there must be at least three, the first of them "Steps".
    """
    lines = [prompt]
    if negative:
        lines.append(f"{_NEGATIVE} {negative}")
    line = ", ".join(f"{k}: {_quote(v)}" for k, v in fields.items() if v is not None)
    text = clean_text("\n".join([*lines, line]))
    prompts = {"Prompt": prompt, "Negative prompt": negative}
    if prompts.items() <= parse(text).items():
        return text
    return text + "".join(f", {key}: {_json(prompts[name])}" for name, key in _EXACT.items())


def parse(text: str) -> dict[str, str]:
    """Parse A1111's parameters text into a dict of strings.

    {"Prompt": ..., "Negative prompt": ..., "Steps": ..., "Sampler": ..., and the other settings}.
    The settings are the last line, or a line that begins with "Steps:" and is followed by lines of
    a prompt template; they have at least three `Name: value` pairs, one of them named steps,
    sampler, seed, size, model or CFG scale. A text without them is all prompt. Never raises; the
    time is linear in the length of the text.
    """
    text = text.strip("\n")
    start, found = _find_settings(text)
    head = text[:start].removesuffix("\n").split("\n") if start else []
    prompt: list[str] = []
    negative: list[str] = []
    target = prompt
    for line in head:
        if target is prompt and line.lstrip().startswith(_NEGATIVE):
            target, line = negative, line.lstrip().removeprefix(_NEGATIVE).removeprefix(" ")
        target.append(line)
    out = {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative)}
    out |= {name: found.pop(key) for name, key in _EXACT.items() if key in found}
    return out | {key: value for key, value in found.items() if key not in out}


def _find_settings(text: str) -> tuple[int, dict[str, str]]:
    """Find the line of settings in a parameters text: (its index in `text`, settings by name).

    Where there is none, the result is (len(text), {}).
    """
    last = text.rfind("\n") + 1
    usual = [m.start() for m in re.finditer("^Steps:", text, re.MULTILINE)][-10:]
    for start in (*reversed(usual), last):
        found, end = _parse_fields(text, start)
        behind = text[end + 1 :]
        if len(found) < 3 or not _SIGNS & {key.casefold() for key in found}:
            continue
        if start == last or not behind:
            return start, found
        if behind.startswith(_TEMPLATES):
            return start, found | _parse_templates(behind)
    return len(text), {}


def _parse_fields(text: str, at: int) -> tuple[dict[str, str], int]:
    """Parse the `Name: value` pairs of a parameters text's settings from index `at` on.

    Returns them and the index of their end, which is that of the line, except that a quoted value
    may contain line breaks.
    """
    found: dict[str, str] = {}
    if not _KEY.match(text, at):
        return found, at
    for _ in range(MAX_FIELDS):
        key = _KEY.match(text, at)
        if key:
            found[key[1]], at = _parse_value(text, key.end())
        else:
            at = cast("re.Match[str]", _PLAIN.match(text, at)).end()
        if text[at : at + 1] != ",":
            break
        at += 1
    return found, at


def _parse_value(text: str, at: int) -> tuple[str, int]:
    """Parse one value of a parameters text's settings; return it and the index of its end.

    at: the index in `text` where it begins. It may be a JSON string, list or object, or plain text
    up to the next comma.
    """
    string = _STRING.match(text, at)
    if string:
        return _unquote(string[1]), string.end()
    if text[at : at + 1] in ("[", "{"):  # as Civitai writes its resources, without quotes
        try:
            end = _JSON.raw_decode(text, at)[1]
            if text[end : end + 1] in ("", ",", "\n"):
                return text[at:end], end
        except (ValueError, RecursionError):
            pass
    plain = cast("re.Match[str]", _PLAIN.match(text, at))
    return plain[0].rstrip(), plain.end()


def _parse_templates(text: str) -> dict[str, str]:
    parts = re.split("^(Template|Negative Template):", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _quote(value: object) -> str:
    text = _format_number(value) if isinstance(value, float) else str(value)
    plain = text == text.strip() and not re.search('[,:"\0-\x1f\x7f-\x9f]', text)
    return text if plain else _json(text)


def _format_number(value: float) -> str:
    """Return a number as a short text from which float() restores exactly the same value."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _json(text: str) -> str:
    """Return `text` as a JSON string, in which control characters are escaped."""
    return re.sub(
        "[\x7f-\x9f]", lambda c: f"\\u{ord(c[0]):04x}", json.dumps(text, ensure_ascii=False)
    )


def _unquote(text: str) -> str:
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        return text
    return re.sub("[\ud800-\udfff]", "", value)
