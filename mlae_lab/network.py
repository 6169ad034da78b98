"""Network addresses of the server: whether others can reach it, under which host names, and its password rule."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from mlae_lab.file_locking import fcntl

PASSWORD_VARIABLE = "MLAE_LAB_PASSWORD"
PASSWORD_LENGTH = 8  # characters, at least
_EVERYWHERE = ("", "*", "0.0.0.0", "::")
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of a network interface


def is_loopback(address: str | None) -> bool:
    """Whether only this machine can reach a server bound to an address; False for None and "" (all interfaces)."""
    bare = (address or "").strip().strip("[]").lower()
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:  # a host name, which may resolve to another address later
        return False


def allowed_hosts(address: str | None) -> list[str]:
    """Host names by which a browser may request a server bound to an address, for `server.allowedHosts`.

    Always localhost and 127.0.0.1. On a network also the machine's short and full name, and the address, or all
    addresses of this machine if it is bound to every interface. May query a name server, which can take seconds.
    """
    hosts = ["localhost", "127.0.0.1"]
    bare = (address or "").strip().strip("[]").lower()
    if not is_loopback(address):
        name = socket.gethostname()
        hosts += [name, name.split(".")[0], socket.getfqdn()]
        hosts += _own_addresses() if bare in _EVERYWHERE else [bare]
    elif bare not in hosts:
        hosts.append(bare)
    return list(dict.fromkeys(host.lower().rstrip(".") for host in hosts if host))


def is_public(address: str | None, allowed: Collection[str] = ()) -> bool:
    """Whether people on other machines can use a server.

    Args:
        address: That it is bound to, as for `is_loopback`.
        allowed: Host names under which it answers. A public one is that of a proxy, which may run on this machine.
    """
    return not is_loopback(address) or not all(is_loopback(name) for name in allowed)


def public_name(text: str) -> str | None:
    """A host name or an address as browsers send it: lower case, international names in ASCII; None if it is none."""
    bare = text.strip().rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(bare.strip("[]")))
    except ValueError:
        pass
    try:
        name = bare.encode("idna").decode()
    except UnicodeError:  # an empty or a too long label
        return None
    return name if _HOST_NAME.fullmatch(name) else None


def password_problem(text: str) -> str | None:
    """An error message if the password is too short, else None."""
    if len(text) >= PASSWORD_LENGTH:
        return None
    count = f"{len(text)} character{'' if len(text) == 1 else 's'}"
    return f"The password in {PASSWORD_VARIABLE} has {count}: it must have at least {PASSWORD_LENGTH}."


def _own_addresses() -> list[str]:
    """The addresses of this machine's interfaces and of its host name, as far as they can be determined."""
    addresses = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))  # sends nothing, only selects the outgoing interface
            addresses.append(probe.getsockname()[0])
    with suppress(OSError):
        addresses += [entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None)]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                addresses.append(socket.inet_ntoa(answer[20:24]))
    with suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            addresses.append(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))))
    # a link-local address needs a zone, which no browser sends
    return [a for a in dict.fromkeys(addresses) if "%" not in a and not ipaddress.ip_address(a).is_link_local]
