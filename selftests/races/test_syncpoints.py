# SPDX-License-Identifier: GPL-2.0-only
"""Syncpoints themselves: one that is not reached, times out or is not released fails the test."""

import errno
import os
from contextlib import ExitStack

import pytest

from fixtures.guest.core import child_process, polling
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.kernel import syncpoints
from fixtures.guest.kernel.syncpoints import FAR, Phase

pytestmark = pytest.mark.usefixtures("near")

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


@pytest.mark.clause("RT-1")
def test_task_is_held_until_it_is_let_go() -> None:
    """A syncpoint holds only the chosen task, until its release."""
    child = child_process.Waiting(_call_function, FAR)
    with syncpoints.hold(FUNCTION, task=child.pid) as stop:
        assert stop.state().phase is Phase.ARMED
        _call_function()  # another task passes
        child.begin()
        state = stop.reached()
        assert (state.tid, state.cpu, state.slept) == (child.pid, FAR, True)
        _call_function()  # only one task is held
        stop.release()
    assert child.join() == 7


@pytest.mark.clause("RT-1")
def test_skipped_calls_pass() -> None:
    """The first calls pass as often as `skip` says; a syncpoint never reached fails the test."""
    child = child_process.Waiting(lambda: [_call_function() for _ in range(3)], FAR)
    with syncpoints.hold(FUNCTION, task=child.pid, skip=2) as stop:
        child.begin()
        stop.reached()
        stop.release()
    child.join()
    with pytest.raises(AssertionError, match="no task reached it"):
        _skip_three_of_three_calls()


def _skip_three_of_three_calls() -> None:
    with syncpoints.hold(FUNCTION, task=os.getpid(), skip=3):
        for _ in range(3):
            _call_function()


@pytest.mark.clause("RT-1")
def test_place_within_a_function_is_reached() -> None:
    """A syncpoint at an offset inside the function holds the task without sleeping."""
    with ExitStack() as armed:
        child = child_process.Waiting(_call_function, FAR)
        stop = _arm_inside_function(armed, child.pid)
        child.begin()
        assert not stop.reached().slept
        stop.release()
        child.join()


def _arm_inside_function(armed: ExitStack, task: int) -> syncpoints.Stop:
    """Arm a syncpoint at the first instruction after the ftrace call, which takes five bytes."""
    for offset in range(5, 32):
        try:
            return armed.enter_context(syncpoints.hold(FUNCTION, offset=offset, task=task))
        except OSError as error:
            if error.errno != errno.EILSEQ:
                raise
    raise AssertionError(f"no instruction boundary found in the first bytes of {FUNCTION}")


def _let_syncpoint_time_out() -> None:
    child = child_process.Waiting(_call_function, FAR)
    with syncpoints.hold(FUNCTION, task=child.pid, seconds=0.05) as stop:
        child.begin()
        polling.wait_for("the syncpoint to time out", stop.lapsed)
        child.join()
        stop.release()


@pytest.mark.clause("RT-1")
def test_hold_may_be_one_that_ends_by_itself() -> None:
    """A syncpoint with an expected timeout passes only if it times out."""
    child = child_process.Waiting(_call_function, FAR)
    with syncpoints.hold(FUNCTION, task=child.pid, seconds=0.05, lapses=True) as stop:
        child.begin()
        child.join()
        assert stop.lapsed()
    with pytest.raises(AssertionError, match=r"not timed_out.*: released"):
        _release_instead_of_timeout()


def _release_instead_of_timeout() -> None:
    child = child_process.Waiting(_call_function, FAR)
    with syncpoints.hold(FUNCTION, task=child.pid, lapses=True) as stop:
        child.begin()
        stop.reached()
        stop.release()
        child.join()


def _exit_without_release() -> None:
    child = child_process.Waiting(_call_function, FAR)
    with syncpoints.hold(FUNCTION, task=child.pid) as stop:
        child.begin()
        stop.reached()


@pytest.mark.clause("RT-1")
def test_hold_that_ends_by_itself_fails_the_test() -> None:
    """A syncpoint that times out unexpectedly fails the test."""
    with pytest.raises(AssertionError, match="timed_out"):
        _let_syncpoint_time_out()


@pytest.mark.clause("RT-1")
def test_hold_that_nobody_released_fails_the_test() -> None:
    """A syncpoint that is not released fails the test."""
    with pytest.raises(AssertionError, match=r"not released.*: held"):
        _exit_without_release()


@pytest.mark.clause("RT-1")
def test_function_that_does_not_exist_is_refused() -> None:
    """Arming a syncpoint at a function that does not exist is refused."""
    with (
        refused(errno.EINVAL, errno.ENOENT),
        syncpoints.hold("fm_no_such_function"),
    ):
        pass
