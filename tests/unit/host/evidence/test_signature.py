# SPDX-License-Identifier: GPL-2.0-only
"""Signatures of evidence archives, with real keys."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.host.evidence.cli import main


@pytest.fixture(params=["ssh", "minisign"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A new private key and its public key."""
    private, public = tmp_path / "key", tmp_path / "key.pub"
    if request.param == "ssh":
        if shutil.which("ssh-keygen") is None:
            pytest.skip("ssh-keygen is not installed")
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(private)]
    else:
        if shutil.which("minisign") is None:
            pytest.skip("minisign is not installed")
        argv = ["minisign", "-G", "-W", "-p", str(public), "-s", str(private)]
    subprocess.run(argv, check=True, capture_output=True)
    return private, public


@pytest.fixture
def signed(report: Path, tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """A signed archive."""
    path = tmp_path / "signed.tar.zst"
    args = ["pack", "--from", str(report), "--to", str(path), "--sign", str(keys[0])]
    assert main(args) == 0
    return path


def test_signature_by_the_key_is_verified(
    signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(signed), "--key", str(keys[1])]) == 0
    assert "signed: " in capsys.readouterr().out


def test_signature_that_is_not_checked_is_mentioned(
    signed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(signed)]) == 0
    assert "not checked: " in capsys.readouterr().out


def test_archive_signed_and_then_replaced_is_refused(
    signed: Path, archive: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The other archive is a good one; only the signature shows that it was replaced."""
    signed.write_bytes(archive.read_bytes() + b"\x50\x2a\x4d\x18\x00\x00\x00\x00")
    assert main(["verify", str(signed), "--key", str(keys[1])]) == 1
    assert "not a signature of this archive" in capsys.readouterr().err


def test_signature_by_another_key_is_refused(
    signed: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    other = tmp_path / "other"
    if keys[0].read_text().startswith("untrusted"):
        argv = ["minisign", "-G", "-W", "-p", f"{other}.pub", "-s", str(other)]
    else:
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)]
    subprocess.run(argv, check=True, capture_output=True)
    assert main(["verify", str(signed), "--key", f"{other}.pub"]) == 1


def test_changed_signature_is_refused(
    signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (signature,) = (path for path in signed.parent.glob(f"{signed.name}.*"))
    lines = signature.read_text().splitlines(keepends=True)
    # One character of the signature itself; it stays valid base64.
    middle = len(lines[1]) // 2
    other = "A" if lines[1][middle] != "A" else "B"
    lines[1] = lines[1][:middle] + other + lines[1][middle + 1 :]
    signature.write_text("".join(lines))
    assert main(["verify", str(signed), "--key", str(keys[1])]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"damaged: {signature}: not a signature of this archive")
    assert err.count("\n") == 1


def test_signature_made_for_another_purpose_is_refused(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    if keys[0].read_text().startswith("untrusted"):
        pytest.skip("minisign's signatures name no purpose")
    Path(f"{signed}.sig").unlink()
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(keys[0]), "-n", "git", str(signed)]
    subprocess.run(argv, check=True, capture_output=True)
    assert main(["verify", str(signed), "--key", str(keys[1])]) == 1


def test_byte_changed_after_signing_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    content = bytearray(signed.read_bytes())
    for position in range(0, len(content), max(1, len(content) // 20)):
        content[position] ^= 1
        signed.write_bytes(content)
        assert main(["verify", str(signed), "--key", str(keys[1])]) == 1
        content[position] ^= 1
    signed.write_bytes(content)
    assert main(["verify", str(signed), "--key", str(keys[1])]) == 0


def test_missing_signature_is_refused(archive: Path, keys: tuple[Path, Path]) -> None:
    assert main(["verify", str(archive), "--key", str(keys[1])]) == 1


def test_key_from_the_environment_is_used(
    report: Path, tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWMAP_SIGN_KEY", str(keys[0]))
    path = tmp_path / "e.tar.zst"
    assert main(["pack", "--from", str(report), "--to", str(path)]) == 0
    assert main(["verify", str(path), "--key", str(keys[1])]) == 0


def test_unsigned_archive_removes_signature_of_its_predecessor(
    signed: Path, report: Path, keys: tuple[Path, Path]
) -> None:
    assert main(["pack", "--from", str(report), "--to", str(signed)]) == 0
    assert main(["verify", str(signed), "--key", str(keys[1])]) == 1


def test_file_that_is_no_key_is_refused(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("hello\n")
    args = ["pack", "--from", str(report), "--to", str(tmp_path / "e"), "--sign"]
    assert main([*args, str(tmp_path / "key")]) == 2
    assert "neither an SSH key nor a minisign key" in capsys.readouterr().err
    assert main([*args, str(tmp_path / "missing")]) == 2
