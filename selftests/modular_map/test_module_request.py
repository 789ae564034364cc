# SPDX-License-Identifier: GPL-2.0-only
"""The request for a map type's module: its literal text, who triggers it and who does not."""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr, bpf_token
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core import child_process, libc
from fixtures.guest.core.expect_errno import errno_of
from fixtures.guest.kernel import modules
from fixtures.guest.kernel.modprobe_recorder import recorded_requests
from fixtures.guest.kernel.module_file import ModuleFile

pytestmark = pytest.mark.usefixtures("flowmap_unloaded")

_UNPRIVILEGED_BPF_DISABLED = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
# Literally, because a kernel that changed the name in both places would work with itself only.
ALIAS = "bpf-map-type-36"
REQUEST = f"-q -- {ALIAS}"
# Of every new bpffs, which holders of tokens need (bpf_preload_mod_get()).
_BPFFS_REQUEST = "-q -- bpf_preload"
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_TOKEN_FD_FLAG = 1 << 16


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3.1")
def test_module_has_literal_alias() -> None:
    """The module's alias is bpf-map-type-36, literally, and the type's number is 36."""
    assert bpf.flowmap_type() == 36
    assert ModuleFile(modules.module_path(modules.FLOWMAP_MODULE)).aliases() == [ALIAS]
    assert modules.modprobe_finds(ALIAS)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3.1", "MM-3.3")
def test_map_create_requests_absent_module_once(tmp_path: Path) -> None:
    """Creation requests an absent module, once and literally, and a loaded one never.

    The request has the same text whether or not it succeeds.  Without the module the type is as
    unknown as any (EINVAL), and every further creation requests it again.
    """
    with recorded_requests(tmp_path, load=False) as record:
        for _ in range(2):
            assert errno_of(bpf.flowmap_create) == errno.EINVAL
            assert record.take() == [REQUEST]
        # Attributes that only the module could refuse are no reason not to ask for it.
        assert errno_of(lambda: bpf.flowmap_create(key_size=1)) == errno.EINVAL
        assert record.take() == [REQUEST]
    assert not modules.loaded(modules.FLOWMAP_MODULE)
    with recorded_requests(tmp_path, load=True) as record:
        os.close(bpf.flowmap_create())
        assert record.take() == [REQUEST]
        for _ in range(2):
            os.close(bpf.flowmap_create())
        assert errno_of(lambda: bpf.flowmap_create(key_size=1)) == errno.EINVAL
        assert record.take() == []
    modules.wait_until_unreferenced(modules.FLOWMAP_MODULE)


@pytest.mark.shared_vm
@pytest.mark.clause("MM-3.1", "MM-8.1")
def test_other_map_types_request_no_module(tmp_path: Path) -> None:
    """Neither a built-in type nor an unknown one requests a module."""
    flowmap_type = bpf.flowmap_type()
    with recorded_requests(tmp_path, load=False) as record:
        for map_type in [*range(flowmap_type), flowmap_type + 1, 999, (1 << 32) - 1]:
            errno_of(lambda number=map_type: bpf.map_create(number, 4, 4, 1))  # type: ignore[misc]
            assert record.take() == [], f"map type {map_type}"
    assert not modules.loaded(modules.FLOWMAP_MODULE)


def no_capabilities() -> None:
    """Drop every capability."""
    child_process.drop_capabilities_except()


def cap_bpf_only() -> None:
    """Drop every capability but CAP_BPF."""
    child_process.drop_capabilities_except(child_process.CAP_BPF)


def cap_net_admin_only() -> None:
    """Drop every capability but CAP_NET_ADMIN."""
    child_process.drop_capabilities_except(child_process.CAP_NET_ADMIN)


def cap_sys_module_and_net_admin() -> None:
    """Keep the capabilities to load modules by hand and to configure the network."""
    child_process.drop_capabilities_except(
        child_process.CAP_SYS_MODULE, child_process.CAP_NET_ADMIN
    )


def userns_root() -> None:
    """Become root of a new user namespace."""
    child_process.unshare_user_namespace()


def userns_root_with_own_netns() -> None:
    """Become root of a new user namespace and of a network namespace that it owns."""
    libc.call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)


UNPRIVILEGED: tuple[Callable[[], None], ...] = (
    no_capabilities,
    cap_bpf_only,
    cap_net_admin_only,
    cap_sys_module_and_net_admin,
    userns_root,
    userns_root_with_own_netns,
)


@pytest.mark.clause("MM-3.2", "FM-1.9")
def test_unprivileged_map_create_requests_no_module(tmp_path: Path, cleanup: ExitStack) -> None:
    """An unprivileged caller never loads the module, root of a user namespace included.

    The kernel does not even ask for it, with whichever attributes.
    """
    # Otherwise the kernel refuses before it looks at the map type.
    before = _UNPRIVILEGED_BPF_DISABLED.read_text()
    _UNPRIVILEGED_BPF_DISABLED.write_text("0\n")
    cleanup.callback(_UNPRIVILEGED_BPF_DISABLED.write_text, before)
    bpf.flowmap_type()  # cached here, so that the children read no files

    with recorded_requests(tmp_path, load=True) as record:
        for drop_privileges in UNPRIVILEGED:

            def attempts(drop: Callable[[], None] = drop_privileges) -> list[int]:
                drop()
                return [
                    errno_of(bpf.flowmap_create),
                    errno_of(lambda: bpf.flowmap_create(key_size=1)),
                    errno_of(lambda: bpf.flowmap_create(map_flags=0)),
                ]

            name = drop_privileges.__name__
            assert child_process.run_in_child(attempts) == [errno.EPERM] * 3, name
            assert record.take() == [], name
            assert not modules.loaded(modules.FLOWMAP_MODULE), name
        # Control: the record works.
        os.close(bpf.flowmap_create())
        assert record.take() == [REQUEST]


@pytest.mark.clause("MM-3.2", "FM-1.11")
def test_token_holder_requests_no_module(tmp_path: Path) -> None:
    """A BPF token allows the creation of a map, and not the request for its module.

    The same holder may create the map as soon as the module is there.
    """

    def create(token_fd: int) -> int:
        return errno_of(
            lambda: bpf.map_create(
                bpf.flowmap_type(),
                uapi.KEY_SIZE,
                uapi.VALUE_SIZE,
                2,
                bpf_attr.F_RDONLY_PROG | _TOKEN_FD_FLAG,
                map_token_fd=token_fd,
            )
        )

    with recorded_requests(tmp_path, load=True) as record:
        assert bpf_token.run_with_token(create, own_netns=True) == errno.EINVAL
        assert [request for request in record.take() if request != _BPFFS_REQUEST] == []
        assert not modules.loaded(modules.FLOWMAP_MODULE)
        modules.modprobe(modules.FLOWMAP_MODULE)
        assert bpf_token.run_with_token(create, own_netns=True) == 0
