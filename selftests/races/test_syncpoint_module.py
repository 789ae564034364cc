# SPDX-License-Identifier: GPL-2.0-only
"""Syncpoints themselves: one that is not reached, times out or is not released fails the test."""

import errno
import os
from contextlib import ExitStack

import pytest

from fixtures.guest.core import child_process, polling
from fixtures.guest.core.expect_errno import expect_errno
from fixtures.guest.kernel import syncpoints
from fixtures.guest.kernel.syncpoints import HELD_CPU, Phase

pytestmark = pytest.mark.usefixtures("pinned_to_test_cpu")

# Called through a pointer, so not inlined, and by few tasks: the users of eventfds.
FUNCTION = "eventfd_write"


def _call_function() -> int:
    """Call the function once; return the value that was written."""
    fd = os.eventfd(0)
    try:
        os.eventfd_write(fd, 7)
        return os.eventfd_read(fd)
    finally:
        os.close(fd)


@pytest.mark.clause("RT-1.1")
def test_syncpoint_holds_task_until_release() -> None:
    """A syncpoint holds only the chosen task, until its release."""
    child = child_process.GatedChild(_call_function, HELD_CPU)
    with syncpoints.stop_at(FUNCTION, tgid=child.pid) as stop:
        assert stop.state().phase is Phase.ARMED
        _call_function()  # another task passes
        child.start()
        state = stop.wait_until_held()
        assert (state.tid, state.cpu, state.slept) == (child.pid, HELD_CPU, True)
        _call_function()  # only one task is held
        stop.release()
    assert child.join() == 7


@pytest.mark.clause("RT-1.1")
def test_syncpoint_skip_lets_first_calls_pass() -> None:
    """The first `skip` calls pass; a syncpoint that is never reached fails the test."""
    child = child_process.GatedChild(lambda: [_call_function() for _ in range(3)], HELD_CPU)
    with syncpoints.stop_at(FUNCTION, tgid=child.pid, skip=2) as stop:
        child.start()
        stop.wait_until_held()
        stop.release()
    child.join()
    with pytest.raises(AssertionError, match="no task reached it"):
        _skip_three_of_three_calls()


def _skip_three_of_three_calls() -> None:
    with syncpoints.stop_at(FUNCTION, tgid=os.getpid(), skip=3):
        for _ in range(3):
            _call_function()


@pytest.mark.clause("RT-1.1")
def test_syncpoint_at_offset_is_reached() -> None:
    """A syncpoint at an offset inside the function holds the task without sleeping."""
    with ExitStack() as armed:
        child = child_process.GatedChild(_call_function, HELD_CPU)
        stop = _arm_inside_function(armed, child.pid)
        child.start()
        assert not stop.wait_until_held().slept
        stop.release()
        child.join()


def _arm_inside_function(armed: ExitStack, task: int) -> syncpoints.Syncpoint:
    """Arm a syncpoint at the first instruction after the ftrace call, which takes five bytes."""
    for offset in range(5, 32):
        try:
            return armed.enter_context(syncpoints.stop_at(FUNCTION, offset=offset, tgid=task))
        except OSError as error:
            if error.errno != errno.EILSEQ:
                raise
    raise AssertionError(f"no instruction boundary found in the first bytes of {FUNCTION}")


def _let_syncpoint_time_out() -> None:
    child = child_process.GatedChild(_call_function, HELD_CPU)
    with syncpoints.stop_at(FUNCTION, tgid=child.pid, timeout=0.05) as stop:
        child.start()
        polling.wait_for("the syncpoint to time out", stop.timed_out)
        child.join()
        stop.release()


@pytest.mark.clause("RT-1.1")
def test_syncpoint_expected_timeout_passes() -> None:
    """A syncpoint with an expected timeout passes only if it times out."""
    child = child_process.GatedChild(_call_function, HELD_CPU)
    with syncpoints.stop_at(FUNCTION, tgid=child.pid, timeout=0.05, expect_timeout=True) as stop:
        child.start()
        child.join()
        assert stop.timed_out()
    with pytest.raises(AssertionError, match=r"not timed_out.*: released"):
        _release_instead_of_timeout()


def _release_instead_of_timeout() -> None:
    child = child_process.GatedChild(_call_function, HELD_CPU)
    with syncpoints.stop_at(FUNCTION, tgid=child.pid, expect_timeout=True) as stop:
        child.start()
        stop.wait_until_held()
        stop.release()
        child.join()


def _exit_without_release() -> None:
    child = child_process.GatedChild(_call_function, HELD_CPU)
    with syncpoints.stop_at(FUNCTION, tgid=child.pid) as stop:
        child.start()
        stop.wait_until_held()


@pytest.mark.clause("RT-1.1")
def test_syncpoint_unexpected_timeout_fails_test() -> None:
    """A syncpoint that times out unexpectedly fails the test."""
    with pytest.raises(AssertionError, match="timed_out"):
        _let_syncpoint_time_out()


@pytest.mark.clause("RT-1.1")
def test_syncpoint_not_released_fails_test() -> None:
    """A syncpoint that is not released fails the test."""
    with pytest.raises(AssertionError, match=r"not released.*: held"):
        _exit_without_release()


@pytest.mark.clause("RT-1.1")
def test_syncpoint_at_unknown_function_is_refused() -> None:
    """Arming a syncpoint at a function that does not exist is refused."""
    with (
        expect_errno(errno.EINVAL, errno.ENOENT),
        syncpoints.stop_at("fm_no_such_function"),
    ):
        pass
