"""Mistakes in a command line, as a table: one sentence each, exit status 2, without torch, and nothing begun."""

import contextlib
import io
import pickle
import resource
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from raydream.cli import Command, parse, run_job
from raydream.commands import main
from raydream.config import DistillConfig
from raydream.errors import MistakeError

FILES = {
    "iteratons.yaml": "seed: 1\nsynthesis:\n  iteratons: 500\n",
    "section.yaml": "sythesis:\n  iterations: 500\n",
    "type.yaml": "synthesis:\n  iterations: many\n",
    "section_value.yaml": "teacher: 5\n",
    "range.yaml": "generators:\n  count: 2\n  min: 3\n",
    "broken.yaml": "seed: 1\nsynthesis:\n  betas: [0.9, 0.99\nrounds: {}\n",
    "tab.yaml": "seed: 1\nsynthesis:\n\titerations: 5\n",
    "transfer.yaml": "experiment: other\nnew_images: 64\nepochs: 3\nstudent:\n  network: digits\n",
    "list.yaml": "- seed\n",
    "nobody.yaml": "quarks: 1\n",
    "distill.yaml": "rounds:\n  count: 3\n",
    "weights.yaml": "teacher:\n  checkpoint: none.th\n",
    "twice.yaml": "seed: 1\nrounds:\n  count: 3\nseed: 2\n",
}
MISTAKES = {
    # command line: what is said
    "distill --config iteratons.yaml": "error: unknown setting synthesis.iteratons in iteratons.yaml:3. "
    "Did you mean synthesis.iterations?",
    "distill --synthesis.iteratons 5": "error: unknown option --synthesis.iteratons. "
    "Did you mean --synthesis.iterations?",
    "distill --synthesis.iteratons=5": "error: unknown option --synthesis.iteratons. "
    "Did you mean --synthesis.iterations?",
    'distill --synthesis {"iteratons":5}': "error: unknown option --synthesis.iteratons. "
    "Did you mean --synthesis.iterations?",
    "distill --synthesis 5": "error: synthesis = 5: must be a section of settings by name; ",
    "distill --iterations 5": "error: unknown option --iterations. Did you mean --synthesis.iterations?",
    "distill --run_dir x": "error: unknown option --run_dir. Did you mean --run-dir?",
    "distill --quarks 5": "error: unknown option --quarks. `raydream distill --help all` lists them all.",
    "distill --config nobody.yaml": "error: unknown setting quarks in nobody.yaml:1. "
    "`raydream distill --help all` lists them all.",
    "distill --config section.yaml": "error: unknown setting sythesis in section.yaml:1. Did you mean synthesis?",
    "distill --config type.yaml": "error: synthesis.iterations = 'many': must be a valid integer; it stands in "
    "type.yaml:2, and `raydream distill --help synthesis` says what it means.",
    "distill --synthesis.iterations many": "error: synthesis.iterations = 'many': must be a valid integer; "
    "`raydream distill --help synthesis` says what it means.",
    "distill --seed": "error: --seed = None: must be followed by its value; give one, such as 8 or [5, 5].",
    "distill --seed --device cpu": "error: --seed = None: must be followed by its value",
    "distill --config section_value.yaml": "error: teacher = 5: must be a section of settings by name; it stands in "
    "section_value.yaml:1",
    "distill --config range.yaml": "error: generators.min = 3: must be at most generators.count (2); lower it, or ask "
    "for more generators (it stands in range.yaml:3).",
    "distill --config broken.yaml": "error: broken.yaml:4:7 is no valid YAML (line, column): ",
    "distill --config tab.yaml": "error: tab.yaml:3:1 is no valid YAML (line, column): ",
    "distill --config twice.yaml": "error: seed is given twice in twice.yaml, in lines 1 and 4: leave one out.",
    "distill --config none.yaml": "error: --config = 'none.yaml': must be a file that exists, or the name of one that "
    "comes with raydream; see `raydream configs ls` for those.",
    "distill --config digts": "error: --config = 'digts': must be a file that exists, or the name of one that comes "
    "with raydream; did you mean digits?",
    "distill --config preset:cifar_students": "error: --config = 'preset:cifar_students': must be a file that exists, "
    "or the name of one that comes with raydream; did you mean preset:cifar10_students?",
    "distill --config .": "error: --config = '.': must be a YAML file; reading it failed: ",
    "distill --config list.yaml": "error: --config = 'list.yaml': must be a YAML file of settings by name; ",
    "distill --config transfer.yaml": "error: transfer.yaml is a configuration of `raydream transfer`, not of "
    "`raydream distill`: new_images in transfer.yaml:2 is no setting here.",
    "synthesize --config distill.yaml": "error: distill.yaml is a configuration of `raydream distill`, not of "
    "`raydream synthesize`: rounds in distill.yaml:1 is no setting here.",
    "distill digits": "error: unexpected word 'digits': options begin with --. Did you mean --config digits?",
    "distill transfer.yaml": "error: unexpected word 'transfer.yaml': options begin with --. "
    "Did you mean --config transfer.yaml?",
    "distill -seed 3": "error: unexpected word '-seed': options begin with --.",
    "distill --resume nothing": "error: --resume = 'nothing': must be the folder of a run (format 1); the folder is "
    "missing or holds no run.",
    "distill --help sythesis": "error: no section 'sythesis': --help takes all or one of teacher, ",
    "search --config digits --space coeficients": "error: space = 'coeficients': must be a file that exists, or the "
    "name of one that comes with raydream; did you mean coefficients?",
    "reproduce --table 9": "error: table = 9: must be 1 to 7; give it as --table N.",
    "ditsill --config digits": "error: unknown command 'ditsill'. Did you mean raydream distill?",
    "--config digits": "error: unknown command '--config'. `raydream --help` lists all commands.",
    "distill --teacher.checkpoint none.th": "error: teacher.checkpoint = 'none.th': must be a file with a state dict "
    "(.safetensors, or torch.save's); there is no such file.",
    "distill --config weights.yaml": "error: teacher.checkpoint = 'none.th': must be a file with a state dict "
    "(.safetensors, or torch.save's); there is no such file (it stands in weights.yaml:2).",
    "distill --teacher.network quarks": "error: teacher.network = 'quarks': must be one of digits, cifar_resnet20, ",
    "distill --student.network quarks": "error: student.network = 'quarks': must be one of digits, cifar_resnet20, ",
    "synthesize --teacher.network nomod:fn": "error: teacher.network = 'nomod:fn': must be one of digits, "
    "cifar_resnet20, cifar_resnet32, cifar_resnet44, cifar_resnet56, cifar_resnet18, cifar_resnet34, cifar_vgg11_bn, "
    "cifar_vgg16_bn, cifar_wrn16_1, cifar_wrn40_2, cifar_mobilenet_v2, torchvision:NAME, timm:NAME, or "
    "package.module:factory; importing it failed (No module named 'nomod'); is it on PYTHONPATH?",
    "synthesize --teacher.network no.such:fn": "error: teacher.network = 'no.such:fn': must be one of digits, ",
    "ablate --config digits --verifiers digits=none.th": "error: verifiers.0.checkpoint = 'none.th': must be a file ",
    "report nowhere": "error: RUN = 'nowhere': must be the folder of a run; there is no run.json in it.",
    "runs show nowhere": "error: RUN = 'nowhere': must be the folder of a run; there is no run.json in it.",
    "configs show digts": "error: NAME = 'digts': must be ",
}


def said(words: list[str]) -> tuple[int, str, str]:
    """Exit status, output and errors of a command line, in this process."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        status = main(words)
    return status, out.getvalue(), error.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files of the table."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_module_in_the_working_directory_is_found_and_takes_no_other_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("html", "torch", "my_network_from_here"):
        (tmp_path / f"{name}.py").write_text("raise ValueError('the wrong module')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found: dict[str, bool] = {}

    def look(command: Command[DistillConfig]) -> None:
        for name in ("html", "torch", "my_network_from_here"):
            spec = PathFinder.find_spec(name)
            found[name] = spec is not None and Path(str(spec.origin)).parent == tmp_path

    assert run_job(DistillConfig, "distill", look, arguments=[]) == 0
    assert found == {"html": False, "torch": False, "my_network_from_here": True}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_sentence(line: str, folder: Path) -> None:
    status, out, error = said(line.split(" "))
    assert (status, out) == (2, "")
    assert error.startswith(MISTAKES[line]) and error.count("\n") == 1, error
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES), "nothing was begun"


def test_a_name_of_any_letters_stays_one_line(folder: Path) -> None:
    (folder / "odd.yaml").write_text('"a\\nb\\u202e": 1\n', encoding="utf-8")
    status, _, error = said(["distill", "--config", "odd.yaml"])
    assert status == 2 and error.startswith("error: unknown setting a\\nb\\u202e in odd.yaml:1.")
    assert error.count("\n") == 1


def cpu_seconds(*words: str) -> tuple[float, str]:
    """What Python takes for a program, and its output. CPU-seconds, as a clock also counts what others do."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def test_a_mistake_takes_less_than_a_second(folder: Path) -> None:
    program = "import sys; from raydream.commands import main; print(main(sys.argv[1:]))"
    for options in (["--config", "iteratons.yaml"], ["--resume", "nothing"], ["--teacher.checkpoint", "none.th"]):
        taken, out = cpu_seconds("-c", program, "distill", *options)
        assert out == "2\n" and taken < 1


def test_no_mistake_needs_torch_or_ray(folder: Path) -> None:
    program = (
        "import sys; from raydream.commands import main\n"
        "for line in sys.argv[1:]: print(main(line.split(' ')), {'torch', 'ray'} & {*sys.modules}, line)"
    )
    _, out = cpu_seconds("-c", program, *MISTAKES)
    assert out.splitlines() == [f"2 set() {line}" for line in MISTAKES]


@pytest.mark.parametrize(
    "options",
    [
        ["--teacher.network", "torchvision:resnet18", "--teacher.checkpoint", "IMAGENET1K_V1"],
        ["--teacher.network", "timm:resnet18", "--teacher.checkpoint", "pretrained"],
        ["--teacher.checkpoint", "s3://bucket/weights.pt"],
        ["--teacher.checkpoint", "weights.pt"],
        ["--teacher.network", "tests.tiny:tiny_network", "--student.network", "own:network"],
    ],
    ids=" ".join,
)
def test_networks_and_weights_that_names_do_not_decide_pass(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("weights.pt", "own.py"):
        (tmp_path / name).touch()
    parse(DistillConfig, "distill", options)


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(MistakeError("--seed", "a sentence")))
    assert (str(error), error.field) == ("a sentence", "--seed") and type(error) is MistakeError
