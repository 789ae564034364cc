# SPDX-License-Identifier: GPL-2.0-only
"""The instrument itself: a stop point that was not reached, or not kept, must not pass."""

import errno
import os
from contextlib import ExitStack

import pytest

from fixtures.guest.core import child_process, polling
from fixtures.guest.core.expect_errno import refused
from fixtures.guest.kernel import syncpoints
from fixtures.guest.kernel.syncpoints import FAR, Phase

pytestmark = pytest.mark.usefixtures("near")

# Called through a pointer, and so not inlined; by those who use one, which are few.
FUNCTION = "eventfd_write"


def _call() -> int:
    """Come to the function once."""
    fd = os.eventfd(0)
    try:
        os.eventfd_write(fd, 7)
        return os.eventfd_read(fd)
    finally:
        os.close(fd)


@pytest.mark.clause("RT-1")
def test_task_is_held_until_it_is_let_go() -> None:
    asker = child_process.Waiting(_call, FAR)
    with syncpoints.hold(FUNCTION, task=asker.pid) as stop:
        assert stop.state().phase is Phase.ARMED
        _call()  # not the one that is meant
        asker.begin()
        state = stop.reached()
        assert (state.tid, state.cpu, state.slept) == (asker.pid, FAR, True)
        _call()  # only one is held
        stop.release()
    assert asker.join() == 7


@pytest.mark.clause("RT-1")
def test_skipped_calls_pass() -> None:
    asker = child_process.Waiting(lambda: [_call() for _ in range(3)], FAR)
    with syncpoints.hold(FUNCTION, task=asker.pid, skip=2) as stop:
        asker.begin()
        stop.reached()
        stop.release()
    asker.join()
    with pytest.raises(AssertionError, match="nobody came"):
        _hold_the_fourth_of_three()


def _hold_the_fourth_of_three() -> None:
    with syncpoints.hold(FUNCTION, task=os.getpid(), skip=3):
        for _ in range(3):
            _call()


@pytest.mark.clause("RT-1")
def test_place_within_a_function_is_reached() -> None:
    with ExitStack() as armed:
        asker = child_process.Waiting(_call, FAR)
        stop = _inside(armed, asker.pid)
        asker.begin()
        assert not stop.reached().slept
        stop.release()
        asker.join()


def _inside(armed: ExitStack, task: int) -> syncpoints.Stop:
    """Arm the first instruction behind the call to the tracer, which takes five bytes."""
    for offset in range(5, 32):
        try:
            return armed.enter_context(syncpoints.hold(FUNCTION, offset=offset, task=task))
        except OSError as error:
            if error.errno != errno.EILSEQ:
                raise
    raise AssertionError(f"{FUNCTION} has no instruction behind its first bytes")


def _overstay() -> None:
    asker = child_process.Waiting(_call, FAR)
    with syncpoints.hold(FUNCTION, task=asker.pid, seconds=0.05) as stop:
        asker.begin()
        polling.wait_for("the hold to end", stop.lapsed)
        asker.join()
        stop.release()


@pytest.mark.clause("RT-1")
def test_hold_may_be_one_that_ends_by_itself() -> None:
    asker = child_process.Waiting(_call, FAR)
    with syncpoints.hold(FUNCTION, task=asker.pid, seconds=0.05, lapses=True) as stop:
        asker.begin()
        asker.join()
        assert stop.lapsed()
    with pytest.raises(AssertionError, match=r"not timed_out.*: released"):
        _let_go_what_is_to_lapse()


def _let_go_what_is_to_lapse() -> None:
    asker = child_process.Waiting(_call, FAR)
    with syncpoints.hold(FUNCTION, task=asker.pid, lapses=True) as stop:
        asker.begin()
        stop.reached()
        stop.release()
        asker.join()


def _forget() -> None:
    asker = child_process.Waiting(_call, FAR)
    with syncpoints.hold(FUNCTION, task=asker.pid) as stop:
        asker.begin()
        stop.reached()


@pytest.mark.clause("RT-1")
def test_hold_that_ends_by_itself_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="timed_out"):
        _overstay()


@pytest.mark.clause("RT-1")
def test_hold_that_nobody_released_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"not released.*: held"):
        _forget()


@pytest.mark.clause("RT-1")
def test_function_that_does_not_exist_is_refused() -> None:
    with (
        refused(errno.EINVAL, errno.ENOENT),
        syncpoints.hold("fm_no_such_function"),
    ):
        pass
