# SPDX-License-Identifier: GPL-2.0-only
"""A program that needs the JIT compiler is a skip where that is off, and a failure elsewhere."""

import errno
from pathlib import Path

import pytest

from fixtures.guest.bpf.libbpf import LoadError
from fixtures.guest.pytest_plugin.jit_required import is_turned_off, skipped_if_refused

REFUSALS = [
    "0: (85) call bpf_obj_new_impl#1\nJIT is required for calling kernel function\nprocessed 1",
    "callbacks are not allowed in non-JITed programs\n",
    "tail_calls are not allowed in non-JITed programs with bpf-to-bpf calls\n",
    "program requires BPF JIT compiler but it is not available\n",
    "Extension programs should be JITed\n",
    "Can attach to only JITed progs\n",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_refusal_is_a_skip_only_if_jit_is_off(text: str) -> None:
    refused = LoadError(errno.EINVAL, f"loading a.bpf.o: Invalid argument\n{text}")
    with pytest.raises(pytest.skip.Exception, match="JIT"), skipped_if_refused(True):
        raise refused
    with pytest.raises(LoadError), skipped_if_refused(False):
        raise refused


def test_other_refusals_stay_failures() -> None:
    with pytest.raises(LoadError), skipped_if_refused(True):
        raise LoadError(errno.EACCES, "R1 invalid mem access 'scalar'")
    with pytest.raises(OSError, match="JIT is required"), skipped_if_refused(True):
        raise OSError(errno.EINVAL, "JIT is required")


@pytest.mark.parametrize(("content", "off"), [("0\n", True), ("1\n", False), ("2\n", False)])
def test_setting_is_read(tmp_path: Path, content: str, off: bool) -> None:
    assert not is_turned_off(tmp_path / "bpf_jit_enable")
    (tmp_path / "bpf_jit_enable").write_text(content)
    assert is_turned_off(tmp_path / "bpf_jit_enable") is off
