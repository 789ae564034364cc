# SPDX-License-Identifier: GPL-2.0-only
"""Somebody who signs tarballs, by gpg with keys that are made for the tests."""

from pathlib import Path

from fixtures.host.util.subprocess_util import run


class Signer:
    """Somebody with keys of their own, all of them made for one test run."""

    def __init__(self, home: str) -> None:
        self._home = home
        self.old = self.make("old", "20200101T000000", "1y")
        self.key = self.make("new", None, "never")
        self.other = self.make("other", None, "never")

    def gpg(self, *argv: str | Path, when: str | None = None) -> str:
        """Run gpg in the keys' own folder, at another time if asked to."""
        clock = ["--faked-system-time", f"{when}!"] if when else []
        own = ["gpg", "--homedir", self._home, "--batch", "--quiet", *clock]
        return run([*own, "--pinentry-mode", "loopback", "--passphrase", "", *argv]).stdout

    def make(self, name: str, made: str | None, expires: str) -> str:
        """Make a key and return its fingerprint."""
        self.gpg("--quick-gen-key", f"{name}@example.org", "ed25519", "sign", expires, when=made)
        listed = self.gpg("--with-colons", "--list-keys", f"{name}@example.org")
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))

    def sign(self, file: Path, *keys: str, when: str | None = None) -> None:
        """Put a signature beside a file, as kernel.org does."""
        there = file.with_name(f"{file.name}.sign")
        there.unlink(missing_ok=True)
        users = [word for key in keys for word in ("--local-user", f"{key}!")]
        self.gpg("--armor", *users, "--output", there, "--detach-sign", file, when=when)

    def publish(self, folder: Path, *keys: str) -> None:
        """Write keys into a folder that is believed."""
        for key in keys:
            (folder / f"{key}.asc").write_text(self.gpg("--armor", "--export", key))
