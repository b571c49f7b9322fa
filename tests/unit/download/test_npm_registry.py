"""Tests of packages from an npm registry: which registry, and what of an archive is taken."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from hephaestus_build.core.errors import UsageError
from hephaestus_build.download import npm_registry
from hephaestus_build.download.npm_registry import find_npm_registry, unpack_package
from npm_archives import pack, pinned

WHOLE = {"package/LICENSE": b"MIT", "package/dist/a.js": b"export default 1;", "package/README.md": b"words"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("registry", "userconfig"):
        monkeypatch.delenv(f"npm_config_{name}", raising=False)
        monkeypatch.delenv(f"NPM_CONFIG_{name.upper()}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_registry_is_that_of_npm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = home / "bin" / "npm"
    npm.parent.mkdir()
    monkeypatch.setenv("PATH", str(npm.parent))
    with pytest.raises(UsageError, match="npm is not installed: set npm_config_registry"):
        find_npm_registry()
    npm.write_text(
        '#!/bin/sh\n[ "$*" = \'config get registry\' ] && [ "$PWD" = / ] && echo https://npm.example/all/\n'
    )
    npm.chmod(0o755)
    assert str(find_npm_registry()) == "https://npm.example/all/"
    npm.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(UsageError, match="npm does not say"):
        find_npm_registry()
    (home / ".npmrc").write_text(
        "; of this machine\n@scope:registry=https://other.example/\nregistry = 'https://a.example/npm/'\n"
    )
    assert str(find_npm_registry()) == "https://a.example/npm/"
    (home / "mine").write_text("registry=https://b.example/\n")
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(home / "mine"))
    assert str(find_npm_registry()) == "https://b.example/"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://me:secret@c.example/npm")
    found = find_npm_registry().child(pinned(b"", "@zarrita/storage", "0.2.0").archive)
    assert str(found) == "https://c.example/npm/@zarrita/storage/-/storage-0.2.0.tgz"
    monkeypatch.setenv("npm_config_registry", "ftp://secret")
    with pytest.raises(UsageError, match="npm_config_registry") as caught:
        find_npm_registry()
    assert "secret" not in str(caught.value)


def test_scripts_and_licence_are_taken_and_nothing_else() -> None:
    content = pack(WHOLE, links={"package/dist/b.js": "/etc/passwd"})
    assert unpack_package(pinned(content), content) == {"LICENSE": b"MIT", "dist/a.js": b"export default 1;"}


@pytest.mark.parametrize(
    "name", ["package/../LICENSE", "/package/dist/a.js", "package/dist/../../a.js", "dist/a.js"]
)
def test_a_member_that_leads_elsewhere_is_left_out(name: str) -> None:
    content = pack({**WHOLE, name: b"elsewhere"})
    assert b"elsewhere" not in unpack_package(pinned(content), content).values()


def test_another_archive_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    content = pack(WHOLE)
    changed = pack({**WHOLE, "package/dist/a.js": b"export default 2;"})
    monkeypatch.setattr(zlib, "decompressobj", lambda **_: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match="not the pinned archive"):
        unpack_package(pinned(content), changed)


def test_what_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = pack({**WHOLE, "package/dist/zeros.js": bytes(npm_registry._MAX_UNPACKED)})
    assert len(bomb) < 100_000
    with pytest.raises(ValueError, match="bytes unpacked"):
        unpack_package(pinned(bomb), bomb)
    large = pack({**WHOLE, "package/dist/large.js": bytes(npm_registry._MAX_MEMBER + 1)})
    with pytest.raises(ValueError, match=r"large\.js has more"):
        unpack_package(pinned(large), large)
    many = pack({**WHOLE, **{f"package/{number}": b"" for number in range(npm_registry._MAX_MEMBERS)}})
    with pytest.raises(ValueError, match="members"):
        unpack_package(pinned(many), many)


@pytest.mark.parametrize("missing", ["package/LICENSE", "package/dist/a.js"])
def test_a_package_without_licence_or_scripts_is_refused(missing: str) -> None:
    content = pack({name: body for name, body in WHOLE.items() if name != missing})
    with pytest.raises(ValueError, match="no licence, or no scripts"):
        unpack_package(pinned(content), content)


@pytest.mark.parametrize("content", [b"", b"no archive", pack(WHOLE)[:-20]], ids=["empty", "text", "cut"])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"unpacked|cut"):
        unpack_package(replace(pinned(content), name="zarrita"), content)
