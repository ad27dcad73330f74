"""Files from the web, by a server of this process: what is kept of them, and what is refused."""

import hashlib
import http.server
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from raydream.errors import DiskFullError, InputError
from raydream.store import atomic, downloads
from raydream.store.downloads import cached_path, downloaded, home
from tests.web import served, without_proxies

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers by the last part of the path.

    Attributes:
        seen: paths that were asked for.
        ranges: the parts of them that were asked for, if any.
    """

    seen: ClassVar[list[str]] = []
    ranges: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.ranges.append(self.headers.get("Range"))
        kind, is_first = self.path.rpartition("/")[2].partition("?")[0], len(self.seen) == 1
        if kind == "none":
            self.send_error(404)
        elif kind == "busy" and is_first:
            self.send_error(503)
        elif kind == "silent":
            time.sleep(0.2)
        elif kind in ("moved", "moved_away"):
            self.send_response(302)
            self.send_header("Location", "/whole" if kind == "moved" else "file:///etc/passwd")
            self.end_headers()
        else:
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if kind == "resumed" and asked else 0
            self._send(start, cut=kind == "always_cut" or (kind in ("cut", "resumed") and is_first))

    def _send(self, start: int, cut: bool) -> None:
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(CONTENT[start : 500_000 if cut else None])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no proxy, and no waiting before a second try."""
    without_proxies(monkeypatch)
    monkeypatch.setenv("RAYDREAM_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(atomic, "WAITS_S", (0.0, 0.0))


@pytest.fixture
def url(cache: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a server."""
    monkeypatch.setattr(Answers, "seen", [])
    monkeypatch.setattr(Answers, "ranges", [])
    with served(Answers) as found:
        yield found


def kept() -> list[str]:
    return sorted(str(path.relative_to(home())) for path in home().rglob("*") if path.is_file())


def refused(where: str, sha256: str = SHA256) -> str:
    with pytest.raises(InputError) as caught:
        downloaded(where, sha256, "verifiers.0.checkpoint")
    assert caught.value.field == "verifiers.0.checkpoint" and caught.value.value == f"{where}#sha256={sha256}"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_downloaded_once(url, capsys):
    path = downloaded(f"{url}/a/whole.th?raw=1", SHA256, "teacher.checkpoint")
    assert path.read_bytes() == CONTENT and kept() == [f"weights/{SHA256[:12]}-whole.th"]
    said = capsys.readouterr().err
    assert said == f"downloading {path} (1 MiB)\n"
    assert downloaded(f"{url}/a/whole.th?raw=1", SHA256, "teacher.checkpoint") == path
    assert Answers.seen == ["/a/whole.th?raw=1"] and capsys.readouterr().err == ""


def test_without_a_variable_the_cache_is_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAYDREAM_HOME", raising=False)
    assert home() == tmp_path / ".cache" / "raydream"
    monkeypatch.setenv("RAYDREAM_HOME", "~/mine")
    assert home() == tmp_path / "mine"


@pytest.mark.parametrize("name", ["..", "", "a" * 300, "%2e%2e%2fx", "x;y"])
def test_no_name_leads_out_of_the_cache(name, url):
    path = downloaded(f"{url}/{name}", SHA256, "teacher.checkpoint")
    assert path.resolve().parent == home() / "weights" and path.read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["resumed", "cut"])  # by a server that sends parts, and by one that does not
def test_only_the_rest_of_a_cut_file_is_asked_for(kind, url):
    assert downloaded(f"{url}/{kind}", SHA256, "teacher.checkpoint").read_bytes() == CONTENT
    assert Answers.ranges == [None, f"bytes={downloads.PIECE}-"] and len(kept()) == 1


def test_a_file_with_another_checksum_is_refused_and_not_kept(url):
    said = refused(f"{url}/whole", "0" * 64)
    assert f"the file there has {SHA256}: correct the URL or the checksum" in said
    assert kept() == [] and len(Answers.seen) == 1


def test_a_damaged_file_in_the_cache_is_replaced(url):
    path = cached_path(f"{url}/whole", SHA256)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1])
    assert downloaded(f"{url}/whole", SHA256, "teacher.checkpoint").read_bytes() == CONTENT


@pytest.mark.parametrize(("kind", "then"), [("cut", "cut"), ("busy", "busy"), ("moved", "whole")])
def test_what_is_cut_or_turned_away_is_asked_for_again_and_a_redirect_is_followed(kind, then, url):
    assert downloaded(f"{url}/{kind}", SHA256, "teacher.checkpoint").read_bytes() == CONTENT
    assert Answers.seen == [f"/{kind}", f"/{then}"] and len(kept()) == 1


FAILING = [
    # (answer, requests, what is said)
    ("always_cut", 3, "IncompleteRead"),
    ("silent", 3, "Read timed out"),
    ("none", 1, "404"),
    ("moved_away", 1, "file:///etc/passwd"),
]


@pytest.mark.parametrize(("kind", "asked", "says"), FAILING)
def test_a_download_that_fails_says_which_file_belongs_where(kind, asked, says, url, monkeypatch):
    if kind == "silent":
        monkeypatch.setattr(downloads, "TIMEOUT_S", 0.1)
    said = refused(f"{url}/{kind}")
    assert "the download failed (" in said and says in said
    assert f"get the file on another machine and put it at {home()}/weights/{SHA256[:12]}-{kind}." in said
    assert len(Answers.seen) == asked and kept() == []


@pytest.mark.parametrize("where", ["http://[1/x", "http://.a/x", "http://a:b/x", "https://127.0.0.1:9/x"])
def test_a_url_that_leads_nowhere_is_refused_at_once(where, cache, caplog):
    assert f"put it at {home()}/weights/{SHA256[:12]}-x." in refused(where)
    assert not caplog.records, "nothing is retried"


def test_a_machine_without_a_network_uses_what_is_in_the_cache(cache):
    where = "http://127.0.0.1:9/whole"
    path = cached_path(where, SHA256)
    assert f"put it at {path}." in refused(where)
    path.write_bytes(CONTENT)
    assert downloaded(where, SHA256, "teacher.checkpoint") == path


def test_a_proxy_of_the_environment_is_used(url, monkeypatch):
    monkeypatch.setenv("http_proxy", url)
    downloaded("http://weights.invalid/whole", SHA256, "teacher.checkpoint")
    assert Answers.seen == ["http://weights.invalid/whole"]


def test_a_cache_that_cannot_be_written_is_refused(url, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYDREAM_HOME", str(tmp_path / "file"))
    assert "set RAYDREAM_HOME to another folder" in refused(f"{url}/whole")
    assert Answers.seen == []


def test_a_full_disk_is_said_so_and_leaves_nothing_behind(url, small_disk, monkeypatch):
    monkeypatch.setenv("RAYDREAM_HOME", str(small_disk))
    with pytest.raises(DiskFullError, match=rf"no space is left for {small_disk}/weights/.*-whole: free some"):
        downloaded(f"{url}/whole", SHA256, "teacher.checkpoint")
    assert kept() == []


def test_two_processes_at_once_leave_one_whole_file(url):
    code = "import sys; from raydream.store.downloads import downloaded; print(downloaded(*sys.argv[1:], 'x'))"
    command = [sys.executable, "-c", code, f"{url}/whole", SHA256]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(2)]
    paths = {each.communicate(timeout=60)[0] for each in both}
    assert [each.returncode for each in both] == [0, 0]
    assert paths == {f"{cached_path(f'{url}/whole', SHA256)}\n"} and len(kept()) == 1
