"""Loopback and network addresses, allowed host names, and the password rule."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from mlae_lab import network


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.7", "localhost", "LOCALHOST", "::1", "[::1]", " 127.0.0.1 "])
def test_loopback_addresses(address: str) -> None:
    assert network.is_loopback(address)


@pytest.mark.parametrize(
    "address", [None, "", "*", "0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "fe80::1", "127.0.0.1.example.com", "a-name",
                "localhost.example.com", "127.1", "128.0.0.1"],
)  # fmt: skip
def test_all_other_addresses_are_a_network(address: str | None) -> None:
    assert not network.is_loopback(address)


def test_hosts_of_a_loopback_address() -> None:
    assert network.allowed_hosts("127.0.0.1") == ["localhost", "127.0.0.1"]
    assert network.allowed_hosts("localhost") == ["localhost", "127.0.0.1"]
    assert network.allowed_hosts("::1") == ["localhost", "127.0.0.1", "::1"]


@pytest.mark.parametrize("address", ["0.0.0.0", "::", None, ""])
def test_hosts_of_every_interface(address: str | None) -> None:
    hosts = network.allowed_hosts(address)
    assert {"localhost", "127.0.0.1", socket.gethostname().lower()} <= set(hosts)
    assert len(set(hosts)) == len(hosts)
    assert all(host == host.lower() and host for host in hosts)
    assert not {"*", "0.0.0.0", "::", ""} & set(hosts), "a wildcard would allow every host name"
    numbers = [host for host in hosts if host.replace(".", "").isdigit() or ":" in host]
    for number in numbers:
        ipaddress.ip_address(number)


def test_hosts_of_every_interface_include_the_outgoing_address() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        assert probe.getsockname()[0] in network.allowed_hosts("0.0.0.0")


def test_hosts_of_one_interface_are_its_address_and_the_host_names() -> None:
    hosts = network.allowed_hosts("192.168.1.5")
    assert "192.168.1.5" in hosts
    assert socket.gethostname().lower() in hosts
    assert network.allowed_hosts("[2001:db8::5]")[-1] == "2001:db8::5", "Streamlit compares without brackets"


def test_a_server_is_public_by_its_address_or_by_a_name() -> None:
    assert not network.is_public("127.0.0.1")
    assert not network.is_public("::1", ["localhost", "127.0.0.1", "::1"])
    assert network.is_public("0.0.0.0")
    assert network.is_public("127.0.0.1", ["localhost", "lab.example.com"])
    assert network.is_public("127.0.0.1", ["*"])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("lab.example.com", "lab.example.com"), (" LAB.Example.com. ", "lab.example.com"), ("gpu-3", "gpu-3"),
        ("bücher.example", "xn--bcher-kva.example"), ("203.0.113.5", "203.0.113.5"), ("[2001:DB8::5]", "2001:db8::5"),
    ],
)  # fmt: skip
def test_a_public_name(text: str, name: str) -> None:
    assert network.public_name(text) == name


@pytest.mark.parametrize(
    "text",
    ["", "https://lab.example.com", "lab.example.com/lab", "lab.example.com:8501", "*", "*.example.com", "a b", "-a",
     "a..b", "x" * 64, "a@b"],
)  # fmt: skip
def test_what_is_no_public_name(text: str) -> None:
    """A wildcard would let every site that a visitor opens reach the lab under its name."""
    assert network.public_name(text) is None


@pytest.mark.parametrize(("text", "count"), [("", "0 characters"), ("x", "1 character:"), ("1234567", "7 characters")])
def test_a_short_password_is_refused_with_value_and_rule(text: str, count: str) -> None:
    problem = network.password_problem(text)
    assert problem
    assert count in problem
    assert "at least 8" in problem
    assert "MLAE_LAB_PASSWORD" in problem


@pytest.mark.parametrize("text", ["12345678", "äöüäöüäö", "a long sentence is best"])
def test_eight_characters_are_enough(text: str) -> None:
    assert network.password_problem(text) is None
