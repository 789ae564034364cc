# SPDX-License-Identifier: GPL-2.0-only
"""The models that the kernel is held against, by examples worked out by hand."""

import errno
import mmap

import pytest

from fixtures.guest.bpf.bpf_attr import F_RDONLY, F_RDONLY_PROG, F_WRONLY, Command
from fixtures.guest.net.flowtable import COUNTER, HW_OFFLOAD, SNOOP
from selftests.model import bpf_cmds_oracle, flowtable_oracle, map_create_oracle
from selftests.model.bpf_cmds_oracle import ENOTSUPP, Fd, Key, Memory, OnBatch, OnElement
from selftests.model.flowtable_oracle import Known, Request
from selftests.model.map_create_oracle import F_TOKEN_FD, FILE, NOTHING, READABLE, UNMAPPED
from selftests.model.reference_model import TCP, UDP, Flow, Map, Space, World

BOTH = F_RDONLY_PROG | F_RDONLY | F_WRONLY
TOKEN = F_RDONLY_PROG | F_TOKEN_FD


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"key_size": 1}, errno.EINVAL),
        ({"btf_value_type_id": 1, "btf_fd": NOTHING}, errno.EBADF),
        ({"btf_value_type_id": 1, "btf_fd": NOTHING, "key_size": 1}, errno.EINVAL),
        ({"btf_value_type_id": 1, "btf_fd": NOTHING, "map_flags": BOTH}, errno.EBADF),
        ({"btf_value_type_id": 1, "btf_fd": FILE}, errno.EINVAL),
        ({"map_flags": TOKEN, "map_token_fd": NOTHING, "key_size": 1}, errno.EBADF),
        ({"map_flags": TOKEN, "map_token_fd": NOTHING, "map_extra": 1}, errno.EINVAL),
        ({"excl_prog_hash": UNMAPPED, "excl_prog_hash_size": 32}, errno.EFAULT),
        ({"excl_prog_hash": UNMAPPED}, errno.EINVAL),
        ({"excl_prog_hash": READABLE, "excl_prog_hash_size": 32}, 0),
    ],
    ids=str,
)
def test_first_mistake_of_a_creation_is_told(
    changed: dict[str, map_create_oracle.Attribute], code: int
) -> None:
    assert map_create_oracle.answer(map_create_oracle.Request(changed))[0] == code


def test_capabilities_come_between_what_needs_a_type_and_what_does_not() -> None:
    def refused(**changed: map_create_oracle.Attribute) -> int:
        return map_create_oracle.answer(map_create_oracle.Request(changed, privileged=False))[0]

    assert refused() == refused(key_size=1) == refused(map_flags=0) == errno.EPERM
    assert refused(map_extra=1) == refused(map_ifindex=1) == errno.EINVAL


def test_what_is_beyond_the_size_is_not_seen() -> None:
    cut = map_create_oracle.offset("btf_vmlinux_value_type_id")
    assert (
        map_create_oracle.answer(map_create_oracle.Request({"btf_vmlinux_value_type_id": 1}, cut))[
            0
        ]
        == 0
    )
    assert (
        map_create_oracle.answer(
            map_create_oracle.Request(size=map_create_oracle.offset("max_entries"))
        )[0]
        == errno.EINVAL
    )
    assert map_create_oracle.answer(map_create_oracle.Request(stray=map_create_oracle.END))[0] == 0
    assert (
        map_create_oracle.answer(map_create_oracle.Request(size=mmap.PAGESIZE + 1))[0]
        == errno.E2BIG
    )


ORDER = (Key.ORIGINAL, Key.REPLY)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (OnElement(Command.MAP_LOOKUP_ELEM), 0),
        (OnElement(Command.MAP_LOOKUP_ELEM, key=Key.UNKNOWN, value=Memory.NULL), errno.ENOENT),
        (OnElement(Command.MAP_LOOKUP_ELEM, value=Memory.UNMAPPED), errno.EFAULT),
        (OnElement(Command.MAP_LOOKUP_ELEM, Fd.WRITER, flags=1), errno.EPERM),
        (OnElement(Command.MAP_UPDATE_ELEM, flags=1), errno.EOPNOTSUPP),
        (OnElement(Command.MAP_UPDATE_ELEM, flags=bpf_cmds_oracle.F_LOCK), errno.EINVAL),
        (OnElement(Command.MAP_UPDATE_ELEM, flags=1 << 32), errno.EINVAL),
        (OnElement(Command.MAP_UPDATE_ELEM, Fd.READER), errno.EPERM),
        (OnElement(Command.MAP_DELETE_ELEM), errno.EINVAL),
        (OnElement(Command.MAP_DELETE_ELEM, value=Memory.NULL), errno.EOPNOTSUPP),
        (OnElement(Command.MAP_GET_NEXT_KEY, key=Key.NULL), 0),
        (OnElement(Command.MAP_GET_NEXT_KEY, key=Key.REPLY), errno.ENOENT),
        (OnElement(Command.MAP_GET_NEXT_KEY, key=Key.RESERVED), errno.EINVAL),
        (OnElement(Command.MAP_LOOKUP_AND_DELETE_ELEM, Fd.NOTHING, flags=1), errno.EINVAL),
        (OnElement(Command.MAP_LOOKUP_AND_DELETE_ELEM), ENOTSUPP),
        (OnElement(Command.MAP_FREEZE, Fd.READER, Key.NULL, Memory.NULL), ENOTSUPP),
        (OnBatch(Command.MAP_LOOKUP_BATCH), errno.ENOENT),
        (OnBatch(Command.MAP_LOOKUP_BATCH, count=2), 0),
        (OnBatch(Command.MAP_LOOKUP_BATCH, count=0, keys=Memory.NULL), 0),
        (OnBatch(Command.MAP_LOOKUP_BATCH, start=Key.REPLY, keys=Memory.NULL), errno.ENOENT),
        (OnBatch(Command.MAP_LOOKUP_BATCH, end=Memory.NULL), errno.EFAULT),
        (OnBatch(Command.MAP_UPDATE_BATCH, keys=Memory.NULL), ENOTSUPP),
        (OnBatch(Command.MAP_DELETE_BATCH, Fd.READER), errno.EPERM),
    ],
    ids=str,
)
def test_first_mistake_of_a_command_is_told(request_: bpf_cmds_oracle.Request, code: int) -> None:
    assert bpf_cmds_oracle.answer(request_, ORDER) == code


def test_batch_hands_out_what_comes_behind_its_start() -> None:
    assert bpf_cmds_oracle.handed_out(OnBatch(Command.MAP_LOOKUP_BATCH), ORDER) == list(ORDER)
    later = OnBatch(Command.MAP_LOOKUP_BATCH, start=Key.ORIGINAL, count=1)
    assert bpf_cmds_oracle.handed_out(later, ORDER) == [Key.REPLY]
    unknown = OnBatch(Command.MAP_LOOKUP_BATCH, start=Key.UNKNOWN)
    assert bpf_cmds_oracle.handed_out(unknown, ORDER) == []


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Request(flags=SNOOP), 0),
        (Request(flags=SNOOP | COUNTER), errno.EOPNOTSUPP),
        (Request(flags=8, table="missing"), errno.EINVAL),
        (Request(flags=SNOOP | COUNTER, family=flowtable_oracle.NETDEV), errno.ENOENT),
        (Request(flags=HW_OFFLOAD), 0),
        (Request(flags=HW_OFFLOAD, devices=("d0",)), errno.EOPNOTSUPP),
        (Request(flags=HW_OFFLOAD, devices=("d9",)), 0),
        (Request(devices=("d1",), rival=True), errno.EEXIST),
        (Request(devices=("d1",), rival=True, flags=SNOOP), 0),
        (Request(before=Known()), errno.EEXIST),
        (Request(before=Known(), exclusive=False, flags=SNOOP), errno.EOPNOTSUPP),
        (Request(before=Known(SNOOP), exclusive=False), 0),
        (Request(before=Known(), exclusive=False, flags=COUNTER), 0),
        (Request(before=Known(), exclusive=False, priority=1), errno.EOPNOTSUPP),
        (Request(devices=("d0", "d0", flowtable_oracle.LONG)), errno.EEXIST),
    ],
    ids=str,
)
def test_first_mistake_of_a_flow_table_is_told(request_: Request, code: int) -> None:
    assert flowtable_oracle.answer(request_) == code


def test_update_adds_devices_and_an_abort_changes_nothing() -> None:
    update = Request(before=Known(0, ("d0",)), exclusive=False, flags=COUNTER, devices=("d1",))
    assert flowtable_oracle.after(update) == Known(COUNTER, ("d0", "d1"))
    aborted = Request(before=Known(0, ("d0",)), exclusive=False, flags=COUNTER, aborted=True)
    assert flowtable_oracle.after(aborted) == Known(0, ("d0",))


def _world() -> World:
    world = World()
    world.spaces["one"] = Space(router=True, tables={"fw", "fw4", "fw6"})
    world.flows["tcp"] = Flow("one", TCP, 4, (b"a", b"b"))
    world.flows["udp"] = Flow("one", UDP, 4, (b"c", b"d"))
    world.maps["map"] = Map("one", 8)
    return world


def test_table_takes_its_own_flows_with_it() -> None:
    world = _world()
    world.drop_table("one", "fw4")
    assert world.live() == ["tcp"]
    assert world.keys("one") == [b"a", b"b"]
    assert world.revivable() == []
    world.spaces["one"].tables.add("fw4")
    assert world.revivable() == ["udp"]


def test_forgotten_tcp_connection_does_not_come_back() -> None:
    world = _world()
    world.end("one", untracked=True)
    assert world.revivable() == ["udp"]


def test_namespace_leaves_empty_maps_that_hold_the_module() -> None:
    world = _world()
    world.leave("one")
    assert not [*world.keys("one"), *world.ways(), *world.existing()]
    assert world.unload() == errno.EWOULDBLOCK
    world.maps.clear()
    assert world.unload() == 0
    world.loaded = False
    assert (world.unload(), world.creation()) == (errno.ENOENT, errno.EINVAL)
