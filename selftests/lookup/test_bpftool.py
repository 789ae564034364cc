# SPDX-License-Identifier: GPL-2.0-only
"""bpftool as a reader of flow maps: map show and map dump."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.traffic.connections import IPPROTO_TCP, IPPROTO_UDP


def _bpftool(*arguments: str | int) -> Any:
    """Run bpftool, and return its output as JSON."""
    argv = ["bpftool", "-j", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def _octets(texts: Sequence[str]) -> bytes:
    """Return the bytes that bpftool prints as a list of hexadecimal numbers."""
    return bytes(int(text, 16) for text in texts)


@pytest.mark.clause("MM-10.2")
def test_bpftool_map_show_describes_flow_map(make_flowmap: MakeFlowmap) -> None:
    """bpftool map show has the map by id and in its list, with sizes, capacity, flags and memory.

    A version of bpftool that does not know the type prints its number.
    """
    fd = make_flowmap(max_entries=64)
    info = bpf.map_info(fd)
    shown = _bpftool("map", "show", "id", info.id)
    assert shown["type"] in (bpf.flowmap_type(), "flowmap")
    assert (shown["id"], shown["name"]) == (info.id, "flows")
    assert (shown["bytes_key"], shown["bytes_value"]) == (uapi.KEY_SIZE, uapi.VALUE_SIZE)
    assert shown["max_entries"] == 64
    assert shown["flags"] == bpf_attr.F_RDONLY_PROG
    assert int(shown["bytes_memlock"]) == int(bpf.fdinfo(fd)["memlock"]) > 0
    listed = {each["id"]: each for each in _bpftool("map", "show")}
    assert listed[info.id]["name"] == "flows"


@pytest.mark.clause("MM-10.2", "FM-6.4")
def test_bpftool_map_dump_has_every_entry(flowmap: int, open_connection: OpenConnection) -> None:
    """bpftool map dump prints each key once, with the value that a lookup of it returns.

    An empty map has an empty dump, before its flows and after them.
    """
    map_id = bpf.map_info(flowmap).id
    assert _bpftool("map", "dump", "id", map_id) == []
    flows = [
        open_connection(protocol, version, server_port=7000 + number).wait_offloaded()
        for number, (protocol, version) in enumerate(
            (protocol, version) for protocol in (IPPROTO_TCP, IPPROTO_UDP) for version in (4, 6)
        )
    ]
    dumped = {
        _octets(entry["key"]): _octets(entry["value"])
        for entry in _bpftool("map", "dump", "id", map_id)
    }
    assert sorted(dumped) == sorted(bytes(key) for flow in flows for key in flow.keys)
    for flow in flows:
        for key in flow.keys:
            # Without the first field, the expiry, which packets move.
            assert dumped[bytes(key)][8:] == bytes(bpf.lookup(flowmap, key))[8:]
    key = flows[0].original
    found = _bpftool("map", "lookup", "id", map_id, "key", "hex", *bytes(key).hex(" ").split())
    assert _octets(found["value"])[8:] == bytes(bpf.lookup(flowmap, key))[8:]
