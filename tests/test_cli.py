"""The command line, run as a user runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
import pytest
from children import started

from memoleo import Cache
from memoleo.cli._main import commands
from memoleo.cli._numbers import milliseconds_text

COMMANDS = commands.list_commands(click.Context(commands))


class Ran:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self) -> object:
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder without settings, to run commands in."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def memoleo(home: Path):
    """Run ``memoleo …`` in a process of its own, without a terminal and without Ollama."""

    def run(*args: str, answer: str | None = None, **environ: str) -> Ran:
        kept = {name: os.environ[name] for name in os.environ if not name.startswith("MEMOLEO_")}
        kept |= {"OLLAMA_HOST": "http://127.0.0.1:9", "PYTHONIOENCODING": "utf-8", **environ}
        done = subprocess.run(
            [sys.executable, "-m", "memoleo", *args],
            cwd=home,
            env=kept,
            capture_output=True,
            encoding="utf-8",
            input=answer or "",
            timeout=120,
        )
        ran = Ran(done)
        assert "Traceback" not in ran.err + ran.out, ran.err
        assert "\x1b" not in ran.out, "colour without a terminal"
        return ran

    return run


@pytest.fixture
def url(home: Path) -> str:
    """A cache in a file, with three emotions (one tagged) and two songs (one expired)."""
    path = f"sqlite:///{(home / 'cache.db').as_posix()}"
    with Cache(path) as cache:
        cache.set("a", [1, 2], type="emotion", tags=["user:1"])
        cache.set("b", [3], type="emotion")
        cache.set("c", [4], type="emotion")
        cache.set("d", "song", type="songs")
    with Cache(path, clock=lambda: 1_000_000.0) as cache:
        cache.set("e", "old song", type="songs", ttl="1h")
    return path


def test_no_arguments_and_help_list_the_commands(memoleo) -> None:
    """Who types only `memoleo` sees what there is."""
    for args in ((), ("--help",)):
        ran = memoleo(*args)
        assert all(command in ran.out + ran.err for command in COMMANDS)
    assert memoleo("--help").status == 0


def test_version(memoleo) -> None:
    """`--version` prints one line."""
    assert re.fullmatch(r"memoleo (\d+\.\d+\.\d+\S*|unknown)\n", memoleo("--version").out)


def test_unknown_command_names_the_nearest(memoleo) -> None:
    """A typo in a command is answered with the nearest one."""
    ran = memoleo("stat")
    assert ran.status == 2
    assert "Did you mean stats?" in ran.err


def test_unknown_option_is_wrong_use(memoleo) -> None:
    """A typo in an option is wrong use, status 2."""
    assert memoleo("stats", "--jsno").status == 2


def test_stats(memoleo, url: str) -> None:
    """`stats` counts entries per type, for people and as JSON."""
    ran = memoleo("stats", "--cache", url)
    assert ran.status == 0
    assert re.search(r"emotion\W+3\b", ran.out)
    assert re.search(r"songs\W+2\b", ran.out)
    data = memoleo("stats", "--cache", url, "--json").json
    assert data["total_entries"] == 5
    assert data["by_type"] == {"emotion": 3, "songs": 2}
    assert data["total_bytes"] > 0
    assert data["enabled"] is True


ODD = ["[red]x[/]", "[/]", "a\nb", "\x1b]0;title\x07\x1b[31mred", "<b>\u202eevil", "ünï☃", "a\0b"]


def test_names_are_only_names(memoleo, home: Path) -> None:
    """What looks like markup or obeys to a terminal is shown as it is written, one name a row."""
    program = home / "odd.py"
    program.write_text(
        "from memoleo import content_cached, timed\n"
        f"for name in {ODD!r}:\n"
        "    @timed(name)\n"
        "    @content_cached(name, tags=[name])\n"
        "    def same(value): return value\n"
        "    same(name), same(name)\n"
    )
    url = f"sqlite:///{(home / 'cache.db').as_posix()}"
    assert memoleo("run", "--cache", url, str(program)).status == 0
    shown = ["[red]x[/]", "[/]", r"a\nb", r"\x1b]0;title\x07\x1b[31mred", r"<b>\u202eevil", "ünï☃"]
    for out in (
        memoleo("stats", "--cache", url).out,
        memoleo("metrics", "--cache", url).out,
        memoleo("entries", "--values", "--cache", url, COLUMNS="300").out,
    ):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", out)
        assert [name for name in shown if name not in out] == []
    assert list(memoleo("stats", "--cache", url, "--json").json["by_type"]) == sorted(ODD)
    for name in ODD[:-1]:
        assert memoleo("clear", "--type", name, "--yes", "--cache", url, "--json").json == {
            "matched": 1,
            "cleared": 1,
        }


@pytest.fixture
def used(home: Path, url: str, memoleo) -> str:
    """The same cache after a program in another process has used it, and has ended."""
    program = home / "program.py"
    program.write_text(
        "import time\n"
        "from memoleo import content_cached, timed\n"
        "@timed('stage1')\n"
        "@content_cached(type='emotion')\n"
        "def score(n):\n"
        "    if n > 4: raise ValueError(n)\n"
        "    time.sleep(0.2)\n"  # only what takes longer than a hit saves time
        "    return n\n"
        "for n in (1, 2, 3, 1, 2, 3, 5):\n"
        "    try: score(n)\n"
        "    except ValueError: pass\n"
    )
    ran = subprocess.run(
        [sys.executable, str(program)], env={**os.environ, "MEMOLEO_CACHE": url}, timeout=120
    )
    assert ran.returncode == 0
    return url


def test_metrics(memoleo, used: str) -> None:
    """`metrics` shows what another process did: for people, and in the documented shape."""
    data = memoleo("metrics", "--cache", used, "--json").json
    assert (data["stage1"]["count"], data["stage1"]["errors"]) == (6, 1)
    assert {"p50_ms", "p95_ms", "p99_ms", "avg_ms", "max_ms"} <= set(data["stage1"])
    emotion = data["cache"]["emotion"]
    assert (emotion["hits"], emotion["misses"], emotion["errors"]) == (3, 4, 1)
    text = memoleo("metrics", "--cache", used).out
    assert re.search(r"stage1\W+6\W+1\b", text)
    assert re.search(r"emotion\W+42\.9 %\W+3\W+4\b", text)
    assert re.search(r"ever\W+3\b", text)
    assert memoleo("metrics", "--cache", used, "--last", "1h", "--json").json == data
    assert memoleo("metrics", "--cache", used, "--until", "2001-01-01", "--json").json == {
        "cache": {}
    }
    assert "Nothing was counted" in memoleo("metrics", "--cache", used, "--until", "2001-01-01").out


def test_tables_fit_a_terminal_of_80_letters(memoleo, used: str) -> None:
    """No number is cut off, no name is broken early, and what never happened takes no column."""
    shown = memoleo("metrics", "--cache", used, COLUMNS="80").out
    shown += memoleo("entries", "--cache", used, COLUMNS="80").out
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert not {"retries", "corrupt", "stale"} & set(shown.split())


def test_metrics_over_time_and_savings(memoleo, used: str) -> None:
    """With a step there is a series as well, and savings come by day, week and ever."""
    data = memoleo("metrics", "--cache", used, "--json", "--step", "hour").json
    assert sum(part["stats"]["stage1"]["count"] for part in data["series"]) == 6
    savings = memoleo("metrics", "--cache", used, "--savings", "--json").json
    assert savings["ever"]["total"]["runs"] == 3
    assert set(savings) == {"today", "week", "ever"}
    assert "this week" in memoleo("metrics", "--cache", used, "--savings").out


def test_small_savings_are_not_nothing(memoleo, used: str) -> None:
    """An amount below what a table shows is told from none."""
    shown = memoleo(
        "metrics", "--cache", used, "--savings", MEMOLEO_SAVINGS__COMPUTE_PER_HOUR="1"
    ).out
    assert "< 0.01" in shown


def test_a_damaged_store_is_said_to_whoever_looks(memoleo, home: Path) -> None:
    """A file that turns out to be damaged is put aside, and the person at the command is told."""
    path = home / "cut.db"
    with Cache(f"sqlite:///{path.as_posix()}") as cache:
        for number in range(100):
            cache.set(f"key {number}", "x" * 500)
    os.truncate(path, path.stat().st_size // 2)
    looked = memoleo("stats", "--cache", f"sqlite:///{path.as_posix()}", "--json")
    assert looked.json["total_entries"] == 0
    assert re.search(r"^Warning: .*cut\.db was damaged .*corrupt-", looked.err)
    assert list(home.glob("cut.db.corrupt-*"))


def test_metrics_are_forgotten(memoleo, used: str) -> None:
    """`--forget` asks first, removes the numbers of all programs, and leaves the results."""
    assert memoleo("metrics", "--cache", used, "--forget", answer="n\n").status == 1
    assert memoleo("metrics", "--cache", used, "--json").json["stage1"]["count"] == 6
    forgotten = memoleo("metrics", "--cache", used, "--forget", "--yes", "--json")
    assert (forgotten.status, forgotten.json) == (0, {"forgotten": True})
    assert memoleo("metrics", "--cache", used, "--json").json == {"cache": {}}
    assert memoleo("stats", "--cache", used, "--json").json["total_entries"] == 8


@pytest.mark.parametrize(
    "options",
    [
        ["--since", "yesteryear"],
        ["--last", "soon"],
        ["--since", "today", "--last", "1h"],
        ["--step", "hour"],
        ["--step", "fortnight", "--json"],
        ["--savings", "--last", "1h"],
        ["--forget", "--yes", "--since", "today"],
    ],
)
def test_metrics_refuses_what_makes_no_sense(memoleo, used: str, options: list[str]) -> None:
    """A time that is none, and options that contradict each other, are wrong use."""
    assert memoleo("metrics", "--cache", used, *options).status == 2


def test_top_without_a_terminal_is_a_line_a_look(memoleo, used: str) -> None:
    """In a pipe `top` prints lines, or JSON objects, as often as it was told."""
    lines = memoleo("top", "--cache", used, "--count", "2", "--every", "0.1").out.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  hit rate 42\.9 %  lookups 7  errors 1  saved .+  entries 8  .+", lines[0]
    )
    looks = memoleo("top", "--cache", used, "--count", "2", "--every", "0.1", "--json").out
    data = [json.loads(line) for line in looks.splitlines()]
    assert [look["stats"]["stage1"]["count"] for look in data] == [6, 6]
    assert data[0]["store"]["total_entries"] == 8
    assert memoleo("top", "--cache", used, "--last", "soon").status == 2


@contextmanager
def top_in_a_terminal(url: str) -> Iterator[tuple[subprocess.Popen[str], BinaryIO]]:
    """Run `top` in a terminal that is nobody's controlling one; yield it, and the other end."""
    import pty

    other_end, terminal = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    command = [sys.executable, "-m", "memoleo", "top", "--cache", url, "--every", "0.2"]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    with (
        open(other_end, "rb", buffering=0) as screen,
        started(command, env=environ, **streams) as child,
    ):
        os.close(terminal)
        yield child, screen


def read_until(screen: BinaryIO, text: bytes) -> bytes:
    """Return what a program shows up to a text; there is a failure if that doesn't come."""
    seen = b""
    while text not in seen:
        assert select.select([screen], [], [], 60)[0], seen
        seen += screen.read(65536)
    return seen


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_top_in_a_terminal_until_interrupted(used: str) -> None:
    """In a terminal `top` draws a screen, which Ctrl-C takes away without a complaint."""
    with top_in_a_terminal(used) as (child, terminal):
        seen = read_until(terminal, b"stage1")
        child.send_signal(signal.SIGINT)
        seen += read_until(terminal, b"\x1b[?1049l")
        assert child.wait(timeout=60) == 0
    assert b"\x1b[?1049h" in seen  # a screen of its own
    assert b"Traceback" not in seen


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_top_ends_with_its_terminal(used: str) -> None:
    """Where nobody hangs it up (nohup, a killed window), `top` ends when its terminal is gone."""
    with top_in_a_terminal(used) as (child, terminal):
        read_until(terminal, b"stage1")
        terminal.close()
        child.wait(timeout=60)


def test_stats_follows_the_settings(memoleo, home: Path, url: str) -> None:
    """Without --cache, a settings file or MEMOLEO_CACHE says which cache is meant."""
    (home / "memoleo.toml").write_text("[caching]\nurl = 'sqlite:///cache.db'\n")
    assert memoleo("stats", "--json").json["total_entries"] == 5
    (home / "memoleo.toml").unlink()
    assert memoleo("stats", "--json", MEMOLEO_CACHE=url).json["total_entries"] == 5


def test_default_cache_that_is_not_there_yet_is_empty(memoleo, home: Path) -> None:
    """Looking at a default cache that nobody used creates nothing."""
    environ = {"MEMOLEO_CACHE": "sqlite:///not-yet.db"}
    assert memoleo("stats", "--json", **environ).json["total_entries"] == 0
    assert memoleo("clear", **environ).out == "There was nothing to clear.\n"
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("command", ["stats", "clear"])
@pytest.mark.parametrize(
    ("wrong", "status", "says"),
    [
        ("sqlite:///missing/cache.db", 1, "There is no cache at"),
        ("mongodb://x", 2, "a cache URL begins with"),
        ("nonsense", 2, "a cache URL begins with"),
        ("redis://[x", 2, "is no URL: Invalid IPv6 URL"),
        ("sqlite:////", 1, "is a folder"),
        ("sqlite:///a.db?max_byte=1", 2, "did you mean 'max_bytes'"),
        ("memory://", 1, "lives inside each process"),
    ],
)
def test_wrong_url(memoleo, home: Path, command: str, wrong: str, status: int, says: str) -> None:
    """A URL that leads nowhere is explained, and nothing is created there."""
    ran = memoleo(command, "--cache", wrong)
    assert ran.status == status
    assert says in ran.err
    assert list(home.iterdir()) == []


def test_empty_url_is_not_the_default_cache(memoleo) -> None:
    """An unset variable in a shell doesn't clear the user's own cache."""
    ran = memoleo("clear", "--cache", "", "--yes")
    assert ran.status == 2
    assert "empty" in ran.err


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([], {}),
        (["--type", "emotion"], {"songs": 2}),
        (["--tag", "user:1"], {"emotion": 2, "songs": 2}),
        (["--type", "songs", "--older-than", "7d"], {"emotion": 3, "songs": 1}),
        (["--older-than", "7d"], {"emotion": 3, "songs": 1}),
        (["--expired"], {"emotion": 3, "songs": 1}),
        (["--type", "unheard-of"], {"emotion": 3, "songs": 2}),
    ],
)
def test_clear(memoleo, url: str, options: list[str], left: dict[str, int]) -> None:
    """`clear` removes what matches every option, says how much, and leaves the rest."""
    data = memoleo("clear", "--cache", url, "--yes", "--json", *options).json
    expected = 5 - sum(left.values())
    assert data == {"matched": expected, "cleared": expected}
    assert memoleo("stats", "--cache", url, "--json").json["by_type"] == left


def test_clear_asks_first(memoleo, url: str) -> None:
    """Without --yes the number is shown, and only a yes removes anything."""
    no = memoleo("clear", "--cache", url, answer="n\n")
    assert (no.status, no.out) == (1, "Nothing was cleared.\n")
    assert "Remove 5 entries?" in no.err
    yes = memoleo("clear", "--cache", url, "--tag", "user:1", answer="y\n")
    assert (yes.status, yes.out) == (0, "Cleared 1 entry.\n")
    assert "Remove 1 entry?" in yes.err


def test_clear_with_nobody_to_ask(memoleo, url: str) -> None:
    """A script that forgot --yes is told so, and nothing is removed."""
    ran = memoleo("clear", "--cache", url)
    assert ran.status == 2
    assert "add --yes" in ran.err
    assert memoleo("stats", "--cache", url, "--json").json["total_entries"] == 5


def test_clear_refuses_what_makes_no_sense(memoleo, url: str) -> None:
    """A bad age, or --expired with another condition, is wrong use."""
    assert memoleo("clear", "--cache", url, "--older-than", "soon").status == 2
    assert memoleo("clear", "--cache", url, "--expired", "--type", "songs").status == 2


def test_config(memoleo, home: Path) -> None:
    """`config` prints each value and where it comes from."""
    file = home / "memoleo.toml"
    file.write_text("[types.songs]\nttl = 'forever'\n[caching]\nttl = '36h'\n")
    data = memoleo("config", "--json", MEMOLEO_INFERENCE__NUM_THREADS="3").json
    settings = data["settings"]
    assert Path(data["file"]).samefile(file)
    assert settings["types.songs.ttl"]["value"] == "forever"
    assert Path(settings["caching.ttl"]["origin"]).samefile(file)
    assert settings["inference.num_threads"] == {
        "value": 3,
        "origin": "environment variable MEMOLEO_INFERENCE__NUM_THREADS",
    }
    assert settings["networking.retry_backoff_ms"] == {
        "value": [100.0, 300.0, 900.0],
        "origin": "default",
    }
    assert settings["caching.url"]["value"].startswith("sqlite:///")
    text = memoleo("config", "--cache", "memory://").out
    for expected in ("1.5d", "forever", "100, 300, 900", "memory://", "--cache"):
        assert expected in text


@pytest.mark.parametrize(
    "command", [["config"], ["stats"], ["metrics"], ["top"], ["serve"], ["clear", "--yes"]]
)
def test_wrong_settings_are_explained(memoleo, home: Path, command: list[str]) -> None:
    """A mistake in the settings names file and key, status 2."""
    (home / "memoleo.toml").write_text("[caching]\nurll = 'x'\n")
    ran = memoleo(*command)
    assert ran.status == 2
    assert "memoleo.toml: caching.urll" in ran.err


def test_doctor_on_a_healthy_cache(memoleo, url: str) -> None:
    """Nothing wrong: status 0, and an Ollama that doesn't answer is only worth knowing."""
    ran = memoleo("doctor", "--cache", url, "--json")
    findings = {each["check"]: each for each in ran.json["findings"]}
    assert (ran.status, ran.json["problems"]) == (0, 0)
    assert findings["store"]["status"] == findings["contents"]["status"] == "ok"
    assert findings["ollama"]["status"] == "warning"
    assert "127.0.0.1:9" in findings["ollama"]["message"]
    assert memoleo("doctor", "--cache", url).status == 0


def test_doctor_before_the_first_use(memoleo, home: Path) -> None:
    """A cache that is still to be created is in order."""
    ran = memoleo("doctor", "--cache", "sqlite:///sub/not-yet.db")
    assert ran.status == 0
    assert "will be created" in ran.out
    assert list(home.iterdir()) == []


def test_doctor_on_wrong_settings(memoleo, home: Path) -> None:
    """A mistake in the settings is a problem, and the other checks go on."""
    (home / "memoleo.toml").write_text("enabled = 3\n")
    ran = memoleo("doctor", "--json")
    assert ran.status == 1
    checks = {each["check"]: each["status"] for each in ran.json["findings"]}
    assert checks["settings"] == "problem"
    assert "ollama" in checks


def test_doctor_says_that_caching_is_off(memoleo) -> None:
    """Caching that is switched off is worth a word."""
    assert "caching is switched off" in memoleo("doctor", MEMOLEO_ENABLED="0").out


def test_doctor_finds_damage(memoleo, home: Path, url: str) -> None:
    """Overwritten pages are a problem once, and what was put aside is worth a word later."""
    path = home / "cache.db"
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * len(content[4096:])
    path.write_bytes(content)
    first = memoleo("doctor", "--cache", url)
    assert first.status == 1
    assert "was damaged" in first.out
    again = memoleo("doctor", "--cache", url)
    assert again.status == 0
    assert "put aside earlier" in again.out


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_doctor_finds_a_file_that_others_can_read(memoleo, home: Path, url: str) -> None:
    """What is cached may be private."""
    (home / "cache.db").chmod(0o644)
    ran = memoleo("doctor", "--cache", url)
    assert ran.status == 1
    assert "other users can read it" in ran.out
    assert "chmod 600" in ran.out


LOOKING = [["stats"], ["entries"], ["clear", "--yes"], ["verify"], ["top", "--count", "1"],
           ["export", "out"]]  # fmt: skip


@pytest.mark.parametrize("command", LOOKING, ids=lambda command: command[0])
def test_locked_store(memoleo, home: Path, url: str, command: list[str]) -> None:
    """While another program holds the file for itself, that is said: nothing looks empty."""
    holder = sqlite3.connect(home / "cache.db", isolation_level=None)
    try:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        ran = memoleo(*command, "--cache", url)
    finally:
        holder.close()
    assert (ran.status, ran.out) == (1, "")
    assert "lock" in ran.err
    assert not (home / "out").exists()
    assert memoleo("stats", "--cache", url, "--json").json["total_entries"] == 5


@pytest.mark.parametrize("command", LOOKING, ids=lambda command: command[0])
def test_database_of_another_program(memoleo, home: Path, command: list[str]) -> None:
    """It is not taken for an empty cache, and stays as it is."""
    path = home / "theirs.db"
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE customers (name)")
        theirs.commit()
    before = path.read_bytes()
    ran = memoleo(*command, "--cache", "sqlite:///theirs.db")
    assert (ran.status, ran.out) == (1, "")
    assert "a database of another program" in ran.err
    assert not (home / "out").exists()
    assert path.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_interrupted(home: Path, url: str) -> None:
    """Ctrl-C at the question ends with status 130 and one word."""
    command = [sys.executable, "-m", "memoleo", "clear", "--cache", url]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with started(command, cwd=home, text=True, **pipes) as child:
        assert child.stderr is not None
        asked = ""
        while "?" not in asked:
            letter = child.stderr.read(1)
            assert letter, asked
            asked += letter
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 130
    assert "Interrupted." in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0"),
        (0.0004, "0 µs"),
        (0.87, "870 µs"),
        (12.34, "12.3 ms"),
        (999.6, "1 s"),
        (3400, "3.4 s"),
        (59_960, "1 min 0 s"),
        (6_880_000, "1 h 54 min"),
        (183_600_000, "2 d 3 h"),
    ],
)
def test_durations_are_short(ms: float, text: str) -> None:
    """Durations in tables have two or three digits, or two units."""
    assert milliseconds_text(ms) == text
