# SPDX-License-Identifier: GPL-2.0-only
"""bpftool on a flow map: what it prints is what the system calls return.

An older bpftool does not know the type's name, but everything else of the map.
"""

import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.bpftool import (
    Bpftool,
    BpftoolError,
    bytes_from_json,
    key_arguments,
    pairs_from_json,
    pairs_from_text,
)
from fixtures.guest.bpf.btf_builder import BtfBuilder
from fixtures.guest.bpf.libbpf_skeleton import Skeleton
from fixtures.guest.kernel import modules
from fixtures.guest.net import netns
from fixtures.guest.pytest_plugin.plugin_api import MakeFlowmap, OpenConnection
from fixtures.guest.topology.client_router_server import Router
from selftests.clients.client_parts import (
    DISTRIBUTION,
    TREE,
    bpftool_of,
    each_origin,
    libbpf_of,
    offload_flows,
    read_pairs,
)

_TYPE_NAME = "flowmap"


def _id(fd: int) -> str:
    return str(bpf.map_info(fd).id)


@pytest.mark.clause("MM-10.2")
@each_origin
def test_map_show_prints_attributes(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap, origin: str
) -> None:
    """``map show`` prints id, name, flags, sizes, capacity and memory of each flow map.

    Of the maps one is empty, one has flows, one is passive and has the values of version 0.  The
    list of all maps has each of them once.
    """
    bpftool = bpftool_of(origin)
    offload_flows(open_connection)
    fds = [
        make_flowmap(),
        make_flowmap(router.namespace),
        make_flowmap(router.namespace, 2, value_size=uapi.VALUE_SIZE_VER0, map_extra=uapi.PASSIVE),
    ]
    listed: list[dict[str, Any]] = bpftool.json("map", "show")
    for fd in fds:
        info = bpf.map_info(fd)
        expected = {
            "id": info.id,
            "name": "flows",
            "flags": info.map_flags,
            "bytes_key": uapi.KEY_SIZE,
            "bytes_value": info.value_size,
            "max_entries": info.max_entries,
            "bytes_memlock": int(bpf.fdinfo(fd)["memlock"]),
            "frozen": 0,
        }
        shown = bpftool.json("map", "show", "id", _id(fd))
        assert {name: shown[name] for name in expected} == expected
        assert [each for each in listed if each["id"] == info.id] == [shown]
        text = bpftool.run("map", "show", "id", _id(fd))
        assert re.match(rf"{info.id}: \S+ .*name flows +flags 0x{info.map_flags:x}\n", text), text
        assert (
            f"\tkey {uapi.KEY_SIZE}B  value {info.value_size}B  max_entries {info.max_entries}  "
            f"memlock {expected['bytes_memlock']}B"
        ) in text
        # A version that does not know the type prints its number.
        assert shown["type"] in (bpf.flowmap_type(), _TYPE_NAME)
        if origin == TREE:
            assert shown["type"] == _TYPE_NAME
            assert f": {_TYPE_NAME}  name" in text


@pytest.mark.clause("MM-10.2", "FM-6.4", "FM-13.2")
@each_origin
def test_map_dump_equals_walk(
    router: Router, open_connection: OpenConnection, make_flowmap: MakeFlowmap, origin: str
) -> None:
    """``map dump`` prints every key and value of the system calls in the order of a walk.

    As text and as JSON, of maps with the whole value and with that of version 0, and nothing of an
    empty map, before its flows too.
    """
    bpftool = bpftool_of(origin)
    early = make_flowmap(router.namespace)
    assert bpftool.json("map", "dump", "id", _id(early)) == []
    keys = sorted(bytes(key) for flow in offload_flows(open_connection) for key in flow.keys)
    assert (
        sorted(key for key, _ in pairs_from_json(bpftool.json("map", "dump", "id", _id(early))))
        == keys
    )
    for value_size in (uapi.VALUE_SIZE, uapi.VALUE_SIZE_VER0 + 1, uapi.VALUE_SIZE_VER0):
        fd = make_flowmap(router.namespace, value_size=value_size)
        expected = read_pairs(fd)
        assert len(expected) == uapi.keys_for_flows(4)
        assert pairs_from_json(bpftool.json("map", "dump", "id", _id(fd))) == expected
        text = bpftool.run("map", "dump", "id", _id(fd))
        assert pairs_from_text(text) == expected
        assert text.endswith(f"Found {len(expected)} elements\n")
    empty = make_flowmap()
    assert bpftool.json("map", "dump", "id", _id(empty)) == []
    assert bpftool.run("map", "dump", "id", _id(empty)) == "Found 0 elements\n"


@pytest.mark.clause("MM-10.2", "FM-6.4")
@each_origin
def test_map_dump_with_types_prints_fields(
    router: Router, open_connection: OpenConnection, bpffs: Path, cleanup: ExitStack, origin: str
) -> None:
    """``map dump`` of a map that an object created prints the fields of key and value by name."""
    bpftool = bpftool_of(origin)
    with netns.entered(router.namespace):
        loaded = Skeleton(libbpf_of(DISTRIBUTION), "client_skeleton", bpffs)
    cleanup.callback(loaded.close)
    offload_flows(open_connection)
    fd = loaded.map_fd("flows")
    expected = read_pairs(fd)
    dumped = bpftool.json("map", "dump", "id", _id(fd))
    assert pairs_from_json(dumped) == expected
    for entry, (raw_key, raw_value) in zip(dumped, expected, strict=True):
        key, value = uapi.Key.from_buffer_copy(raw_key), uapi.Value.from_buffer_copy(raw_value)
        fields = entry["formatted"]
        for name in ("iifindex", "l3proto", "l4proto", "zone", "tun_l4proto"):
            assert fields["key"][name] == getattr(key, name), name
        for name in ("expires", "oifindex", "flags", "ct_id", "mtu", "dir", "xmit_type", "ct_zone"):
            assert fields["value"][name] == getattr(value, name), name
        assert bytes_from_json_or_numbers(fields["value"]["h_dest"]) == bytes(value.h_dest)
    # Without --json the fields are printed, too.
    assert '"iifindex": ' in bpftool.run("map", "dump", "id", _id(fd))


def bytes_from_json_or_numbers(octets: list[str] | list[int]) -> bytes:
    """Return the bytes that JSON has as numbers, or as ``0x..`` strings."""
    return bytes(int(octet, 16) if isinstance(octet, str) else octet for octet in octets)


@pytest.mark.clause("FM-6.1", "FM-6.9", "FM-5.2")
@each_origin
def test_map_getnext_and_lookup_follow_walk(
    flowmap: int, open_connection: OpenConnection, make_flowmap: MakeFlowmap, origin: str
) -> None:
    """``map getnext`` steps through the keys, ``map lookup`` prints each one's value.

    Behind the last key, and in an empty map, ``getnext`` fails.  A key without a flow is not
    found, one with a reserved octet is refused, and a key of zeroes is followed by the first one.
    """
    bpftool = bpftool_of(origin)
    offload_flows(open_connection, 2)
    expected = read_pairs(flowmap)
    where = ("id", _id(flowmap))
    step = bpftool.json("map", "getnext", *where)
    assert step["key"] is None
    for number, (key, value) in enumerate(expected):
        assert bytes_from_json(step["next_key"]) == key
        found = bpftool.json("map", "lookup", *where, *key_arguments(key))
        assert pairs_from_json([found]) == [(key, value)]
        assert pairs_from_text(bpftool.run("map", "lookup", *where, *key_arguments(key))) == [
            (key, value)
        ]
        if number + 1 < len(expected):
            step = bpftool.json("map", "getnext", *where, *key_arguments(key))
            assert bytes_from_json(step["key"]) == key
    with pytest.raises(BpftoolError, match="can't get next key: No such file or directory"):
        bpftool.run("map", "getnext", *where, *key_arguments(expected[-1][0]))
    with pytest.raises(BpftoolError, match="can't get next key: No such file or directory"):
        bpftool.run("map", "getnext", "id", _id(make_flowmap()))
    zeroes = key_arguments(bytes(uapi.KEY_SIZE))
    step = bpftool.json("map", "getnext", *where, *zeroes)
    assert bytes_from_json(step["next_key"]) == expected[0][0]
    absent = uapi.Key.from_buffer_copy(expected[0][0])
    absent.ports.source ^= 1
    for arguments in (zeroes, key_arguments(bytes(absent))):
        with pytest.raises(BpftoolError, match="Not found"):
            bpftool.run("map", "lookup", *where, *arguments)
    reserved = uapi.Key.from_buffer_copy(expected[0][0])
    reserved.reserved[0] = 1
    with pytest.raises(BpftoolError, match="lookup failed: Invalid argument"):
        bpftool.run("map", "lookup", *where, *key_arguments(bytes(reserved)))


@pytest.mark.clause("FM-7.1", "FM-7.2", "FM-7.5")
@each_origin
def test_modifying_map_commands_fail_and_change_nothing(
    flowmap: int, open_connection: OpenConnection, origin: str
) -> None:
    """``map update``, ``delete``, ``freeze``, ``push``, ``pop`` and ``dequeue`` fail.

    The map is as readable as before.
    """
    bpftool = bpftool_of(origin)
    offload_flows(open_connection, 2)
    before = read_pairs(flowmap)
    where = ("id", _id(flowmap))
    key, value = before[0]
    octets = [f"{octet:02x}" for octet in value]
    for command in (
        ("update", *where, *key_arguments(key), "value", "hex", *octets),
        ("update", *where, *key_arguments(bytes(uapi.KEY_SIZE)), "value", "hex", *octets),
        ("delete", *where, *key_arguments(key)),
        ("freeze", *where),
        ("pop", *where),
        ("push", *where, "value", "hex", *octets),
    ):
        with pytest.raises(BpftoolError):
            bpftool.run("map", *command)
    assert read_pairs(flowmap) == before
    assert pairs_from_json(bpftool.json("map", "dump", *where)) == before


@pytest.mark.clause("MM-4.2")
@each_origin
def test_map_pin_keeps_map_and_shows_it(
    router: Router, open_connection: OpenConnection, bpffs: Path, origin: str
) -> None:
    """A map that bpftool has pinned outlives its creator's descriptor, and can be read by path."""
    bpftool = bpftool_of(origin)
    offload_flows(open_connection, 2)
    path = bpffs / "by_bpftool"
    with bpf.open_flowmap(router.namespace) as created:
        map_id, expected = bpf.map_info(created).id, read_pairs(created)
        bpftool.run("map", "pin", "id", str(map_id), str(path))
        with pytest.raises(BpftoolError, match="exists"):
            bpftool.run("map", "pin", "id", str(map_id), str(path))
    assert bpftool.json("map", "show", "pinned", str(path))["id"] == map_id
    assert pairs_from_json(bpftool.json("map", "dump", "pinned", str(path))) == expected
    assert pairs_from_json(bpftool.json("map", "dump", "name", "flows")) == expected
    with bpf.closing_fd(bpf.get_pinned(str(path))) as fd:
        assert bpf.map_info(fd).id == map_id
        assert read_pairs(fd) == expected
    path.unlink()
    with pytest.raises(BpftoolError):
        bpftool.run("map", "show", "pinned", str(path))


def _create(bpftool: Bpftool, path: Path, namespace: str | None, **changes: str) -> None:
    settings = {
        "type": _TYPE_NAME,
        "key": str(uapi.KEY_SIZE),
        "value": str(uapi.VALUE_SIZE),
        "entries": "64",
        "name": "made",
        "flags": str(bpf_attr.F_RDONLY_PROG),
    }
    words = [word for pair in (settings | changes).items() for word in pair]
    bpftool.run("map", "create", str(path), *words, namespace=namespace)


@pytest.mark.clause("MM-3.1", "FM-2.1")
@pytest.mark.usefixtures("flowtable_modules")
def test_map_create_of_tree_makes_flowmap(
    router: Router, open_connection: OpenConnection, bpffs: Path
) -> None:
    """``map create type flowmap`` of the tree's bpftool makes a map of the caller's namespace.

    Wrong sizes or flags are refused, and no file appears.  The module is in use while the file
    exists.
    """
    bpftool = bpftool_of(TREE)
    offload_flows(open_connection, 2)
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)
    path, other = bpffs / "here", bpffs / "elsewhere"
    for wrong in ({"key": "87"}, {"value": "95"}, {"value": "129"}, {"entries": "1"}):
        with pytest.raises(BpftoolError, match="Invalid argument"):
            _create(bpftool, path, router.namespace, **wrong)
    with pytest.raises(BpftoolError, match="Invalid argument"):
        _create(bpftool, path, router.namespace, flags="0")
    assert not path.exists()
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)
    _create(bpftool, path, router.namespace)
    _create(bpftool, other, None, name="other")
    assert modules.refcount(modules.FLOWMAP_MODULE) == 2
    with bpf.closing_fd(bpf.get_pinned(str(path))) as fd:
        assert bpf.map_info(fd).type == bpf.flowmap_type()
        assert len(read_pairs(fd)) == uapi.keys_for_flows(2)
    with bpf.closing_fd(bpf.get_pinned(str(other))) as fd:
        assert read_pairs(fd) == []
    for pin in (path, other):
        pin.unlink()
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)


@pytest.mark.clause("MM-10.2", "FM-6.4")
@each_origin
def test_map_dump_with_foreign_types_is_complete(
    make_flowmap: MakeFlowmap,
    router: Router,
    open_connection: OpenConnection,
    cleanup: ExitStack,
    origin: str,
) -> None:
    """``map dump`` is complete if the creator's types are structures of octets only."""
    bpftool = bpftool_of(origin)
    types = BtfBuilder()
    key = types.add_struct_of_bytes("any_key", uapi.KEY_SIZE)
    value = types.add_struct_of_bytes("any_value", uapi.VALUE_SIZE)
    btf = types.load()
    cleanup.callback(os.close, btf)
    fd = make_flowmap(router.namespace, btf_fd=btf, btf_key_type_id=key, btf_value_type_id=value)
    offload_flows(open_connection, 2)
    dumped = bpftool.json("map", "dump", "id", _id(fd))
    assert pairs_from_json(dumped) == read_pairs(fd)


def _probed_map_types(bpftool: Bpftool) -> dict[str, bool]:
    """Return the map types of ``feature probe``, and whether it says that they are available.

    What follows, thousands of helpers, takes long: the program is stopped there.
    """
    found: dict[str, bool] = {}
    with bpftool.lines("feature", "probe", "kernel") as lines:
        for line in lines:
            if match := re.fullmatch(r"eBPF map_type (\S+) is (NOT )?available", line):
                found[match[1]] = match[2] is None
            elif found:
                return found
    return found


@pytest.mark.clause("MM-3.1", "MM-3.3", "MM-8.1")
@pytest.mark.usefixtures("flowmap_unloaded")
def test_feature_probe_lists_flowmap() -> None:
    """``feature probe`` of the tree says that the type is available, and loads its module.

    It is not available while the module cannot be loaded.  The other types are the same with and
    without it, for the distribution's bpftool too, and no map is left.
    """
    tree = bpftool_of(TREE)
    assert _TYPE_NAME in tree.run("feature", "list_builtins", "map_types").split()
    with modules.autoload_disabled():
        absent = _probed_map_types(tree)
    assert absent[_TYPE_NAME] is False
    assert not modules.loaded(modules.FLOWMAP_MODULE)
    old = _probed_map_types(bpftool_of(DISTRIBUTION))
    present = _probed_map_types(tree)
    assert present[_TYPE_NAME] is True
    assert modules.loaded(modules.FLOWMAP_MODULE)
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)
    assert present == absent | {_TYPE_NAME: True}
    assert absent["hash"]
    assert absent["array"]
    assert {name: present[name] for name in old if name in present} == {
        name: available for name, available in old.items() if name in present
    }
    assert _TYPE_NAME not in old or old[_TYPE_NAME]
