"""The manual, the README and the gallery run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from memoleo.testing import LocalOllama

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# The name that the manual gives to whatever model is there.
MODEL = "llama3.2"


def code_of(page: Path) -> str:
    """Return the Python blocks of a page, on the lines where they stand there."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for block in FENCE.finditer(text):
        first = text.count("\n", 0, block.start(1))
        for number, line in enumerate(block[1].splitlines(), start=first):
            lines[number] = line
    return "\n".join(lines)


def needs_a_model(source: str) -> bool:
    return re.search(r"\bollama\b", source) is not None


@pytest.fixture(scope="session")
def model_host(request: pytest.FixtureRequest, local_ollama: LocalOllama) -> str:
    """The address of a real model that answers to the name that the manual uses."""
    import httpx

    httpx.post(
        f"{local_ollama.url}/api/copy",
        json={"source": local_ollama.model, "destination": MODEL},
        trust_env=False,
    ).raise_for_status()
    return local_ollama.url


def run(script: Path, folder: Path, host: str | None = None) -> str:
    """Run a file as a user does, with a cache of its own."""
    kept = {name for name in os.environ if not name.startswith("MEMOLEO_")} | {"MEMOLEO_MODEL_DIR"}
    environ = {name: value for name, value in os.environ.items() if name in kept}
    environ["MEMOLEO_CACHE"] = f"sqlite:///{(folder / 'cache.db').as_posix()}"
    environ["OLLAMA_HOST"] = host or "http://127.0.0.1:9"
    environ["PYTHONIOENCODING"] = "utf-8"
    ran = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if FENCE.search(page.read_text(encoding="utf-8"))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_blocks_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The Python blocks of a page run one after the other, as a reader would type them."""
    source = code_of(page)
    # Not the name of a module that the page imports.
    script = tmp_path / f"page_{page.stem}.py"
    script.write_text(source, encoding="utf-8")
    host = request.getfixturevalue("model_host") if needs_a_model(source) else None
    run(script, tmp_path, host)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A file of the gallery runs as it stands, and prints something."""
    source = path.read_text(encoding="utf-8")
    host = request.getfixturevalue("model_host") if needs_a_model(source) else None
    assert run(path, tmp_path, host).strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_shown(path: Path) -> None:
    """A file of the gallery has at most 60 lines, says its idea, and stands in the manual."""
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    assert source.startswith('"""')
    assert f"literalinclude}} ../examples/{path.name}" in (ROOT / "docs/examples.md").read_text(
        encoding="utf-8"
    )


def test_readme_gives_the_two_commands() -> None:
    """The first thing that a reader sees is what it is and how to try it."""
    top = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:10]
    assert any(line.startswith("pip install tox && tox -e demo") for line in top)
    assert any(re.match(r"pip install tox && tox( |$)(?! *-e)", line) for line in top)


def test_every_command_is_in_the_manual() -> None:
    """Each command has its section on the page of the command line, with each of its options."""
    import click

    from memoleo.cli._main import commands

    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    general, *sections = re.split(r"^## memoleo (?=\S+$)", page, flags=re.MULTILINE)
    texts = {section.partition("\n")[0]: section for section in sections}
    names = commands.list_commands(click.Context(commands))
    assert sorted(texts) == sorted(names)
    for name in names:
        command = commands.get_command(click.Context(commands), name)
        assert command is not None
        for each in command.params:
            spelled = each.opts if isinstance(each, click.Option) else [each.human_readable_name]
            found = any(f"`{one}" in texts[name] + general for one in spelled)
            assert found or f" {spelled[0]}`" in texts[name], f"memoleo {name}: {spelled}"


def test_every_setting_is_in_the_manual() -> None:
    """Each setting has its row on the page of the settings."""
    from memoleo.config._keys import KEYS

    page = (ROOT / "docs/reference/config.md").read_text(encoding="utf-8")
    for section, keys in KEYS.items():
        for key in keys:
            stage = key.removesuffix("2") + "1"
            assert f"`{section}.{key}`" in page or f"`{key}`" in page or stage in page, key


def test_every_public_name_is_in_the_manual() -> None:
    """Each name of the public face has its place in the reference."""
    import memoleo

    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    errors = memoleo.errors.__all__
    missing = [
        name
        for name in memoleo.__all__
        if f":: memoleo.{name}\n" not in page and name not in errors and name != "__version__"
    ]
    assert missing == []
