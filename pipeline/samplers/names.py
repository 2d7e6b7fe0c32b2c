"""Names of samplers and schedules: what A1111 and others call them, and which go together."""

from __future__ import annotations

import importlib.util
import re

from .table import SAMPLERS, SCHEDULES

ENDINGS = {"ka": "karras", "exp": "exponential"}  # of names such as k_dpmpp_2m_ka


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("++", "pp"))


def _sampler_keys() -> dict[str, str]:
    """Return the key in SAMPLERS of every plain name."""
    return {_plain(name): key for key, s in SAMPLERS.items() for name in (key, s.label, *s.aliases)}


def _schedule_keys() -> dict[str, str]:
    """Return the key in SCHEDULES of every plain name."""
    return {_plain(name): key for key, s in SCHEDULES.items() for name in (key, s.label)}


def sampler_key(text: str) -> str | None:
    """Return the key in SAMPLERS that `text` means ("Euler a", "euler_a", "DPM++ 2M"), or None."""
    return _sampler_keys().get(_plain(text))


def schedule_key(text: str) -> str | None:
    """Return the key in SCHEDULES that `text` means ("SGM Uniform", "sgm_uniform"), or None."""
    return _schedule_keys().get(_plain(text))


def split_name(text: str) -> tuple[str, str | None] | None:
    """Return the keys of the sampler and the schedule (or None) that an A1111 name means.

    "DPM++ 2M Karras" is ("dpmpp_2m", "karras"), "Euler a" and "k_euler_a" are ("euler_a", None). A
    name of no sampler here is None. Whether the two go together is for `check_pair` to say.
    """
    plain, keys = _plain(text), _sampler_keys()
    endings = _schedule_keys() | ENDINGS
    for name in (plain, plain.removeprefix("k")):
        if name in keys:
            return keys[name], None
        for ending, schedule in endings.items():
            sampler = keys.get(name.removesuffix(ending))
            if sampler and name.endswith(ending):
                return sampler, schedule
    return None


def check_pair(sampler: str, schedule: str) -> str | None:
    """Return a sentence if this sampler does not take this schedule (both are keys), else None."""
    row = SAMPLERS[sampler]
    if schedule in row.schedules:
        return None
    return (
        f"{row.label} does not take the schedule {schedule}; it takes {', '.join(row.schedules)}."
    )


def unsupported(name: str) -> str | None:
    """Return a sentence if the sampler or schedule with this key cannot run here, else None."""
    row = SAMPLERS.get(name) or SCHEDULES[name]
    missing = [p for p in row.needs if importlib.util.find_spec(p) is None]
    if not missing:
        return None
    packages = " and ".join(missing)
    return f"{row.label} needs {packages}: pip install {' '.join(missing)}."
