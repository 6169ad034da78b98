"""What it means for the lab to be bound to an address: who can reach it there, under which names, and what keeps
strangers out."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from contextlib import suppress
from pathlib import Path

PASSWORD_VARIABLE = "MLAE_LAB_PASSWORD"
PASSWORD_LENGTH = 8  # characters, at least
_EVERYWHERE = ("", "*", "0.0.0.0", "::")
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of a network interface


def is_loopback(address: str | None) -> bool:
    """Whether only this machine reaches a server bound to an address. None and "" mean every interface: False."""
    bare = (address or "").strip().strip("[]").lower()
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:  # the name of a machine: what it resolves to may change
        return False


def allowed_hosts(address: str | None) -> list[str]:
    """Names under which a browser may ask for a server bound to an address, as `server.allowedHosts` takes them.

    Always localhost and 127.0.0.1. On a network also the machine's name, short and in full, and the address; where
    that stands for every interface, the addresses of this machine. May ask a name server, which can take seconds.
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


def password_problem(text: str) -> str | None:
    """One sentence if a password is too short to be one, else None."""
    if len(text) >= PASSWORD_LENGTH:
        return None
    count = f"{len(text)} character{'' if len(text) == 1 else 's'}"
    return f"The password in {PASSWORD_VARIABLE} has {count}: it must have at least {PASSWORD_LENGTH}."


def _own_addresses() -> list[str]:
    """The addresses of this machine's interfaces and those that its name stands for; those that can be found."""
    found = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))  # sends nothing: only asks which interface leads outside
            found.append(probe.getsockname()[0])
    with suppress(OSError):
        found += [entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None)]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append(socket.inet_ntoa(answer[20:24]))
    with suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            found.append(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))))
    # a link-local address needs a zone, which no browser sends
    return [one for one in dict.fromkeys(found) if "%" not in one and not ipaddress.ip_address(one).is_link_local]
