# SPDX-License-Identifier: GPL-2.0-only
"""A BPF token: what it lets its holder do with the flow map, and what it does not."""

import errno
from typing import Any

import pytest

from fixtures.guest import bpf_syscall as bpf
from fixtures.guest import modules, token
from fixtures.guest.refusal import errno_of

_TOKEN_FD = 1 << 16


def _create(descriptor: int, **fields: Any) -> int:
    """The errno of a creation with a token, or 0."""
    fields |= {"map_flags": bpf.F_RDONLY_PROG | _TOKEN_FD, "map_token_fd": descriptor}
    return errno_of(lambda: bpf.flowmap_create(**fields))


@pytest.mark.clause("FM-1", "MM-3")
def test_token_is_enough_for_a_map_of_the_own_network(flowmap_module: str) -> None:
    assert token.holding(_create, own_network=True) == 0
    modules.await_unreferenced(modules.FLOWMAP)
    assert modules.loaded(flowmap_module)


@pytest.mark.clause("FM-1", "FM-2")
def test_token_does_not_show_the_flows_of_another_network(flowmap_module: str) -> None:
    # The token stands for CAP_NET_ADMIN in the user namespace, the initial network is not its.
    assert token.holding(_create, own_network=False) == errno.EPERM
    assert modules.references(flowmap_module) == 0


@pytest.mark.clause("FM-1", "MM-5")
def test_wrong_attributes_are_einval_with_a_token_too(flowmap_module: str) -> None:
    answers = token.holding(
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
    assert token.holding(_create, own_network=True) == errno.EINVAL
    assert not modules.loaded(modules.FLOWMAP)
