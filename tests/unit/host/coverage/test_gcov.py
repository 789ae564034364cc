# SPDX-License-Identifier: GPL-2.0-only
"""Line counts from the counters of two VMs, with a real compiler and a real gcov."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from fixtures.host.coverage import executed_lines, merge_gcda
from fixtures.host.coverage.executed_lines import ExecutedLines, MeasuredFile
from fixtures.host.coverage.gcov import LineCount, LineCounts, read_line_counts
from fixtures.host.model.coverage_results import EXECUTED_LINES_NAME
from fixtures.host.util.errors import UserError

SOURCE = """\
#include "sign.h"
int main(int count, char **words)
{
\tif (count > 1)
\t\treturn sign(count);
\treturn sign(-1);
}
"""
HEADER = """\
static inline int sign(int value)
{
\tif (value < 0)
\t\treturn 1;
\treturn 0;
}
"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Build a program with gcov counters in a separate directory, as a kernel is built."""
    folder = tmp_path / "build"
    (folder / "net").mkdir(parents=True)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "sign.c").write_text(SOURCE)
    (tmp_path / "net" / "sign.h").write_text(HEADER)
    argv = ["gcc", "--coverage", "-O0", "-c", "../net/sign.c", "-o", "net/sign.o"]
    subprocess.run(argv, cwd=folder, check=True)
    subprocess.run(["gcc", "--coverage", "net/sign.o", "-o", "sign"], cwd=folder, check=True)
    return folder


def _run(built: Path, *words: str) -> bytes:
    """Run the program, and archive its counters as the guest does."""
    data = built / "net" / "sign.gcda"
    data.unlink(missing_ok=True)
    subprocess.run([built / "sign", *words], cwd=built, check=False)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(data, str(data).lstrip("/"))
    return out.getvalue()


def _lines(built: Path, report: Path) -> LineCounts:
    merge_gcda.merge(report, report / "total")
    return read_line_counts(built, report / "total", ["net/sign.c", "net/sign.h", "net/other.c"])


def test_lines_of_file_and_its_header_are_counted(built: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    merge_gcda.store(report, "one", _run(built))
    lines = _lines(built, report)
    assert lines["net/sign.c"][4].branches in ((0, 1), (1, 0))
    assert (lines["net/sign.c"][5].count, lines["net/sign.c"][6].count) == (0, 1)
    assert (lines["net/sign.h"][4].count, lines["net/sign.h"][5].count) == (1, 0)
    assert lines["net/sign.h"][4].function == "sign"
    assert lines["net/other.c"] == {}
    assert 1 not in lines["net/sign.c"]  # no code


def test_counters_of_two_vms_are_merged(built: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    merge_gcda.store(report, "one", _run(built))
    merge_gcda.store(report, "two", _run(built, "word"))
    assert merge_gcda.merge(report, report / "total") == 2
    lines = _lines(built, report)
    assert [lines["net/sign.c"][n].count for n in (4, 5, 6)] == [2, 1, 1]
    assert lines["net/sign.c"][4] == LineCount(2, "main", (1, 1))


def test_clear_removes_old_counters(tmp_path: Path) -> None:
    merge_gcda.store(tmp_path, "one", b"")
    merge_gcda.clear(tmp_path)
    assert merge_gcda.merge(tmp_path, tmp_path / "total") == 0


def test_damaged_archive_error_names_file(tmp_path: Path) -> None:
    merge_gcda.store(tmp_path, "one", b"")
    (tmp_path / merge_gcda.DIRECTORY / "one.tar.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"one\.tar\.gz: .*: run the suite again$"):
        merge_gcda.merge(tmp_path, tmp_path / "total")


@pytest.mark.parametrize("name", ["../outside.gcda", "net/../../outside.gcda", "/outside.gcda"])
def test_archive_member_outside_directory_is_rejected(tmp_path: Path, name: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    merge_gcda.store(tmp_path, "one", out.getvalue())
    with pytest.raises(UserError, match=r"one\.tar\.gz: .*outside\.gcda is outside the archive"):
        merge_gcda.merge(tmp_path, tmp_path / "total")
    assert not list(tmp_path.parent.glob("**/outside.gcda"))


def test_missing_counts_of_series_files_are_an_error(built: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    merge_gcda.store(report, "one", _run(built))
    merge_gcda.merge(report, report / "total")
    with pytest.raises(UserError, match="no gcov counters for the files of the series"):
        read_line_counts(built, report / "total", ["kernel/other.c"])


def test_lines_are_known_by_test(built: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    merge_gcda.store(report, "a.py-t-1", _run(built))
    merge_gcda.store(report, "a.py-u", _run(built, "word"))
    tests = ["selftests/a.py::t[1]", "selftests/a.py::u", "selftests/a.py::skipped"]
    done: list[float] = []
    measured = executed_lines.measure(report, tests, built, {"net/sign.c": SOURCE}, done.append)
    assert measured.tests == ("selftests/a.py::t[1]", "selftests/a.py::u")
    lines = measured.files["net/sign.c"].tests
    assert measured.names(lines[5]) == ["selftests/a.py::u"]
    assert measured.names(lines[6]) == ["selftests/a.py::t[1]"]
    assert measured.names(lines[4]) == list(measured.tests)  # the same count in both
    assert done == [1, 2]
    measured.write(report)
    assert executed_lines.read(report) == measured


def test_boot_is_no_execution_by_a_test() -> None:
    assert executed_lines._mask([3, 3, 5]) == 0b100
    assert executed_lines._mask([3, 3, 3]) == 0b111
    assert executed_lines._mask([0, 0, 0]) == 0


def test_damaged_file_of_lines_is_refused(tmp_path: Path) -> None:
    assert executed_lines.read(tmp_path) is None
    ExecutedLines(("t",), {"a.c": MeasuredFile("x", {1: 1})}).write(tmp_path)
    path = tmp_path / EXECUTED_LINES_NAME
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="run tox -e coverage again"):
        executed_lines.read(tmp_path)
