"""`memoleo init`: settings and editor tasks for a project, and nothing overwritten."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from memoleo.cli._main import commands
from memoleo.cli._tasks_file import NotSafe, add_tasks
from memoleo.config import load_settings

ROOT = Path(__file__).parents[1]
LABELS = [
    "Show Cache Stats",
    "Show Performance Metrics",
    "Clear Cache",
    "Clear Expired Cache Entries",
    "Open Dashboard",
    "Run Worker (cached)",
]


def init(folder: Path, *options: str) -> tuple[int, dict[str, str]]:
    """Run `memoleo init` in a folder; its status, and what became of each file."""
    ran = subprocess.run(
        [sys.executable, "-m", "memoleo", "init", "--json", *options],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    files = json.loads(ran.stdout)["files"]
    return ran.returncode, {Path(each["path"]).name: each["done"] for each in files}


def labels(path: Path) -> list[str]:
    return [task["label"] for task in json.loads(path.read_text(encoding="utf-8"))["tasks"]]


def test_fresh_project(tmp_path: Path) -> None:
    """An empty folder gets settings that load, and the six tasks; a second run changes nothing."""
    assert init(tmp_path) == (0, {"memoleo.toml": "created", "tasks.json": "created"})
    assert labels(tmp_path / ".vscode/tasks.json") == LABELS
    settings = load_settings(start=tmp_path, environ={})
    assert Path(str(settings.file)).samefile(tmp_path / "memoleo.toml")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert init(tmp_path) == (0, {"memoleo.toml": "kept", "tasks.json": "kept"})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_every_line_of_the_settings_is_valid(tmp_path: Path) -> None:
    """Whoever removes the `#` in front of a setting gets a setting that exists."""
    init(tmp_path)
    path = tmp_path / "memoleo.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    settings = [
        line.removeprefix("# ")
        if line.startswith("# ") and (" = " in line or "[" in line)
        else line
        for line in lines
    ]
    path.write_text("\n".join(settings), encoding="utf-8")
    loaded = load_settings(path, environ={})
    assert loaded.types == {"song_recommendations": 86400.0}
    assert loaded.default_ttl == load_settings(start=tmp_path.anchor, environ={}).default_ttl


def test_the_cache_is_named_in_the_settings(tmp_path: Path) -> None:
    """`--cache` decides where results are kept, in the project's folder."""
    init(tmp_path, "--cache", "sqlite:///kept/\N{SNOWMAN}.db?max_bytes=1GiB")
    url = load_settings(start=tmp_path, environ={}).cache_url
    assert url is not None
    assert url.startswith("sqlite:///")
    assert url.endswith(".db?max_bytes=1GiB")


def test_settings_elsewhere_in_the_project_stay_the_ones(tmp_path: Path) -> None:
    """A project with `[tool.memoleo]` gets no second file that would win over it."""
    (tmp_path / "pyproject.toml").write_text("[tool.memoleo]\nenabled = true\n")
    _, done = init(tmp_path)
    assert done["memoleo.toml"] == "skipped"
    assert not (tmp_path / "memoleo.toml").exists()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_own_tasks_stay_letter_by_letter(tmp_path: Path, newline: str) -> None:
    """Tasks are added behind those that are there, which keep their form."""
    path = tmp_path / ".vscode" / "tasks.json"
    path.parent.mkdir()
    own = newline.join(
        [
            '{ "tasks": [',
            '\t{"label": "Clear Cache",   "command": "mine", "tasks": ["]"]}',
            "  ],",
            '  "version": "2.0.0", "inputs": []}',
            "",
        ]
    )
    path.write_bytes(own.encode())
    assert init(tmp_path)[1]["tasks.json"] == "extended"
    text = path.read_bytes().decode()
    start, end = own.split(f"{newline}  ]")
    assert text.startswith(start)
    assert text.endswith(end)
    assert (text.count("\r\n") > 0) == (newline == "\r\n")
    assert sorted(labels(path)) == sorted(LABELS)
    assert json.loads(text)["tasks"][0]["command"] == "mine"


@pytest.mark.parametrize(
    "text",
    [
        '{\n  // ours\n  "version": "2.0.0",\n  "tasks": []\n}\n',
        '{"version": "2.0.0", "tasks": [{"label": "a"},]}',
        '{"tasks": [], "tasks": [{"label": "a"}]}',
        '{"version": "2.0.0"}',
        '{"tasks": {}}',
        "[]",
        "",
        "\ufeff{}",
    ],
)
def test_what_is_not_safe_to_change_is_left_and_shown(tmp_path: Path, text: str) -> None:
    """Comments and strange forms stay untouched; the tasks are printed, and the status is 1."""
    path = tmp_path / ".vscode" / "tasks.json"
    path.parent.mkdir()
    path.write_bytes(text.encode())
    status, done = init(tmp_path)
    assert (status, done["tasks.json"]) == (1, "skipped")
    assert path.read_bytes() == text.encode()
    with pytest.raises(NotSafe):
        add_tasks(text, [{"label": "x"}])


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need a privilege on Windows")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """A tasks.json that is a link to a shared file is extended there, and keeps its mode."""
    shared = tmp_path / "shared.json"
    shared.write_text('{"tasks": []}')
    shared.chmod(0o640)
    path = tmp_path / "project" / ".vscode" / "tasks.json"
    path.parent.mkdir(parents=True)
    path.symlink_to(shared)
    assert init(tmp_path / "project")[1]["tasks.json"] == "extended"
    assert path.is_symlink()
    assert labels(shared) == LABELS
    assert shared.stat().st_mode & 0o777 == 0o640


def test_missing_folder_and_wrong_url(tmp_path: Path) -> None:
    """A folder that isn't there, or a wrong URL, is said before anything is written."""
    for options in (["nowhere"], ["--cache", "mongodb://x"]):
        ran = subprocess.run(
            [sys.executable, "-m", "memoleo", "init", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode in (1, 2)
        assert "Error" in ran.stderr
        assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["the project's own", "what init writes"])
def test_the_tasks_name_commands_that_exist(tmp_path: Path, place: str) -> None:
    """Each task of ours runs a command with options that it has."""
    path = ROOT / ".vscode" / "tasks.json"
    if place == "what init writes":
        init(tmp_path)
        path = tmp_path / ".vscode" / "tasks.json"
    tasks = {each["label"]: each for each in json.loads(path.read_text(encoding="utf-8"))["tasks"]}
    for label in LABELS:
        program, name, *options = shlex.split(tasks[label]["command"])
        assert program == "memoleo"
        command = commands.get_command(None, name)
        assert command is not None, f"{label}: there is no memoleo {name}"
        command.make_context(name, options, resilient_parsing=False).close()
