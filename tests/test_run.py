"""``memoleo run``: what a program sees is what plain Python shows it, and its calls are cached."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_http import ScriptedHttp
from scripted_ollama import ScriptedOllama

WINDOWS = sys.platform == "win32"
posix = pytest.mark.skipif(WINDOWS, reason="Windows has no such signals")

ASK = """
import ollama, os
client = ollama.Client(os.environ["OLLAMA_URL"])
def ask(prompt="why?"):
    return client.generate("m", prompt, options={"temperature": 0}).response
"""

# In short pieces: a signal that comes just before a sleep doesn't end it.
WAIT = "import time\nfor _ in range(6000): time.sleep(0.01)"


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    with ScriptedOllama() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ScriptedOllama) -> Path:
    """A program's folder, with a module that asks the model something."""
    (tmp_path / "asking.py").write_text(ASK, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMOLEO_CACHE", f"sqlite:///{(tmp_path / 'c.db').as_posix()}")
    monkeypatch.setenv("OLLAMA_URL", server.url)
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "memoleo", "run", *arguments]


def run(*arguments: str, plain: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program under memoleo as a user does, or without it."""
    environment = {**os.environ, **options.pop("env", {})}
    if plain:
        environment.setdefault("PYTHONHASHSEED", "0")
    return subprocess.run(
        [sys.executable, *arguments] if plain else command(*arguments),
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        env=environment,
        **options,
    )


def write(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return path


def same(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program with and without memoleo, check that nobody sees a difference."""
    ours = run(*arguments, **options)
    plain = run(*arguments, plain=True, **options)
    lines = [line for line in ours.stderr.splitlines() if not line.startswith("memoleo run:")]
    assert ours.stdout == plain.stdout
    assert lines == plain.stderr.splitlines()
    assert ours.returncode == plain.returncode
    return ours


SHOW = """
import __main__, inspect, json, pickle, sys
class Thing:
    pass
thing = pickle.loads(pickle.dumps(Thing()))
print(json.dumps([
    __name__, __file__, sys.argv, sys.path, list(vars(__main__))[:8],
    getattr(__main__.__spec__, "name", None),
    __package__, inspect.getsource(Thing), type(thing) is Thing, type(thing).__module__,
    "sitecustomize" in sys.modules, "memoleo" in sys.modules, __main__.__dict__ is globals(),
    [line for line in "cbda" if line in set("abcd")], list(set("memoleo")),
]))
"""


def test_script_sees_what_plain_python_shows(folder: Path) -> None:
    """Names, arguments, paths, `__main__`, pickling and inspection are those of plain Python."""
    write(folder / "sub" / "script.py", SHOW)
    told = same(os.path.join("sub", "script.py"), "-x", "--config", "y", "-", "--", "-m", "é ü")
    assert json.loads(told.stdout)[2][1:] == ["-x", "--config", "y", "-", "--", "-m", "é ü"]


def test_modules_directories_and_zip_files_run_as_python_runs_them(folder: Path) -> None:
    """`-m` with modules and packages, folders and zip files with a `__main__`, and stdin."""
    write(folder / "pack" / "__init__.py", "")
    write(folder / "pack" / "tool.py", SHOW)
    write(folder / "pack" / "__main__.py", SHOW)
    with zipfile.ZipFile(folder / "app.zip", "w") as file:
        file.writestr("__main__.py", "import sys; print(__name__, sys.argv, sys.path[0])")
    same("-m", "pack.tool", "--help", "-m")
    same("-mpack.tool", "a")
    same("-m", "pack")
    same("pack")
    same("app.zip", "x")
    same("-", "x", input="import sys; print(sys.argv, sys.path[0])")


@pytest.mark.parametrize(
    "source",
    [
        "import sys; sys.exit()",
        "import sys; sys.exit(7)",
        "import sys; sys.exit(300)",
        "import sys; sys.exit('reason')",
        "import os; os._exit(9)",
        "def f():\n    1 / 0\nf()",
        "raise KeyboardInterrupt",
        "def broken(:\n",
        "import absent_module",
        "import asking, ollama.absent",
    ],
)
def test_status_and_traceback_are_plain_pythons(folder: Path, source: str) -> None:
    """The exit status and every line of a traceback are the same: no frame of memoleo's."""
    write(folder / "script.py", source)
    same("script.py")


def test_missing_programs_fail_as_they_do_in_python(folder: Path) -> None:
    """A script or module that isn't there gives Python's own message and status."""
    assert same("absent.py").returncode == 2
    assert same("-m", "absent.module").returncode == 1
    assert same(".").returncode == 1


def test_wrong_use_says_what_is_missing(folder: Path) -> None:
    """Nothing to run, an unknown option, broken settings: status 2, and nothing has run."""
    write(folder / "script.py", "print('ran')")
    write(folder / "wrong.toml", "[caching]\ntttl = 3\n")
    for arguments in ([], ["-m"], ["--confg", "x", "script.py"], ["--json", "script.py"]):
        ran = run(*arguments)
        assert (ran.returncode, ran.stdout) == (2, ""), arguments
    ran = run("--config", "wrong.toml", "script.py")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "wrong.toml" in ran.stderr
    assert "tttl" in ran.stderr


@posix
@pytest.mark.parametrize("options", [[], ["--observe"]])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_end_it_as_they_end_python(folder: Path, number: int, options: list[str]) -> None:
    """A signal reaches the program, and the parent sees that very signal as its end."""
    if options and number == signal.SIGKILL:
        pytest.skip("nobody can pass on SIGKILL")
    write(folder / "script.py", f"import os\nprint(os.getpid(), flush=True)\n{WAIT}")
    with subprocess.Popen(
        command(*options, "script.py"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        assert options or program == process.pid
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == -number


@posix
@pytest.mark.parametrize("options", [[], ["--observe"]])
def test_a_killed_program_is_seen_as_killed(folder: Path, options: list[str]) -> None:
    """SIGKILL to the program itself, by the system that runs out of memory, is told as that."""
    write(folder / "script.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    ran = run(*options, "script.py")
    assert ran.returncode == -signal.SIGKILL
    assert "Error" not in ran.stderr


@posix
def test_handlers_of_the_program_are_the_ones_that_run(folder: Path) -> None:
    """A program that handles SIGTERM itself decides how it ends."""
    write(
        folder / "script.py",
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        f"print('ready', flush=True)\n{WAIT}",
    )
    for options in ([], ["--observe"]):
        with subprocess.Popen(
            command(*options, "script.py"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.terminate()
            assert process.wait(60) == 5


def test_hash_seed_is_pinned_where_it_is_unset(folder: Path) -> None:
    """What a set is ordered by stays the same from run to run; that is said once, on stderr."""
    source = "import subprocess, sys\nprint(list(set(map(str, range(20)))), flush=True)\n"
    source += "len(sys.argv) > 1 or subprocess.run([sys.executable, __file__, 'child'])\n"
    write(folder / "script.py", source)
    first, second = run("script.py"), run("script.py")
    assert first.stdout == second.stdout
    assert first.stderr.count("PYTHONHASHSEED") == 1
    for value in ("random", "12"):
        assert "PYTHONHASHSEED" not in run("script.py", env={"PYTHONHASHSEED": value}).stderr


def test_calls_are_cached_without_an_edit(folder: Path, server: ScriptedOllama) -> None:
    """The second run of a program asks nobody, and prints the same."""
    write(folder / "script.py", "from asking import ask\nprint(ask(), ask())")
    first, second = run("script.py"), run("script.py")
    assert first.stdout == second.stdout == "word 1 ends. word 1 ends.\n"
    assert server.asked == 1


@pytest.mark.parametrize("name", ["secrets", "signal", "uuid"])
def test_modules_with_names_of_the_standard_library_do_no_harm(tmp_path: Path, name: str) -> None:
    """A program may call a module of its own like one that memoleo needs: it runs as ever."""
    write(tmp_path / "app" / f"{name}.py", "TOKEN = 'own'")
    write(
        tmp_path / "app" / "script.py",
        "import sys, requests\n"
        "for _ in range(2):\n"
        "    print(requests.post(sys.argv[1], json={'a': 1}).status_code)\n"
        f"import {name}\n"
        f"print({name}.TOKEN)\n",
    )
    with ScriptedHttp() as http:
        write(tmp_path / "memoleo.toml", f'[[http.rules]]\nmethod = "POST"\nurl = "{http.url}/*"\n')
        env = {"MEMOLEO_CACHE": f"sqlite:///{(tmp_path / 'cache.db').as_posix()}"}
        ran = same("app/script.py", f"{http.url}/echo", cwd=tmp_path, env=env)
    assert ran.stdout.split() == ["200", "200", "own"]


CHILDREN = """
import multiprocessing, subprocess, sys
from concurrent.futures import ProcessPoolExecutor

class Job:
    def __call__(self, prompt):
        from asking import ask
        return ask(prompt)

if __name__ == "__main__":
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            print(pool.map(Job(), ["why?", "why?"]))
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            print(pool.submit(Job(), "why?").result())
    code = "from asking import ask; print(ask())"
    subprocess.run([sys.executable, "-c", code], check=True)
    print(subprocess.check_output(f'"{sys.executable}" -c "{code}"', shell=True, text=True))
"""


def test_children_of_every_kind_inherit_it(folder: Path, server: ScriptedOllama) -> None:
    """Fork, spawn, forkserver, pools and subprocesses: one call in all of them together."""
    write(folder / "asked.py", "from asking import ask\nask()")
    run("asked.py")
    write(folder / "script.py", CHILDREN)
    ran = run("script.py")
    assert ran.returncode == 0, ran.stderr
    assert server.asked == 1
    assert set(ran.stdout.replace("[", "").replace("]", "").replace("'", "").split(" ends.")) >= {
        "word 1"
    }
    assert "word 2" not in ran.stdout


def test_forked_children_of_a_program_that_asked_nothing_yet(
    folder: Path, server: ScriptedOllama
) -> None:
    """A child that is the first to import the package is covered too."""
    if WINDOWS:
        pytest.skip("there is no fork")
    write(
        folder / "script.py",
        "import os\nfor _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        from asking import ask\n"
        "        ask()\n"
        "        os._exit(0)\n"
        "    os.wait()\n",
    )
    run("script.py")
    assert server.asked == 1


def test_children_in_other_folders_have_the_same_settings(
    folder: Path, server: ScriptedOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings found at the start hold in children, wherever they run."""
    monkeypatch.delenv("MEMOLEO_CACHE")
    write(folder / "memoleo.toml", '[caching]\nurl = "sqlite:///here.db"\n')
    write(
        folder / "script.py",
        "import os, subprocess, sys\n"
        "here = os.getcwd()\nos.chdir('/')\n"
        "subprocess.run([sys.executable, os.path.join(here, 'asking_too.py')], check=True)\n",
    )
    write(folder / "asking_too.py", "from asking import ask\nask()")
    ran = run("script.py")
    assert ran.returncode == 0, ran.stderr
    assert (folder / "here.db").exists()
    run("asking_too.py")
    assert server.asked == 1


def test_relative_cache_option_means_the_folder_of_the_start(
    folder: Path, server: ScriptedOllama
) -> None:
    """`--cache sqlite:///x.db` is one file, for children elsewhere too."""
    (folder / "elsewhere").mkdir()
    write(
        folder / "script.py",
        "import os\nos.chdir('elsewhere')\nfrom asking import ask\nask()",
    )
    run("--cache", "sqlite:///x.db", "script.py")
    run("--cache=sqlite:///x.db", "script.py")
    assert (folder / "x.db").exists()
    assert server.asked == 1


def test_another_sitecustomize_still_runs(folder: Path) -> None:
    """The one that a program had before is imported, under its name, from its place."""
    write(folder / "lib" / "sitecustomize.py", "import sys; sys.custom = 'yes'")
    write(
        folder / "script.py",
        "import sys, sitecustomize\nprint(sys.custom, sitecustomize.__file__, sys.path)",
    )
    told = same("script.py", env={"PYTHONPATH": str(folder / "lib")})
    assert told.stdout.startswith("yes ")
    write(folder / "lib" / "sitecustomize.py", "import sys; sys.custom = 'yes'\nimport absent")
    ran = run("script.py", env={"PYTHONPATH": str(folder / "lib")})
    assert "No module named 'absent'" in ran.stderr


def test_children_that_lack_memoleo_are_left_alone(folder: Path) -> None:
    """An isolated child, one without site, and one that can't import memoleo run as they are."""
    code = "import sys, json; print('fine', 'memoleo' in sys.modules)"
    write(
        folder / "script.py",
        "import subprocess, sys\n"
        f"for flags in (['-I'], ['-S'], ['-E', '-S']):\n"
        f"    subprocess.run([sys.executable, *flags, '-c', {code!r}], check=True)\n",
    )
    ran = run("script.py")
    assert ran.stdout.split() == ["fine", "False"] * 3
    assert ran.returncode == 0
    assert len(ran.stderr.splitlines()) == 1


def test_other_versions_of_python_pass_by(folder: Path) -> None:
    """A child of another version finds a `sitecustomize` that does nothing, and no trace of it."""
    write(folder / "script.py", "import os; print(os.environ['PYTHONPATH'])")
    place = run("script.py").stdout.strip()
    write(folder / "other.py", "import sys, ollama; print(sys.path, sorted(sys.modules))")
    other = {"PYTHONPATH": place, "MEMOLEO_RUN": "cpython-27:ollama"}
    ran, untouched = run("other.py", plain=True, env=other), run("other.py", plain=True)
    assert (ran.stderr, ran.stdout) == ("", untouched.stdout)


def test_nothing_is_imported_before_it_is_needed(folder: Path) -> None:
    """A program that asks no model finds next to nothing loaded: gevent, say, can still patch."""
    write(folder / "script.py", "import sys; print(*sys.modules)")
    ours = set(run("script.py").stdout.split())
    plain = set(run("script.py", plain=True).stdout.split())
    assert ours - plain <= {
        "_memoleo_run", "__future__", "importlib", "importlib._bootstrap",
        "importlib._bootstrap_external", "importlib.machinery", "_warnings", "warnings",
        "_py_warnings", "_contextvars",  # what Python 3.14 makes warnings from
    }  # fmt: skip


def test_module_that_only_has_the_name_of_a_package(folder: Path) -> None:
    """A program's own `ollama.py` can't be patched, and works as it does in plain Python."""
    write(folder / "ollama.py", "def chat():\n    return 'mine'")
    write(folder / "script.py", "import ollama; print(ollama.chat())")
    assert run("script.py").stdout == "mine\n"
    for source in ("1 / 0", "import absent_module", "def broken(:", "raise SystemExit(4)"):
        write(folder / "ollama.py", source)
        same("script.py")


def test_threads_that_import_at_once_are_all_covered(folder: Path, server: ScriptedOllama) -> None:
    """Eight threads whose first act is the import: one call."""
    write(
        folder / "script.py",
        "import threading\n"
        "def work():\n    from asking import ask\n    ask()\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "[t.start() for t in threads]\n[t.join() for t in threads]\n",
    )
    assert run("script.py").returncode == 0
    assert server.asked == 1


def test_pytest_runs_under_it(folder: Path, server: ScriptedOllama) -> None:
    """`memoleo run -m pytest` is pytest, with its status and cached calls."""
    write(
        folder / "test_it.py",
        "from asking import ask\n"
        "def test_one(): assert ask() == 'word 1 ends.'\n"
        "def test_two(): assert ask() == 'word 1 ends.'\n"
        "def test_three(): assert not ask()\n",
    )
    ran = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py")
    assert ran.returncode == 1
    assert "1 failed, 2 passed" in ran.stdout
    assert server.asked == 1


def observed(*arguments: str) -> dict[str, Any]:
    ran = run("--observe", "--json", *arguments)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stderr[ran.stderr.index("{") :])
    return found


def test_observing_serves_nothing_and_sums_up(folder: Path, server: ScriptedOllama) -> None:
    """Every call is made, nothing is stored, and the end says what would have been saved."""
    write(folder / "script.py", "from asking import ask\nask(1 and 'w')\nprint(*map(ask, 'aabab'))")
    told = observed("script.py")
    assert server.asked == 6
    assert told["calls"] == 6
    assert told["types"]["ollama.generate"]["would_hit"] == 3
    assert told["would_save_ms"] > 0
    assert observed("script.py")["would_hit"] == 3  # nothing was stored
    ran = run("--observe", "script.py")
    assert "3 of 6 calls" in ran.stderr


def test_observing_sees_decorated_functions(folder: Path) -> None:
    """A program that imports memoleo only, and decorates, is observed like any other."""
    write(
        folder / "script.py",
        "from memoleo import content_cached\n"
        "@content_cached('[/]')\ndef same(value): print('run'); return value\n"
        "same(1), same(1), same(2)\n",
    )
    told = observed("script.py")
    assert (told["calls"], told["types"]["[/]"]["would_hit"]) == (3, 1)
    ran = run("--observe", "script.py")
    assert ran.stdout == "run\n" * 3
    assert "[/]" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_observing_adds_up_the_children_even_killed_ones(
    folder: Path, server: ScriptedOllama
) -> None:
    """What a child saw counts however it ended, and answers would have been shared."""
    write(
        folder / "child.py",
        "import os, signal\nfrom asking import ask\nask('first')\n[ask('a') for _ in range(3)]\n"
        "os._exit(0) if os.name == 'nt' else os.kill(os.getpid(), signal.SIGKILL)\n",
    )
    write(
        folder / "script.py",
        "import subprocess, sys\n"
        "for _ in range(2):\n    subprocess.run([sys.executable, 'child.py'])\n",
    )
    told = observed("script.py")
    assert told["calls"] == server.asked == 8
    assert told["would_hit"] == 6


def test_observing_a_program_without_such_calls_says_so(folder: Path) -> None:
    """No call, no table."""
    write(folder / "script.py", "raise SystemExit(3)")
    ran = run("--observe", "script.py")
    assert ran.returncode == 3
    assert "No call was made" in ran.stderr


APP = """
from asking import ask

async def app(scope, receive, send):
    if scope["type"] == "http":
        body = ask().encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

def application(environ, start_response):
    start_response("200 OK", [])
    return [ask().encode()]
"""


def fetch(url: str) -> bytes:
    """Get a page of a server that may have to start first."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + 60
    while True:
        try:
            with opener.open(url, timeout=30) as answer:
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


SERVERS = [
    ["uvicorn", "serving:app", "--port", "0", "--lifespan", "off"],
    ["uvicorn", "serving:app", "--port", "0", "--lifespan", "off", "--workers", "2"],
    pytest.param(["gunicorn", "serving:application", "-b", "127.0.0.1:0", "-w", "2"], marks=posix),
    pytest.param(
        ["gunicorn", "serving:application", "-b", "127.0.0.1:0", "--preload"], marks=posix
    ),
]


@pytest.mark.parametrize("arguments", SERVERS, ids=lambda given: " ".join(given))
def test_servers_and_their_workers_run_under_it(
    folder: Path, server: ScriptedOllama, arguments: list[str]
) -> None:
    """uvicorn and gunicorn, one worker or several: the model is asked once, and they end well."""
    pytest.importorskip(arguments[0])
    write(folder / "serving.py", APP)
    with subprocess.Popen(
        command("-m", *arguments), stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stderr is not None
        try:
            url = next(
                found[0]
                for line in process.stderr
                if (found := re.search(r"http://127\.0\.0\.1:\d+", line))
            )
            for _ in range(6):
                assert fetch(url) == b"word 1 ends."
        finally:
            process.terminate()
            process.stderr.read()
        assert process.wait(60) in (0, -signal.SIGTERM)
    assert server.asked == 1
