"""What one request, one visitor and all visitors together may use of a server: LIMITS, Limits.

Each row of LIMITS is a flag of app.py, a field of Limits and a line of docs/operations.md. A server
that strangers reach (a Space, `--share`, a host that is not this machine) has other defaults than
one on its owner's own machine.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOCAL_NAMES = ("localhost", "")
# Addresses of the proxies in front of a Hugging Face Space: those that no visitor can have.
SPACE_PROXIES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")


@dataclass(frozen=True)
class Limit:
    """A row of LIMITS.

    help: what is limited and in which unit; 0 means no limit
    private: the default of a server that only its own machine reaches
    public: the default of a server that strangers reach
    """

    help: str
    private: int
    public: int


LIMITS: dict[str, Limit] = {  # a number; the flag is the name with dashes
    "max_work": Limit(
        "the largest request, in millions of pixels times model calls: 16 pictures of 512x512 in 20"
        " steps are 84",
        private=0,
        public=400,
    ),
    "max_seconds": Limit("seconds that one request may draw", private=0, public=600),
    "max_waiting": Limit(
        "requests of one visit that may wait or run at a time, in each line", private=0, public=4
    ),
    "max_waiting_address": Limit(
        "requests from one network address, behind which several visitors may be, that may wait or"
        " run at a time, in each line",
        private=0,
        public=12,
    ),
    "max_sessions": Limit(
        "visits whose state is kept; the one unused for longest is dropped first",
        private=2_000,
        public=2_000,
    ),
    "decoding_mb": Limit(
        "MB of memory in which all visitors' pictures and files are opened; more wait",
        private=1_000,
        public=1_000,
    ),
    "temp_disk_mb": Limit(
        "MB of files that visitors uploaded or were given, for an hour; the oldest go first",
        private=20_000,
        public=4_000,
    ),
    "training_disk_mb": Limit(
        "MB of the trainings of all visitors on the disk", private=20_000, public=4_000
    ),
    "training_disk_visitor_mb": Limit(
        "MB of one visitor's trainings on the disk", private=20_000, public=1_000
    ),
    "training_hours": Limit(
        "hours after which a visitor's trainings are deleted if nothing used them", 0, public=24
    ),
}


@dataclass(frozen=True)
class Limits:
    """The limits of a server; 0 means no limit. See LIMITS for the numbers' meaning.

    allow_training: whether visitors may train at all
    shared_training: whether all visitors share the trainings: every run, its file and its name
    hosts: host names under which the server answers; () for any
    proxies: addresses or networks of proxies, such as "10.0.0.0/8", whose X-Forwarded-For header is
        believed to name the visitor's address
    """

    max_work: int = LIMITS["max_work"].private
    max_seconds: int = LIMITS["max_seconds"].private
    max_waiting: int = LIMITS["max_waiting"].private
    max_waiting_address: int = LIMITS["max_waiting_address"].private
    max_sessions: int = LIMITS["max_sessions"].private
    decoding_mb: int = LIMITS["decoding_mb"].private
    temp_disk_mb: int = LIMITS["temp_disk_mb"].private
    training_disk_mb: int = LIMITS["training_disk_mb"].private
    training_disk_visitor_mb: int = LIMITS["training_disk_visitor_mb"].private
    training_hours: int = LIMITS["training_hours"].private
    allow_training: bool = True
    shared_training: bool = False
    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag to app.py's command line for each limit, in a group of its own."""
    group = parser.add_argument_group("limits for visitors (0: no limit)")
    for name, limit in LIMITS.items():
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=_whole_number,
            metavar="N",
            help=f"{limit.help} (default: {limit.private or 'no limit'}; where strangers reach it"
            f" {limit.public or 'no limit'})",
        )
    group.add_argument(
        "--allow-training",
        action="store_true",
        help="let visitors train where strangers reach the server",
    )
    group.add_argument(
        "--shared-training",
        action="store_true",
        help="all visitors see, continue and draw with each other's trainings",
    )
    group.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name under which the server answers (default: any that suits --host)",
    )
    group.add_argument(
        "--trusted-proxy",
        action="append",
        type=_network,
        default=[],
        metavar="ADDRESS",
        help="an address or network of a proxy whose X-Forwarded-For header names the visitors"
        " (default: none; for a Space those of its own network)",
    )


def read_flags(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Limits:
    """Return the limits from app.py's command line. args: with the flags of `add_flags` and others.

    environment: the process's environment variables, which tell whether this is a Space.
    """
    public = is_public(args.host or environment.get("GRADIO_SERVER_NAME"), args.share, environment)
    numbers: dict[str, Any] = {
        name: limit.public if public else limit.private for name, limit in LIMITS.items()
    }
    numbers |= {n: getattr(args, n) for n in LIMITS if getattr(args, n) is not None}
    return Limits(
        **numbers,
        allow_training=args.allow_training or not public,
        shared_training=args.shared_training,
        hosts=tuple(args.allowed_host),
        proxies=tuple(args.trusted_proxy) or (SPACE_PROXIES if environment.get("SPACE_ID") else ()),
    )


def table() -> str:
    """Return LIMITS as a table in Markdown: each flag, what it limits and its two defaults.

    docs/operations.md holds it.
    """
    lines = ["| flag | what it limits | on its own machine | public |", "|---|---|---|---|"]
    for name, limit in LIMITS.items():
        flag = "--" + name.replace("_", "-")
        defaults = (f"{n:,}" if n else "no limit" for n in (limit.private, limit.public))
        lines.append(f"| `{flag}` | {limit.help} | {' | '.join(defaults)} |")
    return "\n".join(lines)


def is_public(
    host: str | None, share: bool = False, environment: Mapping[str, str] = os.environ
) -> bool:
    """Return whether other machines reach a server that listens on `host`.

    True for a Hugging Face Space, for a public link (`share`, or GRADIO_SHARE), and for every host
    but this machine's own addresses (localhost, 127.0.0.0/8, ::1). host: None for the default.
    """
    if (
        environment.get("SPACE_ID")
        or share
        or environment.get("GRADIO_SHARE", "").lower() == "true"
    ):
        return True
    name = (host or "").strip("[]").lower()
    if name in LOCAL_NAMES:
        return False
    try:
        return not ipaddress.ip_address(name).is_loopback
    except ValueError:
        return True


def _network(text: str) -> str:
    """Return an address or network as `ipaddress` writes it; raise ArgumentTypeError for others."""
    try:
        return str(ipaddress.ip_network(text.strip("[]"), strict=False))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be an address such as 10.0.0.5 or a network such as 10.0.0.0/8, not {text!r}"
        ) from None


def _whole_number(text: str) -> int:
    """Return a limit's value; raise argparse.ArgumentTypeError for all but 0, 1, 2, ..."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 for no limit, not {text!r}")
    return int(text)
