# SPDX-License-Identifier: GPL-2.0-only
"""Tests that use changed files of the suite, and changed clauses of the contract."""

from pathlib import Path

import pytest

from fixtures.host.affected.suite_changes import changed_clauses, find_covering, find_users
from fixtures.host.util.paths import ROOT
from tests.unit.host.report.run_samples import CONTRACT

TESTS = ("selftests/a/test_one.py::t", "selftests/a/test_two.py::t[1]")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose first test uses a helper, which uses another and a kernel module."""
    files = {
        "selftests/a/test_one.py": "from fixtures.guest.net import near\n",
        "selftests/a/test_two.py": "import os\nPROGRAM = 'lookup_probe'\n",
        "fixtures/guest/net/near.py": "from fixtures.guest.net.far import x\n",
        "fixtures/guest/net/far.py": "x = 'fm_override.ko'\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        ("selftests/a/test_one.py", TESTS[:1]),
        ("fixtures/guest/net/far.py", TESTS[:1]),
        ("selftests/modules/fm_override.c", TESTS[:1]),
        ("selftests/bpf/lookup_probe.bpf.c", TESTS[1:]),
        ("fixtures/host/vm/console.py", ()),
        ("README.md", ()),
    ],
    ids=["test", "helper", "module", "bpf", "host", "document"],
)
def test_changed_file_affects_tests_that_use_it(
    root: Path, changed: str, tests: tuple[str, ...]
) -> None:
    assert find_users(root, [changed], TESTS) == set(tests)


def test_syncpoint_module_of_this_project_affects_race_tests() -> None:
    files = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("selftests/*/test_*.py"))
    found = find_users(ROOT, ["selftests/modules/fm_syncpoint.c"], [f"{file}::t" for file in files])
    assert 0 < len(found) < len(files)
    assert any(test.startswith("selftests/races/") for test in found)


def test_changed_clauses_have_their_tests() -> None:
    changed = changed_clauses(CONTRACT, CONTRACT.replace("is accepted", "is refused"))
    assert changed == {"SN-1"}
    assert find_covering(changed, {"a": ["SN-1", "SN-2"], "b": ["SN-2"]}) == {"a"}
