"""Look up samplers and schedules by the names that A1111 and others use, and check pairs of them.

A key is a key of the dict SAMPLERS ("dpmpp_2m") or SCHEDULES ("karras") in table.py.
"""

from __future__ import annotations

import importlib.util
import re

from .table import SAMPLERS, SCHEDULES

ENDINGS = {"ka": "karras", "exp": "exponential"}  # of names such as k_dpmpp_2m_ka


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("++", "pp"))


def _sampler_keys() -> dict[str, str]:
    """Return {name: key in SAMPLERS}, to look up a sampler by any spelling of its name.

    Names are all keys, labels and aliases, reduced to lower-case letters and digits; "++" becomes
    "pp".
    """
    return {_plain(name): key for key, s in SAMPLERS.items() for name in (key, s.label, *s.aliases)}


def _schedule_keys() -> dict[str, str]:
    """Return {name: key in SCHEDULES}, to look up a schedule by any spelling of its name.

    Names are all keys and labels, reduced to lower-case letters and digits.
    """
    return {_plain(name): key for key, s in SCHEDULES.items() for name in (key, s.label)}


def sampler_key(text: str) -> str | None:
    """Return the key in SAMPLERS of the sampler named `text`, or None if there is none.

    `text` may be a key ("euler_a"), a label ("Euler a") or an alias; case, spaces and punctuation
    do not matter.
    """
    return _sampler_keys().get(_plain(text))


def schedule_key(text: str) -> str | None:
    """Return the key in SCHEDULES of the schedule named `text`, or None if there is none.

    `text` may be a key ("sgm_uniform") or a label ("SGM Uniform"); case, spaces and punctuation do
    not matter.
    """
    return _schedule_keys().get(_plain(text))


def split_name(text: str) -> tuple[str, str | None] | None:
    """Split a sampler name in A1111's or k-diffusion's style into (sampler key, schedule key).

    "DPM++ 2M Karras" gives ("dpmpp_2m", "karras"); "Euler a" and "k_euler_a", which name no
    schedule, give ("euler_a", None). Returns None if no sampler has the name. It does not check
    whether the sampler accepts the schedule; `check_pair` does.
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
    """Check whether a sampler accepts a noise schedule: return None if it does, else a sentence.

    The sentence, for the user, lists the schedules that it accepts. sampler, schedule: keys of
    SAMPLERS and SCHEDULES, such as "dpmpp_2m" and "karras".
    """
    row = SAMPLERS[sampler]
    if schedule in row.schedules:
        return None
    return (
        f"{row.label} does not take the schedule {schedule}; it takes {', '.join(row.schedules)}."
    )


def unsupported(name: str) -> str | None:
    """Return None if the packages that a sampler or schedule needs are installed, else a sentence.

    name: a key of SAMPLERS or SCHEDULES. The sentence names the missing packages and how to
    install them.
    """
    row = SAMPLERS.get(name) or SCHEDULES[name]
    missing = [p for p in row.needs if importlib.util.find_spec(p) is None]
    if not missing:
        return None
    packages = " and ".join(missing)
    return f"{row.label} needs {packages}: pip install {' '.join(missing)}."
