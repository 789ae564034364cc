# SPDX-License-Identifier: GPL-2.0-only
"""A BPF token stands for the capabilities only for what it delegates: commands and map types."""

import errno

import pytest

from fixtures.guest.bpf import bpf_attr, bpf_token
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules

_TOKEN_FD = 1 << 16
_ALL_TYPES = (1 << 64) - 1


def _create(token_fd: int) -> tuple[int, int]:
    """Return the errnos of the creation of a flow map and of a hash map with a token, or 0."""
    flags = bpf_attr.F_RDONLY_PROG | _TOKEN_FD
    return (
        errno_of(lambda: bpf.flowmap_create(map_flags=flags, map_token_fd=token_fd)),
        errno_of(
            lambda: bpf.map_create(
                bpf_attr.MAP_TYPE_HASH, 4, 4, 1, _TOKEN_FD, map_token_fd=token_fd
            )
        ),
    )


@pytest.mark.clause("FM-1.9", "FM-1.11")
@pytest.mark.parametrize("delegated", ["all", "flow-maps-only", "other-maps", "no-map-creation"])
def test_token_permits_flow_maps_only_if_it_delegates_the_type(
    flowmap_loaded: str, delegated: str
) -> None:
    """A token that does not delegate the type, or the creation of maps, is as none: EPERM.

    The holder has no capability in the initial user namespace.  A token for flow maps alone is
    enough for them, and not for a hash map.
    """
    flow_maps = 1 << bpf.flowmap_type()
    options = {
        "all": {},
        "flow-maps-only": {b"delegate_maps": f"{flow_maps:#x}".encode()},
        "other-maps": {b"delegate_maps": f"{_ALL_TYPES ^ flow_maps:#x}".encode()},
        "no-map-creation": {
            b"delegate_cmds": f"{_ALL_TYPES ^ 1 << bpf_attr.Command.MAP_CREATE:#x}".encode()
        },
    }[delegated]
    flow_map, hash_map = bpf_token.run_with_token(_create, own_netns=True, only=options)
    assert flow_map == (0 if delegated in ("all", "flow-maps-only") else errno.EPERM)
    if delegated in ("all", "other-maps"):
        assert hash_map == 0
    modules.wait_until_unreferenced(flowmap_loaded)
    modules.unload(flowmap_loaded)
