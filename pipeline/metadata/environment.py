"""Describe what a picture is computed on: the device and the versions of the packages."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from ..version import __version__

if TYPE_CHECKING:
    import torch


def environment(device: torch.device) -> dict[str, str]:
    """Return the properties of the device that may change the last bits of a picture, by name.

    The dict has "device_name", and for a CPU also "instructions" (its instruction set, such as
    AVX2) and "threads" (how many PyTorch uses).
    """
    import torch

    if device.type == "cuda":
        return {"device_name": torch.cuda.get_device_name(device)}
    return {
        "device_name": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }


@lru_cache(maxsize=1)
def _processor() -> str:
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2] for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return (names[0] if names else platform.processor() or platform.machine()).strip()[:100]


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions of the packages that may change the last bits of a picture, by name.

    The dict also has "python", "glassbox" (this program) and "platform"; packages that are not
    installed are left out.
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"glassbox": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers", "triton", "xformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"platform": f"{platform.system()} {platform.machine()}"}
