# SPDX-License-Identifier: GPL-2.0-only
"""BPF tokens: what a holder may and may not do with a flow map."""

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


def _create(token_fd: int, **fields: Any) -> int:
    """Return the errno of a flow map creation with a token, or 0."""
    fields |= {"map_flags": bpf_attr.F_RDONLY_PROG | _TOKEN_FD, "map_token_fd": token_fd}
    return errno_of(lambda: bpf.flowmap_create(**fields))


@pytest.mark.clause("FM-1.11")
def test_token_in_own_netns_permits_map_create(flowmap_loaded: str) -> None:
    """A token holder may create a flow map in a netns that its user namespace owns."""
    assert bpf_token.run_with_token(_create, own_netns=True) == 0
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)
    assert modules.loaded(flowmap_loaded)


@pytest.mark.clause("FM-1.12")
def test_token_in_foreign_netns_is_eperm(flowmap_loaded: str) -> None:
    """A token holder gets EPERM in a netns that its user namespace does not own."""
    # The token replaces CAP_NET_ADMIN in its user namespace, which does not own the initial netns.
    assert bpf_token.run_with_token(_create, own_netns=False) == errno.EPERM
    assert modules.refcount(flowmap_loaded) == 0


@pytest.mark.clause("FM-1.1", "FM-1.3", "FM-1.4", "MM-5.1")
def test_map_create_with_token_and_invalid_attrs_is_einval(flowmap_loaded: str) -> None:
    """Invalid attributes give EINVAL with a token as without."""
    errnos = bpf_token.run_with_token(
        lambda token_fd: [
            _create(token_fd, key_size=1),
            _create(token_fd, max_entries=1),
            _create(token_fd, map_extra=2),
        ],
        own_netns=True,
    )
    assert errnos == [errno.EINVAL] * 3
    assert modules.refcount(flowmap_loaded) == 0


@pytest.mark.clause("MM-3.2", "MM-3.3")
@pytest.mark.usefixtures("flowmap_unloaded")
def test_map_create_with_token_does_not_autoload_module() -> None:
    """A token holder gets EINVAL for an absent module and does not trigger autoload."""
    assert bpf_token.run_with_token(_create, own_netns=True) == errno.EINVAL
    assert not modules.loaded(modules.FLOWMAP_MODULE)


def _receive_token_fd() -> int:
    """Return the fd of a token that another process created."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bpf_token.run_with_token(
            lambda token_fd: bpf.send_fd_over_socket(theirs, token_fd), own_netns=True
        )
        _, (token_fd,), _, _ = socket.recv_fds(ours, 1, 1)
        return int(token_fd)


@pytest.mark.clause("MM-3.2")
@pytest.mark.usefixtures("flowmap_unloaded")
@pytest.mark.parametrize(
    "capability",
    [child_process.CAP_BPF, child_process.CAP_NET_ADMIN],
    ids=["cap-bpf-only", "cap-net-admin-only"],
)
def test_token_does_not_replace_missing_capability_for_autoload(
    cleanup: ExitStack, capability: int
) -> None:
    """A token does not replace the capability that the caller lacks for module autoload.

    Root owns the token's user namespace, and so has every capability in it.
    """
    token_fd = _receive_token_fd()
    cleanup.enter_context(bpf.closing_fd(token_fd))

    def create() -> int:
        child_process.drop_capabilities_except(capability)
        return _create(token_fd)

    assert child_process.run_in_child(create) == errno.EINVAL
    assert not modules.loaded(modules.FLOWMAP_MODULE)
