"""README as a new user meets it: short, its blocks run as pasted in an empty directory, its accuracies as measured."""

import hashlib
import http.server
import json
import re
from functools import partial
from pathlib import Path

import pytest

from benchmarks import quickstart
from raydream.networks import build_network
from raydream.teachers.checkpoints import save_network
from tests.web import served, without_proxies

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Your own network")[2].partition("\n## ")[0]
URL = re.compile(r"https://\S+#sha256=[0-9a-f]{64}")


def test_readme_is_short_and_leads_from_why_to_license():
    assert len(README.splitlines()) <= 150
    order = ["Why", "Install", "Quickstart in Python", "Your own network", "Results", "What you can do", "Limitations"]
    assert re.findall(r"^## (.*)$", README, re.MULTILINE) == [*order, "Citation and license"]


def test_readme_and_the_guide_name_one_line_that_uses_the_gpus_of_a_machine():
    guide = (ROOT / "docs/how-to/gpus.md").read_text(encoding="utf-8")
    for page in (README, guide):
        assert re.search(r"raydream distill .*--generators\.gpus 0\.45 --student\.gpus 0\.45", page)


def test_links_of_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.long
def test_the_python_quickstart_is_15_lines_and_gives_what_readme_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len([line for line in quickstart.quickstart().splitlines() if line]) <= 15
    told = json.loads((ROOT / "benchmarks/results/quickstart.json").read_text(encoding="utf-8"))
    measured = quickstart.measured()
    for name in ("teacher", "student"):
        assert measured[name] == pytest.approx(told[name], abs=0.05), "python benchmarks/quickstart.py"
    assert re.fullmatch(r"(teacher|student): [\d.]+% of 500 real test images", capsys.readouterr().out.splitlines()[-1])
    assert not list(tmp_path.iterdir())


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *_):
        pass


@pytest.mark.long
def test_the_own_network_is_inverted_as_pasted(job, tmp_path, monkeypatch):
    """Its weights come from a server of this machine instead of the web, and its settings are tiny."""
    without_proxies(monkeypatch)
    files, empty = tmp_path / "web", tmp_path / "empty"
    files.mkdir()
    empty.mkdir()
    monkeypatch.setenv("RAYDREAM_HOME", str(tmp_path / "home"))
    save_network(build_network("cifar_resnet20", {}, 3, 10), files / "resnet20.safetensors")
    checksum = hashlib.sha256((files / "resnet20.safetensors").read_bytes()).hexdigest()
    ((name, content),) = re.findall(r"```yaml\n# (\S+)\n(.*?)```", SECTION, re.DOTALL)
    ((command, *options),) = [line.split()[1:] for line in re.findall(r"^raydream .*$", SECTION, re.MULTILINE)]
    assert len(content.splitlines()) == 7, "eight lines with the file's name"
    monkeypatch.chdir(empty)
    with served(partial(Quiet, directory=files)) as address:
        url = f"{address}/resnet20.safetensors#sha256={checksum}"
        (empty / name).write_text(URL.sub(url, content), encoding="utf-8")
        few = [
            "--images",
            "4",
            "--synthesis.batch_size",
            "4",
            "--synthesis.iterations",
            "2",
            "--synthesis.method",
            "noise",
        ]
        done = job(command, *options, *few, folder=empty)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (empty / "runs" / "mine" / "images" / "images.png").exists()
