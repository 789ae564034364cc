# SPDX-License-Identifier: GPL-2.0-only
"""An archive of evidence: what is in it, the same every time."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.host.evidence.cli import gather, main
from fixtures.host.evidence.verify import verify
from fixtures.host.report.report_writer import write_all
from tests.unit.host.evidence import evidence_samples
from tests.unit.host.report import section_samples
from tests.unit.host.report.run_samples import result, run


def test_it_holds_what_the_claim_rests_on(archive: Path) -> None:
    assert {
        "SHA256SUMS",
        "report/summary.json",
        "report/report.html",
        "report/ledger.json",
        "report/cover-letter.txt",
        "report/artefacts/x/dmesg.txt",
        "report/inputs/abc123/config",
        "report/inputs/abc123/series/0002-b.patch",
    } <= set(evidence_samples.files(archive))


def test_the_same_files_give_the_same_bytes(tmp_path: Path, report: Path, archive: Path) -> None:
    for path in report.rglob("*"):
        path.touch()
        path.chmod(0o700)
    (report / ".part").write_text("not finished")
    again = tmp_path / "again.tar.zst"
    assert main(["pack", "--from", str(report), "--to", str(again)]) == 0
    assert again.read_bytes() == archive.read_bytes()


def test_it_opens_with_what_everybody_has(tmp_path: Path, archive: Path) -> None:
    if not shutil.which("zstd"):
        pytest.skip("no program zstd")
    for argv in (
        ["zstd", "-q", "-d", archive.name, "-o", "plain.tar"],
        ["tar", "-xf", "plain.tar"],
        ["sha256sum", "--quiet", "-c", "SHA256SUMS"],
    ):
        where = tmp_path / "evidence" if argv[0] == "sha256sum" else tmp_path
        subprocess.run(argv, cwd=where, check=True)


def test_several_runs_make_a_report_whose_links_hold(tmp_path: Path) -> None:
    sources = [
        evidence_samples.report(tmp_path / "one" / "report"),
        evidence_samples.report(tmp_path / "two" / "report", profile="debug"),
    ]
    archive = tmp_path / "evidence.tar.zst"
    assert main(["pack", "--from", *map(str, sources), "--to", str(archive)]) == 0
    assert [run.info.profile for run in verify(archive).runs] == ["base", "debug"]
    files = evidence_samples.files(archive)
    values = json.loads(files["report/summary.json"])
    for one in values["runs"]:
        (path,) = one["tests"][0]["artefacts"]
        assert path.removeprefix("../") in files


def test_what_is_beside_a_run_is_in_the_report_of_all(tmp_path: Path) -> None:
    sources = [
        section_samples.write(
            section_samples.everything(), evidence_samples.report(tmp_path / "one" / "report")
        ),
        evidence_samples.report(tmp_path / "two" / "report", profile="debug"),
    ]
    (tmp_path / "scratch").mkdir()
    files = gather(sources, tmp_path / "scratch")
    for name, content in section_samples.everything().files().items():
        assert files[f"runs/1/{name}"] == files[f"report/{name}"] == content
    assert b'<section id="bugs">' in files["report/report.html"]


def test_a_report_without_its_inputs_gets_them_from_the_cache(tmp_path: Path) -> None:
    kernel = {"key": "k1", "source": {"kind": "debian"}, "series": None}
    write_all([run(result(), kernel=kernel)], tmp_path / "report")
    built = tmp_path / "cache/kernels/k1"
    built.mkdir(parents=True)
    for name in ("config", "build.log"):
        (built / name).write_text(name)
    (tmp_path / "scratch").mkdir()
    files = gather([tmp_path / "report"], tmp_path / "scratch", tmp_path / "cache")
    assert files["report/inputs/k1/config"] == b"config"


def test_what_cannot_be_packed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))
    runs = [run(result(), kernel=evidence_samples.KERNEL), run(result(), profile="debug")]
    write_all(runs, tmp_path / "merged")
    write_all(runs[:1], tmp_path / "bare")
    write_all(
        [run(result(), kernel={**evidence_samples.KERNEL, "key": "../x"})], tmp_path / "edited"
    )
    to = str(tmp_path / "x.tar.zst")
    for name in ("none", "merged", "bare", "edited"):
        assert main(["pack", "--from", str(tmp_path / name), "--to", to]) == 2
    lines = capsys.readouterr().err.splitlines()
    says = ["No such file", "a report of 2 runs", "not in the cache any more", "is no key"]
    assert len(lines) == len(says)
    for line, words in zip(lines, says, strict=True):
        assert line.startswith("error: ")
        assert words in line
    assert not (tmp_path / "x.tar.zst").exists()
