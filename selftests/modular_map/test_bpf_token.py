# SPDX-License-Identifier: GPL-2.0-only
"""A BPF token: what it lets its holder do with the flow map, and what it does not."""

import errno
import socket
from contextlib import ExitStack
from typing import Any

import pytest

from fixtures.guest.bpf import bpf_attr, bpf_token
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules

_TOKEN_FD = 1 << 16


def _create(descriptor: int, **fields: Any) -> int:
    """The errno of a creation with a token, or 0."""
    fields |= {"map_flags": bpf_attr.F_RDONLY_PROG | _TOKEN_FD, "map_token_fd": descriptor}
    return errno_of(lambda: bpf.flowmap_create(**fields))


@pytest.mark.clause("FM-1", "MM-3")
def test_token_is_enough_for_a_map_of_the_own_network(flowmap_module: str) -> None:
    assert bpf_token.holding(_create, own_network=True) == 0
    modules.await_unreferenced(modules.FLOWMAP)
    assert modules.loaded(flowmap_module)


@pytest.mark.clause("FM-1", "FM-2")
def test_token_does_not_show_the_flows_of_another_network(flowmap_module: str) -> None:
    # The token stands for CAP_NET_ADMIN in the user namespace, the initial network is not its.
    assert bpf_token.holding(_create, own_network=False) == errno.EPERM
    assert modules.references(flowmap_module) == 0


@pytest.mark.clause("FM-1", "MM-5")
def test_wrong_attributes_are_einval_with_a_token_too(flowmap_module: str) -> None:
    answers = bpf_token.holding(
        lambda descriptor: [
            _create(descriptor, key_size=1),
            _create(descriptor, max_entries=0),
            _create(descriptor, map_extra=1),
        ],
        own_network=True,
    )
    assert answers == [errno.EINVAL] * 3
    assert modules.references(flowmap_module) == 0


@pytest.mark.clause("MM-3")
@pytest.mark.usefixtures("without_module")
def test_token_does_not_load_the_module() -> None:
    assert bpf_token.holding(_create, own_network=True) == errno.EINVAL
    assert not modules.loaded(modules.FLOWMAP)


def _taken_from_its_holder() -> int:
    """The descriptor of a token that somebody else has made."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bpf_token.holding(lambda descriptor: bpf.send_fd(theirs, descriptor), own_network=True)
        _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
        return int(descriptor)


@pytest.mark.clause("MM-3")
@pytest.mark.usefixtures("without_module")
@pytest.mark.parametrize(
    "kept",
    [child_process.CAP_BPF, child_process.CAP_NET_ADMIN],
    ids=["only CAP_BPF", "only CAP_NET_ADMIN"],
)
def test_token_does_not_make_up_for_a_capability_to_load_the_module(
    cleanup: ExitStack, kept: int
) -> None:
    """Root is the owner of the token's user namespace, and has all capabilities in there."""
    descriptor = _taken_from_its_holder()
    cleanup.enter_context(bpf.closing(descriptor))

    def create() -> int:
        child_process.keep_capabilities(kept)
        return _create(descriptor)

    assert child_process.in_child(create) == errno.EINVAL
    assert not modules.loaded(modules.FLOWMAP)
