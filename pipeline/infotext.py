"""The "parameters" text of a picture as AUTOMATIC1111 writes it, and its reader."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .errors import InputError

_FIELD = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_NEGATIVE = "Negative prompt: "


def read(path: str | Path) -> str:
    """The parameters text of a PNG (text chunk), JPEG or WebP (EXIF UserComment) file.

    Nothing of the picture is decoded. Raises InputError in one sentence where there is none.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
            text = picture.info.get("parameters") or _user_comment(picture)
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is no PNG, JPEG or WebP picture.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from None
    if not text:
        raise InputError(f"{path} carries no parameters text.")
    return text


def _user_comment(picture) -> str | None:
    raw = picture.getexif().get_ifd(0x8769).get(0x9286)
    if not isinstance(raw, bytes):
        return raw
    code, body = raw[:8], raw[8:]
    if code == b"UNICODE\0":
        big = body[:1] == b"\0"
        return body.decode("utf-16-be" if big else "utf-16-le", "replace")
    return body.decode("utf-8", "replace")


def build(prompt: str, negative: str, fields: dict[str, object]) -> str:
    """Prompt, negative prompt and one line of `fields` in their order; None values are left out."""
    lines = [prompt]
    if negative:
        lines.append(_NEGATIVE + negative)
    lines.append(", ".join(f"{k}: {_quote(v)}" for k, v in fields.items() if v is not None))
    return "\n".join(lines)


def parse(text: str) -> dict[str, str]:
    """{"Prompt": ..., "Negative prompt": ..., "Steps": ..., ...}; all values are text.

    The last line counts as settings where it has at least three `Name: value` pairs.
    """
    *head, last = text.strip("\n").split("\n")
    found = _FIELD.findall(last)
    if len(found) < 3:
        head, found = [*head, last], []
    prompt, negative, target = [], [], None
    target = prompt
    for line in head:
        if line.startswith(_NEGATIVE) and target is prompt:
            target, line = negative, line.removeprefix(_NEGATIVE)
        target.append(line)
    out = {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative)}
    for key, value in found:
        out[key.strip()] = _unquote(value)
    return out


def _quote(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if any(c in text for c in ',\n:"'):
        return json.dumps(text, ensure_ascii=False)
    return text


def _unquote(text: str) -> str:
    text = text.strip()
    if text.startswith('"') and text.endswith('"'):
        try:
            return str(json.loads(text))
        except json.JSONDecodeError:
            return text
    return text
