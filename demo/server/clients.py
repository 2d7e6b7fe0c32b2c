"""The network address of a visitor, also behind a proxy."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPV6_PREFIX = 64  # bits of an IPv6 address that name a household; its devices choose the rest
MAX_HOPS = 32  # entries of X-Forwarded-For that are read, from its end


def client_address(
    peer: str | None, headers: Mapping[str, str], proxies: Iterable[Network] = ()
) -> str:
    """Return the address by which a visitor is counted; of IPv6 its first 64 bits.

    peer: the address that has connected to the server. If it is one of `proxies`, the visitor is
    the last address in X-Forwarded-For that is not: each proxy appends the address that has
    connected to it, and what stands before the last untrusted one may be made up by a client.
    headers: of the request, with lower-case names. proxies: networks of the proxies that are
    trusted. Returns "" if no address is known.
    """
    trusted = tuple(proxies)
    entries = headers.get("x-forwarded-for", "").split(",")[-MAX_HOPS:]
    hops = [peer or "", *reversed([entry.strip() for entry in entries if entry.strip()])]
    last = ""
    for hop in hops:
        address = _parse(hop)
        if address is None:
            break
        last = _name(address)
        if not any(address in network for network in trusted):
            break
    return last


def _parse(text: str) -> Address | None:
    """Return an address; None for other text. A port after it is ignored, and "[" and "]"."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _name(address: Address) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
