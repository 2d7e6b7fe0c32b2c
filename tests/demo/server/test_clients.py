"""The address by which a visitor is counted: only trusted proxies may name another."""

import ipaddress

import pytest

from demo.server.clients import client_address

INSIDE = [ipaddress.ip_network(n) for n in ("10.0.0.0/8", "fc00::/7")]
CASES = {
    "nobody is trusted": ("203.0.113.5", "198.51.100.7", [], "203.0.113.5"),
    "the proxy names the visitor": ("10.1.2.3", "198.51.100.7", INSIDE, "198.51.100.7"),
    "a visitor makes up an address": ("10.1.2.3", "1.2.3.4, 198.51.100.7", INSIDE, "198.51.100.7"),
    "two proxies": ("10.1.2.3", "1.1.1.1, 198.51.100.7, 10.9.9.9", INSIDE, "198.51.100.7"),
    "a visitor calls itself a proxy": ("203.0.113.5", "10.9.9.9", INSIDE, "203.0.113.5"),
    "no header": ("10.1.2.3", "", INSIDE, "10.1.2.3"),
    "nonsense": ("10.1.2.3", "198.51.100.7, <b>", INSIDE, "10.1.2.3"),
    "a port": ("10.1.2.3", "198.51.100.7:4711", INSIDE, "198.51.100.7"),
    "IPv6 in brackets": ("fd00::1", "[2001:db8:1:2:3:4:5:6]:443", INSIDE, "2001:db8:1:2::/64"),
    "IPv4 in IPv6": ("::ffff:10.1.2.3", "::ffff:198.51.100.7", INSIDE, "198.51.100.7"),
    "a thousand hops": ("10.1.2.3", "1.1.1.1, " + "10.0.0.1, " * 1000, INSIDE, "10.0.0.1"),
    "no peer": (None, "198.51.100.7", INSIDE, ""),
}


@pytest.mark.parametrize(("peer", "forwarded", "proxies", "address"), CASES.values(), ids=CASES)
def test_the_address_of_a_visitor(peer, forwarded, proxies, address):
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    assert client_address(peer, headers, proxies) == address


def test_one_household_is_one_visitor():
    """A device chooses the last 64 bits of its IPv6 address as often as it likes."""
    found = {client_address(f"2001:db8:1:2::{i:x}", {}) for i in range(9)}
    assert len(found) == 1
    assert client_address("2001:db8:1:3::1", {}) not in found
