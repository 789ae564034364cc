# SPDX-License-Identifier: GPL-2.0-only
"""Every command of bpf(2) on a flow map, and what programs may do with one."""

import errno
import mmap
import os
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.bpf.libbpf import LoadError, Object
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.pytest_plugin.fixtures import Connect, Flowmap, Load
from fixtures.guest.traffic.connections import UDP_PROTOCOL, Flow

Action = Callable[[int, uapi.Key], object]


def _map_memory(fd: int, _: uapi.Key) -> object:
    return mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)


CHANGES: dict[str, Action] = {
    "update": lambda fd, key: bpf.update(fd, key, uapi.Value()),
    "update only new": lambda fd, key: bpf.update(fd, key, uapi.Value(), 1),
    "update only old": lambda fd, key: bpf.update(fd, key, uapi.Value(), 2),
    "delete": bpf.delete,
    "lookup and delete": bpf.lookup_and_delete,
    "update batch": lambda fd, _: bpf.lookup_batch(fd, 1, None, bpf_attr.Command.MAP_UPDATE_BATCH),
    "delete batch": lambda fd, _: bpf.lookup_batch(fd, 1, None, bpf_attr.Command.MAP_DELETE_BATCH),
    "lookup and delete batch": lambda fd, _: bpf.lookup_batch(
        fd, 1, None, bpf_attr.Command.MAP_LOOKUP_AND_DELETE_BATCH
    ),
    "freeze": lambda fd, _: bpf.freeze(fd),
    "mmap": _map_memory,
}

# The kernel's ENOTSUPP, which BPF hands out where a map type lacks an operation.
_ENOTSUPP = 524

REFUSALS = {errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, _ENOTSUPP}


@pytest.mark.clause("FM-7", "V0-1")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_command_that_would_change_the_map_is_refused(
    flowmap: int, connection: Connect, change: Action
) -> None:
    flow = connection(UDP_PROTOCOL, 4).offloaded()
    before = [bytes(bpf.lookup(flowmap, key))[8:] for key in flow.keys]

    answers = set()
    for key in (flow.original, uapi.Key()):
        try:
            change(flowmap, key)
        except OSError as error:
            answers.add(error.errno)
        else:
            answers.add(0)

    assert len(answers) == 1, f"the answer depends on the key: {answers}"
    assert answers <= REFUSALS
    # All but the expiry, which may move.
    assert [bytes(bpf.lookup(flowmap, key))[8:] for key in flow.keys] == before


@pytest.mark.clause("FM-7")
@pytest.mark.parametrize("flags", [1, 2, 4, 8, 1 << 63])
def test_lookup_refuses_flags(flowmap: int, flags: int) -> None:
    with refused(errno.EINVAL):
        bpf.lookup(flowmap, uapi.Key(l3proto=2), flags)


def _flows(connection: Connect, count: int) -> list[Flow]:
    return [
        connection(UDP_PROTOCOL, 4 if port % 2 else 6, server_port=7100 + port).offloaded()
        for port in range(count)
    ]


@pytest.mark.clause("FM-6", "V0-2")
def test_walk_visits_each_key_once_and_ends(flowmap: int, connection: Connect) -> None:
    expected = sorted(bytes(key) for flow in _flows(connection, 5) for key in flow.keys)
    assert sorted(bytes(key) for key in bpf.keys(flowmap, limit=100)) == expected


@pytest.mark.clause("FM-6", "V0-2")
def test_walk_of_an_empty_map_ends_at_once(flowmap: int) -> None:
    with pytest.raises(FileNotFoundError):
        bpf.next_key(flowmap, None)
    with pytest.raises(FileNotFoundError):
        bpf.next_key(flowmap, uapi.Key(l3proto=2))


@pytest.mark.clause("FM-6")
@pytest.mark.parametrize("size", [1, 3, 64])
def test_batches_visit_each_entry_once(flowmap: int, connection: Connect, size: int) -> None:
    expected = sorted(bytes(key) for flow in _flows(connection, 4) for key in flow.keys)
    seen: list[bytes] = []
    cursor, ended = None, False
    while not ended:
        pairs, cursor, ended = bpf.lookup_batch(flowmap, size, cursor)
        seen += [bytes(key) for key, _ in pairs]
        assert len(seen) <= len(expected), "the batches do not end"
    assert sorted(seen) == expected


@pytest.mark.clause("MM-9", "FM-8")
def test_program_may_look_up(make_flowmap: Flowmap, load: Load) -> None:
    load("verifier_reject", make_flowmap(), "allowed")


_KIND = "cannot pass map_type {} into func {}#"
_READ_ONLY = "write into map forbidden"
# What the verifier comes to first: the map's flags, its operations, or its type.
HELPERS = {
    "update": (errno.EACCES, _READ_ONLY, ""),
    "delete": (errno.EACCES, _READ_ONLY, ""),
    "push": (errno.EACCES, _READ_ONLY, ""),
    "for_each": (_ENOTSUPP, "callback function not allowed for map", ""),
    "redirect": (errno.EINVAL, _KIND, "bpf_redirect_map"),
    "lookup_percpu": (errno.EINVAL, _KIND, "bpf_map_lookup_percpu_elem"),
}


@pytest.mark.clause("MM-9", "FM-8")
@pytest.mark.parametrize("forbidden", HELPERS)
def test_program_that_calls_another_helper_is_told_why_not(
    make_flowmap: Flowmap, forbidden: str
) -> None:
    number, cause, helper = HELPERS[forbidden]
    with pytest.raises(LoadError) as refusal:
        Object("verifier_reject", {"flows": make_flowmap()}, (forbidden,))
    assert refusal.value.errno == number
    assert cause.format(bpf.flowmap_type(), helper) in str(refusal.value)


@pytest.mark.clause("MM-9", "FM-8", "V0-8")
@pytest.mark.parametrize(
    ("forbidden", "cause"),
    [
        ("write_value", "write into map forbidden"),
        ("read_past_end", "invalid access to map value"),
    ],
    ids=["write_value", "read_past_end"],
)
def test_program_that_goes_beyond_the_value_is_refused_when_loaded(
    make_flowmap: Flowmap, forbidden: str, cause: str
) -> None:
    with pytest.raises(LoadError) as refusal:
        Object("verifier_reject", {"flows": make_flowmap()}, (forbidden,))
    assert refusal.value.errno == errno.EACCES
    assert cause in str(refusal.value)


@pytest.mark.clause("MM-9", "FM-9")
def test_program_that_may_sleep_is_refused_when_loaded(
    make_flowmap: Flowmap, cleanup: ExitStack
) -> None:
    flowmap = make_flowmap()
    outer = bpf.map_create(bpf_attr.MAP_TYPE_HASH_OF_MAPS, 4, 4, 1, inner_map_fd=flowmap)
    cleanup.callback(os.close, outer)
    maps = {"flows": flowmap, "outer": outer}
    # The same lookup where nothing may sleep: without it the refusal could have any reason.
    Object("sleepable_lookup", maps, ("inside_awake",)).close()
    for program, cause in (
        ("itself", "Sleepable programs can only use"),
        ("inside", f"map_type {bpf.flowmap_type()} cannot be used where the program may sleep"),
    ):
        with pytest.raises(LoadError) as refusal:
            Object("sleepable_lookup", maps, (program,))
        assert refusal.value.errno == errno.EINVAL
        assert cause in str(refusal.value)
