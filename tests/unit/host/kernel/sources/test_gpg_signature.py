# SPDX-License-Identifier: GPL-2.0-only
"""A tarball without a pinned hash is accepted if and only if a trusted key signed it."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fixtures.host.config import vm_profile
from fixtures.host.kernel.kernel_cli_options import KernelOptions
from fixtures.host.kernel.sources import gpg_signature
from fixtures.host.kernel.sources.tarball import TarballSource, open_tarball
from fixtures.host.util.errors import UserError
from fixtures.host.util.progress import SilentProgress
from fixtures.host.util.subprocess_util import run
from tests.unit.host.kernel.sources.gpg_signer import Signer

MAKEFILE = "VERSION = 9\nPATCHLEVEL = 1\nSUBLEVEL = {}\n"


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    """Yield a signer with two trusted keys, one of them expired, and an untrusted one."""
    # Not pytest's tmp_path: gpg-agent's socket is in the folder, and its path is limited to 108
    # bytes.
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        try:
            yield Signer(home)
        finally:
            run(["gpgconf", "--homedir", home, "--kill", "all"])


@pytest.fixture
def keys(signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the trusted keys."""
    folder = tmp_path / "keys"
    folder.mkdir()
    signer.publish(folder, signer.key, signer.old)
    monkeypatch.setattr(gpg_signature, "KEYS_DIR", folder)
    return folder


@pytest.fixture
def site(signer: Signer, keys: Path, tmp_path: Path) -> Iterator["Site"]:  # noqa: ARG001
    """Yield a server with the signed release linux-9.1.4."""
    folder = tmp_path / "v9.x"
    folder.mkdir()
    handler = partial(Handler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        site = Site(signer, folder, tmp_path / "cache", server.server_address[1])
        site.release(4)
        yield site
        server.shutdown()


class Handler(SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, *_: object) -> None:
        """Drop the line."""


class Site:
    """A fake kernel.org with one folder."""

    def __init__(self, signer: Signer, folder: Path, cache: Path, port: int) -> None:
        self.signer = signer
        self.folder = folder
        self.cache = cache
        self.lines: list[str] = []
        self.profile = replace(
            vm_profile.load_profile("base").kernel,
            version="9.1.4",
            tarball=f"http://127.0.0.1:{port}/v{{major}}.x/linux-{{version}}.tar.xz",
            tarball_sha256=None,
        )

    def release(self, sublevel: int, stated: int | None = None) -> Path:
        """Publish a release.

        Args:
            sublevel: its SUBLEVEL, which names the tarball.
            stated: the SUBLEVEL in the Makefile, if it differs.
        """
        name = f"linux-9.1.{sublevel}"
        tree = self.folder / name
        tree.mkdir()
        (tree / "Makefile").write_text(MAKEFILE.format(sublevel if stated is None else stated))
        run(["tar", "-cf", f"{name}.tar", name], cwd=self.folder)
        shutil.rmtree(tree)
        tar = self.folder / f"{name}.tar"
        self.signer.sign(tar, self.signer.key)
        self.pack(tar)
        return tar

    def pack(self, tar: Path) -> None:
        """Compress the tar to .tar.xz again."""
        run(["xz", "--keep", "--force", tar])

    def say(self, line: str) -> None:
        """Record the line."""
        self.lines.append(line)

    def open(self, options: KernelOptions | None = None) -> TarballSource:
        """Return the source that the suite selects."""
        progress = SilentProgress()
        progress.say = self.say  # type: ignore[method-assign]
        return open_tarball(self.profile, options or KernelOptions(), self.cache, progress)

    def refused(self) -> str:
        """Return the error message of ``fetch``; check that no files stay."""
        source = self.open()
        with pytest.raises(UserError) as caught:
            source.fetch(SilentProgress())
        assert source.scripts_dir() is None
        assert "\n" not in str(caught.value)
        return str(caught.value)


def test_signed_download_is_accepted(site: Site) -> None:
    source = site.open()
    assert "9.1.4" in source.identity
    tree = source.fetch(SilentProgress())
    assert (tree.folder / "Makefile").is_file()
    record = source.describe()
    assert record["signed_by"] == site.signer.key
    assert (record["version"], len(record["sha256"]), len(record["signed"])) == ("9.1.4", 64, 10)
    shutil.rmtree(site.folder)
    again = site.open()
    assert (again.identity, again.fetch(SilentProgress())) == (source.identity, tree)
    assert again.describe() == record


def test_modified_tarball_is_refused(site: Site) -> None:
    tar = site.folder / "linux-9.1.4.tar"
    tar.write_bytes(tar.read_bytes().replace(b"VERSION = 9", b"VERSION = 8"))
    site.pack(tar)
    assert "linux-9.1.4.tar.xz: bad signature" in site.refused()


def test_truncated_tarball_is_refused(site: Site) -> None:
    packed = site.folder / "linux-9.1.4.tar.xz"
    packed.write_bytes(packed.read_bytes()[:-40])
    assert "bad signature" in site.refused()


def test_untrusted_signer_is_refused_and_named(site: Site) -> None:
    site.signer.sign(site.folder / "linux-9.1.4.tar", site.signer.other)
    assert f"signed by {site.signer.other}, whose key is not in" in site.refused()


def test_key_under_wrong_file_name_is_refused(site: Site, keys: Path) -> None:
    (keys / f"{site.signer.key}.asc").rename(keys / f"{'A' * 40}.asc")
    assert f"signed by {site.signer.key}, which is not the name of any file" in site.refused()


def test_missing_signature_is_refused(site: Site) -> None:
    (site.folder / "linux-9.1.4.tar.sign").unlink()
    message = site.refused()
    assert "linux-9.1.4.tar.sign: HTTP Error 404" in message
    assert "pin kernel.tarball_sha256" in message


def test_malformed_signature_is_refused(site: Site) -> None:
    (site.folder / "linux-9.1.4.tar.sign").write_text("<html>not here</html>\n")
    assert "no OpenPGP signature in the file" in site.refused()


def test_two_signatures_are_refused(site: Site) -> None:
    again = site.signer.make("again", None, "never")
    site.signer.publish(gpg_signature.KEYS_DIR, again)
    site.signer.sign(site.folder / "linux-9.1.4.tar", site.signer.key, again)
    assert "linux-9.1.4.tar.sign is not exactly one good signature" in site.refused()


def test_old_release_under_new_name_is_refused(site: Site) -> None:
    site.release(5, stated=3)
    site.profile = replace(site.profile, version="9.1.5")
    assert "signed, but it is 9.1.3, not 9.1.5" in site.refused()


def test_signature_before_key_expiry_is_accepted(site: Site) -> None:
    tar = site.folder / "linux-9.1.4.tar"
    site.signer.sign(tar, site.signer.old, when="20200601T000000")
    source = site.open()
    source.fetch(SilentProgress())
    assert source.describe()["signed"] == "2020-06-01"


def test_signature_after_key_expiry_is_refused(site: Site, keys: Path) -> None:
    # gpg refuses to sign with an expired key, so the expiry date is set after signing.
    key = site.signer.make("spent", "20200101T000000", "never")
    site.signer.sign(site.folder / "linux-9.1.4.tar", key, when="20220601T000000")
    site.signer.gpg("--quick-set-expire", key, "6m", when="20200601T000000")
    site.signer.publish(keys, key)
    assert f"signed by {key} after that key had expired" in site.refused()


def test_removed_release_falls_back_to_newest_of_series(site: Site) -> None:
    site.release(12)
    site.release(9)
    names = ["9.1.12", "9.1.9", "9.1", "9.10.40", "9.2.1"]
    listing = "".join(f"{'0' * 64}  linux-{name}.tar.xz\n" for name in names)
    (site.folder / "sha256sums.asc").write_text(listing)
    (site.folder / "linux-9.1.4.tar.xz").unlink()
    source = site.open()
    assert source.version == "9.1.12"
    assert "was removed: using 9.1.12, the newest of the same series" in site.lines[0]
    source.fetch(SilentProgress())
    assert source.describe()["version"] == "9.1.12"
    shutil.rmtree(site.folder)
    assert site.open().identity == source.identity


def test_removed_series_is_one_line(site: Site) -> None:
    (site.folder / "sha256sums.asc").write_text(f"{'0' * 64}  linux-9.2.1.tar.xz\n")
    (site.folder / "linux-9.1.4.tar.xz").unlink()
    with pytest.raises(UserError, match=r"all of series 9\.1: change kernel\.version"):
        site.open()


def test_unreachable_server_keeps_pinned_version(site: Site) -> None:
    site.profile = replace(
        site.profile, tarball="http://127.0.0.1:9/v{major}.x/linux-{version}.tar.xz"
    )
    assert site.open().version == "9.1.4"
    assert "--kernel-tarball FILE with its .sign in the same folder" in site.refused()


@pytest.mark.parametrize("ending", [".tar.xz", ".tar.gz", ".tar"])
def test_signed_file_is_accepted(site: Site, ending: str) -> None:
    tar = site.folder / "linux-9.1.4.tar"
    run(["gzip", "--keep", tar])
    options = KernelOptions(tarball=site.folder / f"linux-9.1.4{ending}")
    source = site.open(options)
    source.fetch(SilentProgress())
    assert source.describe()["signed_by"] == site.signer.key
    site.signer.sign(tar, site.signer.key, when="20300101T000000")
    assert site.open(options).identity != source.identity


def test_pinned_hash_overrides_signature(site: Site) -> None:
    site.profile = replace(site.profile, tarball_sha256="0" * 64)
    assert "sha256 is" in site.refused()


def test_project_keys_match_their_file_names(tmp_path: Path) -> None:
    keys = gpg_signature.load_keys()
    (tmp_path / "ring").write_bytes(keys.keyring)
    listed = run(["gpg", "--homedir", tmp_path, "--with-colons", "--show-keys", tmp_path / "ring"])
    primary = [
        after.split(":")[9]
        for line, after in zip(*[listed.stdout.splitlines()[at:] for at in (0, 1)], strict=False)
        if line.startswith("pub:")
    ]
    assert sorted(primary) == list(keys.fingerprints)
    assert "647F28654894E3BD457199BE38DBBDC86092693E" in keys.fingerprints


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("greg.asc", "", "name it by the fingerprint"),
        (f"{'A' * 40}.asc", "no key", "not an armored OpenPGP key"),
        (
            f"{'A' * 40}.asc",
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ?\n-----END PGP PUBLIC KEY BLOCK-----\n",
            "not an armored OpenPGP key",
        ),
        ("README.md", "", "no signature can be verified"),
    ],
)
def test_damaged_keys_are_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        gpg_signature.load_keys(tmp_path)
