# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of this folder share: the clients by origin, and flows of every kind to read."""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr, tree_tools
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.bpftool import Bpftool
from fixtures.guest.bpf.libbpf import Library
from fixtures.guest.bpf.libbpf_skeleton import skeleton_library
from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP, Flow

DISTRIBUTION, TREE = "distribution", "tree"

each_origin = pytest.mark.parametrize("origin", [DISTRIBUTION, TREE])
"""Each test runs with the distribution's client and with that of the kernel tree under test."""

_KINDS = [(IPPROTO_UDP, 4), (IPPROTO_TCP, 6), (IPPROTO_TCP, 4), (IPPROTO_UDP, 6)]


def _delivered(name: str) -> Path:
    path = tree_tools.tree_tool(name)
    if path is None:
        pytest.skip(f"the kernel tree's {name} was not delivered: a prebuilt kernel has no tree")
    return path


def bpftool_of(origin: str) -> Bpftool:
    """Return bpftool of the distribution or of the tree; skip if it was not delivered."""
    return Bpftool(Path("bpftool") if origin == DISTRIBUTION else _delivered(tree_tools.BPFTOOL))


def libbpf_of(origin: str) -> Library:
    """Return libbpf of the distribution or of the tree; skip if it was not delivered."""
    return skeleton_library(None if origin == DISTRIBUTION else _delivered(tree_tools.LIBBPF))


def offload_flows(
    open_connection: OpenConnection, count: int = 4, first_port: int = 7400
) -> list[Flow]:
    """Offload connections of both protocols and IP versions, each to a port of its own."""
    return [
        open_connection(*_KINDS[number % 4], server_port=first_port + number).wait_offloaded()
        for number in range(count)
    ]


def next_raw_key(fd: int, key: bytes | None) -> bytes | None:
    """Return the key after ``key`` (None: the first one), or None at the end."""
    start = None if key is None else ctypes.create_string_buffer(key, len(key))
    following = ctypes.create_string_buffer(uapi.KEY_SIZE)
    attr = bpf_attr.MapElemAttr(
        map_fd=fd, key=bpf.user_pointer(start), value=bpf.user_pointer(following)
    )
    try:
        bpf.bpf(bpf_attr.Command.MAP_GET_NEXT_KEY, attr)
    except FileNotFoundError:
        return None
    return following.raw


def read_pairs(fd: int) -> list[tuple[bytes, bytes]]:
    """Return keys and values in the order of a walk, by the system calls without a library.

    Values have the map's own ``value_size``.
    """
    size = bpf.map_info(fd).value_size
    pairs: list[tuple[bytes, bytes]] = []
    key = next_raw_key(fd, None)
    while key is not None:
        with suppress(FileNotFoundError):  # the flow has ended since
            pairs.append((key, bpf.lookup_raw(fd, key, size)))
        key = next_raw_key(fd, key)
    return pairs


def flow_keys(flows: Sequence[Flow]) -> set[bytes]:
    """Return the keys of both directions of flows."""
    return {bytes(key) for flow in flows for key in flow.keys}
