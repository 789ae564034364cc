# SPDX-License-Identifier: GPL-2.0-only
"""Tests and processes that misbehave: material for ../test_canary.py."""

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from fixtures.guest.runtime import hypothesis_support


def test_passes() -> None:
    print("said in the guest")
    assert Path("/dev/vda").exists()


def test_fails() -> None:
    value = {"tuple": 1}
    assert value["tuple"] == 2


def test_chance_decides() -> None:
    pytest.fail(f"drew {random.getrandbits(64):#x}")


def test_skips() -> None:
    pytest.skip("the canary's reason")


@pytest.mark.xfail(reason="the canary's expectation")
def test_xfails() -> None:
    raise AssertionError


@pytest.fixture
def broken() -> None:
    raise RuntimeError("the canary's set-up")


@pytest.mark.usefixtures("broken")
def test_set_up_fails() -> None:
    pass


@pytest.fixture(scope="session")
def broken_for_all() -> None:
    raise RuntimeError("the canary's shared set-up")


@pytest.mark.usefixtures("broken_for_all")
def test_shared_set_up_fails() -> None:
    pass


@pytest.mark.deadline(2)
def test_loops_in_user_space() -> None:
    while True:
        pass


def test_dies() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_kills_the_runner() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def test_leaves_a_namespace_behind() -> None:
    subprocess.run(["ip", "netns", "add", "canary"], check=True)


@pytest.mark.deadline(20)
def test_qemu_is_killed() -> None:
    """The saboteur on the host kills QEMU while this waits."""
    signal.pause()


def test_worker_dies() -> None:
    """The saboteur on the host ends the pytest worker instead of running this."""


@pytest.mark.campaign
def test_is_unlucky() -> None:
    """Fails from every other seed, but only where it makes an effort."""
    unlucky = bool(random.getrandbits(1))
    assert hypothesis_support.effort() == 1 or not unlucky


@pytest.mark.shared_vm
@pytest.mark.parametrize("number", [1, 2])
def test_shares_a_machine(number: int) -> None:
    """The second finds what the first left in the file system."""
    trace = Path("/run/canary")
    assert trace.exists() == (number == 2)
    trace.touch()


def test_sees_nothing_of_the_host() -> None:
    """No folder of the host, no path of it in the environment or the command line."""
    mounts = Path("/proc/mounts").read_text()
    assert not [kind for kind in ("9p", "virtiofs", "fuse") if f" {kind} " in mounts]
    assert len(list(Path("/sys/class/block").iterdir())) == 1
    assert "HOME=/root" in [f"{name}={value}" for name, value in os.environ.items()]
