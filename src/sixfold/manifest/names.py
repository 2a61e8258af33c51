"""Syntax of names, labels, ports and addresses: each answers what is wrong, or None.

Source: apimachinery's validation package (RFC 1123, RFC 1035, RFC 6335).
"""

from __future__ import annotations

import re
from datetime import datetime
from ipaddress import ip_address, ip_network

from sixfold.model.datapath import IPAddress, IPNetwork

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_PORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_PREFIX_LENGTH = re.compile(r"[0-9]{1,3}\Z")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")
_SHOWN_MAX = 60


def quoted(value: object) -> str:
    """A value inside a message: quoted when text, cut when long."""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def dns_label(name: str) -> str | None:
    """RFC 1123 label: names of namespaces, containers, hosts."""
    if len(name) > 63:
        return f"{quoted(name)} has {len(name)} characters; give at most 63"
    if not _LABEL.match(name):
        return f"{quoted(name)} is not a DNS label; give a-z, 0-9 and '-' inside, like \"web-1\""
    return None


def dns_label_1035(name: str) -> str | None:
    """RFC 1035 label, which starts with a letter: names of services."""
    if not _LABEL.match(name) or len(name) > 63:
        return dns_label(name)
    if not _LABEL_1035.match(name):
        return f"{quoted(name)} starts with a digit; a service name starts with a letter"
    return None


def dns_subdomain(name: str) -> str | None:
    """RFC 1123 subdomain: names of most objects."""
    if len(name) > 253:
        return f"{quoted(name)} has {len(name)} characters; give at most 253"
    if not _SUBDOMAIN.match(name):
        wanted = "give a-z, 0-9, '-' and '.' inside, like \"web-1\""
        return f"{quoted(name)} is not a DNS name; {wanted}"
    return None


def label_key(key: str) -> str | None:
    """``name`` or ``prefix/name``: keys of labels and annotations."""
    prefix, slash, name = key.rpartition("/")
    if slash and dns_subdomain(prefix):
        return f"key {quoted(key)} has a prefix that is not a DNS name; give example.com/name"
    if len(name) > 63 or not _QUALIFIED.match(name):
        wanted = "give at most 63 of A-Z, a-z, 0-9, '-', '_', '.', a letter or digit at both ends"
        return f"key {quoted(key)} is not a label key; {wanted}"
    return None


def label_value(value: str) -> str | None:
    """Empty, or at most 63 characters like the name in a key."""
    if value and (len(value) > 63 or not _QUALIFIED.match(value)):
        wanted = "give at most 63 of A-Z, a-z, 0-9, '-', '_', '.', a letter or digit at both ends"
        return f"{quoted(value)} is not a label value; {wanted}"
    return None


def port_number(port: int) -> str | None:
    return None if 1 <= port <= 65535 else f"{port} is not a port; give 1 to 65535"


def moment(text: str) -> str | None:
    """RFC 3339, with the zone that it wants."""
    try:
        if _MOMENT.match(text) and datetime.fromisoformat(text).timestamp() >= 0:
            return None
    except (ValueError, OverflowError):
        pass
    return f"{quoted(text)} is no time; give one like 2026-12-24T18:00:00Z (RFC 3339)"


def port_name(name: str) -> str | None:
    """IANA_SVC_NAME, RFC 6335 section 5.1."""
    if (
        len(name) > 15
        or not _PORT_NAME.match(name)
        or "--" in name
        or not any(character.isalpha() for character in name)
    ):
        wanted = "give at most 15 of a-z, 0-9 and single '-' inside, with a letter"
        return f"{quoted(name)} is not a port name; {wanted}"
    return None


def port(value: int | str) -> str | None:
    """A number or a name."""
    if isinstance(value, int):
        return port_number(value)
    if value.isdigit():
        return f"{quoted(value)} is a number in quotes; give {value} without"
    return port_name(value)


def address(text: str) -> IPAddress | str:
    """The address, or what is wrong with it."""
    try:
        parsed = ip_address(text)
    except ValueError:
        return f"{quoted(text)} is not an IP address"
    if parsed.version == 6 and (parsed.ipv4_mapped or parsed.scope_id):
        return f"{quoted(text)} is IPv4-mapped or has a zone; give a plain address"
    return parsed


def is_special(one: IPAddress) -> bool:
    """Whether it is nobody's in particular: no workload, no service has such an address."""
    return one.is_unspecified or one.is_loopback or one.is_multicast or one.is_link_local


def cidr(text: str, *, lenient: bool = False) -> IPNetwork | str:
    """The network, or what is wrong with it; lenient: host bits are dropped."""
    host, slash, length = text.partition("/")
    parsed = address(host)
    if isinstance(parsed, str):
        return f"{quoted(text)} is not a CIDR; give address/prefix-length, like 192.0.2.0/24"
    if not slash:
        return f"{quoted(text)} has no prefix length; give {text}/{parsed.max_prefixlen}"
    if not _PREFIX_LENGTH.match(length) or int(length) > parsed.max_prefixlen:
        return f"{quoted(text)}: prefix length is not 0 to {parsed.max_prefixlen}"
    network = ip_network(f"{parsed}/{int(length)}", strict=False)
    if network.network_address != parsed and not lenient:
        return f"{quoted(text)} has host bits set; give {network}"
    return network
