# SPDX-License-Identifier: GPL-2.0-only
"""Guest tests with each outcome of pytest, and tests that lose their process, VM or worker.

../test_verdicts.py runs them; its table ``VERDICTS`` has the verdict that each must get.
"""

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from fixtures.guest.pytest_plugin.plugin_api import OpenConnection
from fixtures.guest.runtime import hypothesis_support
from fixtures.guest.traffic.connections import IPPROTO_UDP


@pytest.mark.clause("SN-6.2")  # for the canary of --clause
def test_passes() -> None:
    print("printed in the guest")
    assert Path("/dev/vda").exists()


def test_fails() -> None:
    value = {"tuple": 1}
    assert value["tuple"] == 2


def test_router_failure_after_traffic(open_connection: OpenConnection) -> None:
    open_connection(IPPROTO_UDP, 4).wait_offloaded()
    pytest.fail("the canary's failure after traffic")


def test_draws_random_number() -> None:
    pytest.fail(f"drew {random.getrandbits(64):#x}")


def test_skips() -> None:
    pytest.skip("the canary's reason")


@pytest.mark.xfail(reason="the canary's expectation")
def test_xfails() -> None:
    raise AssertionError


@pytest.fixture
def broken_fixture() -> None:
    raise RuntimeError("the canary's broken fixture")


@pytest.mark.usefixtures("broken_fixture")
def test_setup_fails() -> None:
    pass


@pytest.fixture(scope="session")
def broken_session_fixture() -> None:
    raise RuntimeError("the canary's broken session fixture")


@pytest.mark.usefixtures("broken_session_fixture")
def test_session_setup_fails() -> None:
    pass


@pytest.mark.deadline(2)
def test_loops_in_user_space() -> None:
    while True:
        pass


def test_segfaults() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_kills_pytest_server() -> None:
    """Kills its parent process, which `fixtures.guest.runtime.pytest_server` runs in."""
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def test_leaks_netns() -> None:
    subprocess.run(["ip", "netns", "add", "canary"], check=True)


@pytest.mark.deadline(20)
def test_qemu_is_killed() -> None:
    """Waits while the fault plugin on the host kills QEMU."""
    signal.pause()


@pytest.mark.deadline(30)
def test_qemu_is_killed_once() -> None:
    """Passes unless the fault plugin kills QEMU meanwhile, which it does not do to a retry."""
    signal.sigtimedwait([signal.SIGUSR1], 10)


def test_worker_exits() -> None:
    """Does not run: the fault plugin on the host ends the pytest-xdist worker first."""


@pytest.mark.soak
def test_soak_with_half_of_seeds_bad() -> None:
    """Fails with half of all seeds, but only in a soak run, which scales the iterations."""
    bad_seed = bool(random.getrandbits(1))
    assert hypothesis_support.iterations_scale() == 1 or not bad_seed


@pytest.mark.shared_vm
@pytest.mark.parametrize("number", [1, 2])
def test_shared_vm_keeps_files(number: int) -> None:
    """The second test sees the file that the first one wrote: both run in the same VM."""
    marker = Path("/run/canary")
    assert marker.exists() == (number == 2)
    marker.touch()


def test_guest_has_no_host_files() -> None:
    """The guest mounts no directory of the host, has one disk, and does not inherit HOME."""
    mounts = Path("/proc/mounts").read_text()
    assert not [kind for kind in ("9p", "virtiofs", "fuse") if f" {kind} " in mounts]
    assert len(list(Path("/sys/class/block").iterdir())) == 1
    assert "HOME=/root" in [f"{name}={value}" for name, value in os.environ.items()]
