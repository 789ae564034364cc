# SPDX-License-Identifier: GPL-2.0-only
"""The oracles and the reference model, checked by examples worked out by hand."""

import errno
import mmap

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf.bpf_attr import F_RDONLY, F_RDONLY_PROG, F_WRONLY, Command
from fixtures.guest.net.flowtable import COUNTER, HW_OFFLOAD, SNOOP
from selftests.model import bpf_cmds_oracle, map_create_oracle, newflowtable_oracle
from selftests.model.bpf_cmds_oracle import (
    ENOTSUPP,
    BatchRequest,
    ElemRequest,
    Fd,
    Key,
    UserPointer,
)
from selftests.model.map_create_oracle import BAD_FD, F_TOKEN_FD, OTHER_FD, READABLE, UNMAPPED
from selftests.model.newflowtable_oracle import FlowtableRequest, FlowtableState
from selftests.model.reference_model import TCP, UDP, Flow, FlowMap, Netns, ReferenceModel

RDONLY_AND_WRONLY = F_RDONLY_PROG | F_RDONLY | F_WRONLY
WITH_TOKEN_FD = F_RDONLY_PROG | F_TOKEN_FD


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ({}, 0),
        ({"key_size": 1}, errno.EINVAL),
        ({"btf_value_type_id": 1, "btf_fd": BAD_FD}, errno.EBADF),
        ({"btf_value_type_id": 1, "btf_fd": BAD_FD, "key_size": 1}, errno.EINVAL),
        ({"btf_value_type_id": 1, "btf_fd": BAD_FD, "map_flags": RDONLY_AND_WRONLY}, errno.EBADF),
        ({"btf_value_type_id": 1, "btf_fd": OTHER_FD}, errno.EINVAL),
        ({"map_flags": WITH_TOKEN_FD, "map_token_fd": BAD_FD, "key_size": 1}, errno.EBADF),
        ({"map_flags": WITH_TOKEN_FD, "map_token_fd": BAD_FD, "map_extra": 2}, errno.EBADF),
        ({"map_extra": uapi.PASSIVE}, 0),
        ({"map_extra": uapi.PASSIVE | 2}, errno.EINVAL),
        ({"value_size": uapi.VALUE_SIZE_VER0}, 0),
        ({"value_size": uapi.VALUE_SIZE_VER0 - 1}, errno.EINVAL),
        ({"max_entries": 1}, errno.EINVAL),
        ({"excl_prog_hash": UNMAPPED, "excl_prog_hash_size": 32}, errno.EFAULT),
        ({"excl_prog_hash": UNMAPPED}, errno.EINVAL),
        ({"excl_prog_hash": READABLE, "excl_prog_hash_size": 32}, 0),
    ],
    ids=[
        "valid",
        "key-size",
        "bad-btf-fd",
        "key-size-before-bad-btf-fd",
        "bad-btf-fd-before-access-flags",
        "btf-fd-of-other-file",
        "bad-token-fd-before-key-size",
        "bad-token-fd-before-map-extra",
        "map-extra-passive",
        "map-extra-unknown-bit",
        "value-size-ver0",
        "value-size-below-ver0",
        "max-entries-of-one-direction",
        "hash-unmapped",
        "hash-without-size",
        "hash-readable",
    ],
)
def test_map_create_several_errors_first_check_wins(
    overrides: dict[str, map_create_oracle.AttrValue], code: int
) -> None:
    """The first failing check gives BPF_MAP_CREATE's errno."""
    assert (
        map_create_oracle.first_failing_check(map_create_oracle.CreateRequest(overrides))[0] == code
    )


def test_map_create_eperm_precedes_map_type_checks_only() -> None:
    """EPERM precedes the checks of the map type, and follows those that need no type."""

    def unprivileged_errno(**overrides: map_create_oracle.AttrValue) -> int:
        return map_create_oracle.first_failing_check(
            map_create_oracle.CreateRequest(overrides, privileged=False)
        )[0]

    assert (
        unprivileged_errno()
        == unprivileged_errno(key_size=1)
        == unprivileged_errno(map_flags=0)
        == errno.EPERM
    )
    assert unprivileged_errno(map_extra=2) == errno.EPERM
    assert unprivileged_errno(map_ifindex=1) == errno.EINVAL


def test_map_create_fields_beyond_size_ignored() -> None:
    """Fields and non-zero bytes beyond the attribute size do not count."""
    size_before_field = map_create_oracle.field_offset("btf_vmlinux_value_type_id")
    assert (
        map_create_oracle.first_failing_check(
            map_create_oracle.CreateRequest({"btf_vmlinux_value_type_id": 1}, size_before_field)
        )[0]
        == 0
    )
    assert (
        map_create_oracle.first_failing_check(
            map_create_oracle.CreateRequest(attr_size=map_create_oracle.field_offset("max_entries"))
        )[0]
        == errno.EINVAL
    )
    assert (
        map_create_oracle.first_failing_check(
            map_create_oracle.CreateRequest(nonzero_offset=map_create_oracle.LAST_FIELD_END)
        )[0]
        == 0
    )
    assert (
        map_create_oracle.first_failing_check(
            map_create_oracle.CreateRequest(attr_size=mmap.PAGESIZE + 1)
        )[0]
        == errno.E2BIG
    )


POSITIONS = (Key.ORIGINAL, Key.UNKNOWN, Key.REPLY)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ElemRequest(Command.MAP_LOOKUP_ELEM), 0),
        (
            ElemRequest(Command.MAP_LOOKUP_ELEM, key=Key.UNKNOWN, value=UserPointer.NULL),
            errno.ENOENT,
        ),
        (ElemRequest(Command.MAP_LOOKUP_ELEM, value=UserPointer.UNMAPPED), errno.EFAULT),
        (ElemRequest(Command.MAP_LOOKUP_ELEM, Fd.MAP_WRONLY, flags=1), errno.EPERM),
        (ElemRequest(Command.MAP_UPDATE_ELEM, flags=1), errno.EOPNOTSUPP),
        (ElemRequest(Command.MAP_UPDATE_ELEM, flags=bpf_cmds_oracle.F_LOCK), errno.EINVAL),
        (ElemRequest(Command.MAP_UPDATE_ELEM, flags=1 << 32), errno.EINVAL),
        (ElemRequest(Command.MAP_UPDATE_ELEM, Fd.MAP_RDONLY), errno.EPERM),
        (ElemRequest(Command.MAP_DELETE_ELEM), errno.EINVAL),
        (ElemRequest(Command.MAP_DELETE_ELEM, value=UserPointer.NULL), errno.EOPNOTSUPP),
        (ElemRequest(Command.MAP_GET_NEXT_KEY, key=Key.NULL), 0),
        (ElemRequest(Command.MAP_GET_NEXT_KEY, key=Key.REPLY), errno.ENOENT),
        (ElemRequest(Command.MAP_GET_NEXT_KEY, key=Key.RESERVED), 0),
        (ElemRequest(Command.MAP_GET_NEXT_KEY, key=Key.UNMAPPED), errno.EFAULT),
        (ElemRequest(Command.MAP_LOOKUP_ELEM, key=Key.RESERVED), errno.EINVAL),
        (ElemRequest(Command.MAP_LOOKUP_ELEM, key=Key.NO_L3PROTO), errno.ENOENT),
        (ElemRequest(Command.MAP_LOOKUP_AND_DELETE_ELEM, Fd.BAD_FD, flags=1), errno.EINVAL),
        (ElemRequest(Command.MAP_LOOKUP_AND_DELETE_ELEM), ENOTSUPP),
        (ElemRequest(Command.MAP_FREEZE, Fd.MAP_RDONLY, Key.NULL, UserPointer.NULL), ENOTSUPP),
        (BatchRequest(Command.MAP_LOOKUP_BATCH), errno.ENOENT),
        (BatchRequest(Command.MAP_LOOKUP_BATCH, count=2), 0),
        (BatchRequest(Command.MAP_LOOKUP_BATCH, count=0, keys=UserPointer.NULL), 0),
        (
            BatchRequest(Command.MAP_LOOKUP_BATCH, in_batch=Key.REPLY, keys=UserPointer.NULL),
            errno.ENOENT,
        ),
        (BatchRequest(Command.MAP_LOOKUP_BATCH, out_batch=UserPointer.NULL), errno.EFAULT),
        (BatchRequest(Command.MAP_UPDATE_BATCH, keys=UserPointer.NULL), ENOTSUPP),
        (BatchRequest(Command.MAP_DELETE_BATCH, Fd.MAP_RDONLY), errno.EPERM),
    ],
    ids=[
        "lookup",
        "lookup-unknown-key-before-value-null",
        "lookup-value-unmapped",
        "lookup-wronly-fd-before-flags",
        "update",
        "update-lock-flag",
        "update-flags-above-32-bits",
        "update-rdonly-fd",
        "delete-with-value-field",
        "delete",
        "next-key-first",
        "next-key-after-last",
        "next-key-reserved-byte",
        "next-key-unmapped",
        "lookup-reserved-byte",
        "lookup-l3proto-0",
        "lookup-and-delete-flags-before-bad-fd",
        "lookup-and-delete",
        "freeze-before-rdonly-fd",
        "lookup-batch-to-the-end",
        "lookup-batch-part",
        "lookup-batch-count-0",
        "lookup-batch-after-last",
        "lookup-batch-out-batch-null",
        "update-batch-before-keys-null",
        "delete-batch-rdonly-fd",
    ],
)
def test_map_cmd_several_errors_first_check_wins(
    request_: bpf_cmds_oracle.Request, code: int
) -> None:
    """The first failing check gives a map command's errno."""
    assert bpf_cmds_oracle.expected_errno(request_, POSITIONS) == code


def test_lookup_batch_returns_keys_after_in_batch() -> None:
    """BPF_MAP_LOOKUP_BATCH returns the keys after the position of ``in_batch``.

    A key that no flow can have starts from the beginning.
    """

    def returned_after(in_batch: Key) -> list[Key]:
        request = BatchRequest(Command.MAP_LOOKUP_BATCH, in_batch=in_batch)
        return bpf_cmds_oracle.expected_keys(request, POSITIONS)

    for start in (Key.NULL, Key.RESERVED, Key.NO_L3PROTO):
        assert returned_after(start) == [Key.ORIGINAL, Key.REPLY]
    for position in (Key.ORIGINAL, Key.UNKNOWN):
        assert returned_after(position) == [Key.REPLY]
    assert returned_after(Key.REPLY) == []


def test_get_next_key_returns_key_after_position() -> None:
    """BPF_MAP_GET_NEXT_KEY of a key that is not in the map goes on at its position."""
    request = ElemRequest(Command.MAP_GET_NEXT_KEY, key=Key.UNKNOWN)
    assert bpf_cmds_oracle.expected_keys(request, POSITIONS) == [Key.REPLY]
    last = (*POSITIONS[:1], Key.REPLY, Key.UNKNOWN)
    assert bpf_cmds_oracle.expected_errno(request, last) == errno.ENOENT


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (FlowtableRequest(flags=SNOOP), 0),
        (FlowtableRequest(flags=SNOOP | COUNTER), errno.EOPNOTSUPP),
        (FlowtableRequest(flags=8, table="missing"), errno.EINVAL),
        (
            FlowtableRequest(counter_attr=newflowtable_oracle.COUNTER_ATTRS[0], table="missing"),
            errno.EINVAL,
        ),
        (FlowtableRequest(flags=SNOOP | COUNTER, family=newflowtable_oracle.NETDEV), errno.ENOENT),
        (FlowtableRequest(flags=HW_OFFLOAD), 0),
        (FlowtableRequest(flags=HW_OFFLOAD, devices=("d0",)), errno.EOPNOTSUPP),
        (FlowtableRequest(flags=HW_OFFLOAD, devices=("d9",)), 0),
        (FlowtableRequest(devices=("d1",), d1_taken=True), errno.EEXIST),
        (FlowtableRequest(devices=("d1",), d1_taken=True, flags=SNOOP), 0),
        (FlowtableRequest(existing=FlowtableState()), errno.EEXIST),
        (
            FlowtableRequest(existing=FlowtableState(), exclusive=False, flags=SNOOP),
            errno.EOPNOTSUPP,
        ),
        (FlowtableRequest(existing=FlowtableState(SNOOP), exclusive=False), 0),
        (FlowtableRequest(existing=FlowtableState(), exclusive=False, flags=COUNTER), 0),
        (
            FlowtableRequest(existing=FlowtableState(), exclusive=False, priority=1),
            errno.EOPNOTSUPP,
        ),
        (FlowtableRequest(devices=("d0", "d0", newflowtable_oracle.OVERLONG_NAME)), errno.EEXIST),
    ],
    ids=[
        "snoop",
        "snoop-with-counter",
        "unknown-flag-before-missing-table",
        "counter-attribute-before-missing-table",
        "netdev-family-before-snoop-with-counter",
        "hw-offload-no-device",
        "hw-offload-device",
        "hw-offload-missing-device",
        "device-taken",
        "device-taken-snoop",
        "exists-exclusive",
        "update-adds-snoop",
        "update-snoop",
        "update-adds-counter",
        "update-priority",
        "duplicate-device",
    ],
)
def test_newflowtable_several_errors_first_check_wins(
    request_: FlowtableRequest, code: int
) -> None:
    """The first failing check gives NFT_MSG_NEWFLOWTABLE's errno."""
    assert newflowtable_oracle.expected_errno(request_) == code


def test_newflowtable_update_adds_devices_unless_aborted() -> None:
    """An update adds flags and devices; an aborted transaction changes nothing."""
    update = FlowtableRequest(
        existing=FlowtableState(0, ("d0",)), exclusive=False, flags=COUNTER, devices=("d1",)
    )
    assert newflowtable_oracle.expected_state(update) == FlowtableState(COUNTER, ("d0", "d1"))
    aborted = FlowtableRequest(
        existing=FlowtableState(0, ("d0",)), exclusive=False, flags=COUNTER, aborted=True
    )
    assert newflowtable_oracle.expected_state(aborted) == FlowtableState(0, ("d0",))


def _model() -> ReferenceModel:
    """Return a model of one router with a TCP flow, a UDP flow and a map."""
    model = ReferenceModel()
    model.namespaces["one"] = Netns(router=True, source_tables={"fw", "fw4", "fw6"})
    model.flows["tcp"] = Flow("one", TCP, 4, (b"a", b"b"))
    model.flows["udp"] = Flow("one", UDP, 4, (b"c", b"d"))
    model.maps["map"] = FlowMap("one", 8)
    return model


def test_source_table_deletion_ends_only_its_flows() -> None:
    """Deleting a source table ends its flows; its return makes them offloadable again."""
    model = _model()
    model.delete_source_table("one", "fw4")
    assert model.live_flows() == ["tcp"]
    assert model.expected_keys("one") == [b"a", b"b"]
    assert model.reoffloadable_flows() == []
    model.namespaces["one"].source_tables.add("fw4")
    assert model.reoffloadable_flows() == ["udp"]


def test_untracked_tcp_connection_not_reoffloadable() -> None:
    """Only UDP can be offloaded again after conntrack deleted the connections."""
    model = _model()
    model.end_flows("one", untracked=True)
    assert model.reoffloadable_flows() == ["udp"]


def test_netns_deletion_leaves_empty_maps_pinning_module() -> None:
    """Maps of a deleted netns have no keys and pin the module until they are closed."""
    model = _model()
    model.delete_netns("one")
    assert not [*model.expected_keys("one"), *model.offloadable_kinds(), *model.existing_netns()]
    assert model.unload_errno() == errno.EWOULDBLOCK
    model.maps.clear()
    assert model.unload_errno() == 0
    model.module_loaded = False
    assert (model.unload_errno(), model.map_create_errno()) == (errno.ENOENT, errno.EINVAL)
