"""Settings: where they are found, what they may be, and what a mistake says."""

from __future__ import annotations

import json
import os
from math import inf
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
import pytest

from memoleo.config import Settings, load_settings
from memoleo.errors import ConfigError

DAY = 86400.0
WELL_KNOWN = {
    "_comment": "comments are keys that start with an underscore",
    "inference": {
        "text_max_new_tokens_stage1": 120,
        "text_max_new_tokens_stage2": 160,
        "vision_max_tokens": 150,
        "temperature_stage1": 0.3,
        "temperature_stage2": 0.7,
        "num_threads": 6,
        "num_ctx": 2048,
    },
    "caching": {
        "enabled": True,
        "ttl_text_inference": 2592000,
        "ttl_vision_inference": 2592000,
        "ttl_song_recommendations": 86400,
        "cache_dir": "./cache",
    },
    "networking": {
        "max_concurrent_requests": 16,
        "per_host_limit": 6,
        "timeout_connect": 10,
        "timeout_read": 180,
        "retry_attempts": 3,
        "retry_backoff_ms": [100, 300, 900],
    },
    "workers": {
        "image_worker_poll_ms": 500,
        "enrichment_worker_poll_ms": 500,
        "song_worker_concurrency": 4,
    },
    "ollama": {
        "base_url": "http://localhost:11434",
        "text_model": "phi3:latest",
        "vision_model": "llava:latest",
        "keep_alive": "30m",
        "num_parallel": 2,
    },
}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def from_toml(folder: Path, text: str, **environ: str) -> Settings:
    return load_settings(write(folder, "memoleo.toml", text), environ=environ)


def failure(folder: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        from_toml(folder, text, **environ)
    return str(caught.value)


def test_defaults(tmp_path: Path) -> None:
    """With no file and no environment, caching is on, for 30 days, in the user's folder."""
    settings = load_settings(environ={}, start=tmp_path)
    assert settings == Settings()
    assert (settings.enabled, settings.cache_url, settings.default_ttl) == (True, None, 30 * DAY)
    assert {origin for _, _, origin in settings.items()} == {"default"}


def test_settings_are_frozen() -> None:
    """Nobody can change settings that others rely on."""
    with pytest.raises(AttributeError):
        Settings().enabled = False  # type: ignore[misc]


def test_toml_file(tmp_path: Path) -> None:
    """Every section of a memoleo.toml arrives, with durations in seconds."""
    settings = from_toml(
        tmp_path,
        """
        enabled = true
        [caching]
        url = "memory://?max_entries=10"
        ttl = "12h"
        ttl_song_recommendations = "24h"
        [types.emotion_scoring]
        ttl = "30d"
        [types.keep]
        ttl = "forever"
        [inference]
        num_threads = 4
        [networking]
        retry_backoff_ms = [50, 75.5]
        [workers]
        song_worker_concurrency = 2
        [ollama]
        base_url = "http://127.0.0.1:9999"
        keep_alive = "30m"
        """,
    )
    assert settings.cache_url == "memory://?max_entries=10"
    assert settings.default_ttl == DAY / 2
    assert settings.types == {"song_recommendations": DAY, "emotion_scoring": 30 * DAY, "keep": inf}
    assert settings.ttl_for("emotion_scoring") == 30 * DAY
    assert settings.ttl_for("unheard of") is None
    assert settings.inference.num_threads == 4
    assert settings.networking.retry_backoff_ms == (50.0, 75.5)
    assert settings.workers.song_worker_concurrency == 2
    assert settings.ollama.base_url == "http://127.0.0.1:9999"
    assert settings.ollama.keep_alive == 1800.0


def test_well_known_perf_config_is_read_as_it_is(tmp_path: Path) -> None:
    """A perf_config.json of existing workers needs no change."""
    path = write(tmp_path, "config/perf_config.json", json.dumps(WELL_KNOWN))
    settings = load_settings(environ={}, start=tmp_path)
    assert settings.file == str(path)
    assert settings.types == {
        "text_inference": 30 * DAY,
        "vision_inference": 30 * DAY,
        "song_recommendations": DAY,
    }
    expected = (tmp_path / "cache" / "memoleo.db").as_posix()
    assert settings.cache_url == f"sqlite:///{expected}"
    assert settings.ollama.keep_alive == 1800.0
    for section in ("inference", "networking", "workers"):
        built = msgspec.json.decode(msgspec.json.encode(getattr(settings, section)))
        assert {**built, **WELL_KNOWN[section]} == built


def test_pyproject_table(tmp_path: Path) -> None:
    """[tool.memoleo] in pyproject.toml is a memoleo.toml of its own."""
    write(tmp_path, "pyproject.toml", '[tool.memoleo.caching]\nttl = "1h"\n')
    assert load_settings(environ={}, start=tmp_path).default_ttl == 3600.0


def test_files_of_others_are_passed_over(tmp_path: Path) -> None:
    """A pyproject.toml or a perf_config.json that isn't about memoleo hides nothing above it."""
    write(tmp_path, "memoleo.toml", "[caching]\nttl = 60\n")
    project = tmp_path / "project"
    write(project, "pyproject.toml", '[project]\nname = "memoleo-user"\n')
    write(project, "config/perf_config.json", '{"CPU": {"NUM_STREAMS": 4}}')
    assert load_settings(environ={}, start=project).default_ttl == 60.0


def test_nearest_file_wins(tmp_path: Path) -> None:
    """Files are looked for from the working folder upward, and only one is read."""
    write(tmp_path, "memoleo.toml", "[caching]\nttl = 1\n[types.a]\nttl = 1\n")
    inner = tmp_path / "a" / "b"
    path = write(inner, "memoleo.toml", "[caching]\nttl = 2\n")
    deeper = inner / "c"
    deeper.mkdir()
    settings = load_settings(environ={}, start=deeper)
    assert (settings.default_ttl, settings.file, settings.types) == (2.0, str(path), {})


def test_order_within_a_folder(tmp_path: Path) -> None:
    """In one folder memoleo.toml goes before pyproject.toml, and that before perf_config.json."""
    write(tmp_path, "config/perf_config.json", '{"caching": {"ttl": 3}}')
    assert load_settings(environ={}, start=tmp_path).default_ttl == 3.0
    write(tmp_path, "pyproject.toml", "[tool.memoleo.caching]\nttl = 2\n")
    assert load_settings(environ={}, start=tmp_path).default_ttl == 2.0
    write(tmp_path, "memoleo.toml", "[caching]\nttl = 1\n")
    assert load_settings(environ={}, start=tmp_path).default_ttl == 1.0


def test_memoleo_config_names_the_file(tmp_path: Path) -> None:
    """MEMOLEO_CONFIG goes before what the search would find; a path goes before both."""
    write(tmp_path, "memoleo.toml", "[caching]\nttl = 1\n")
    named = write(tmp_path, "other/named.toml", "[caching]\nttl = 2\n")
    given = write(tmp_path, "other/given.json", '{"caching": {"ttl": 3}}')
    environ = {"MEMOLEO_CONFIG": str(named)}
    assert load_settings(environ=environ, start=tmp_path).default_ttl == 2.0
    assert load_settings(given, environ=environ, start=tmp_path).default_ttl == 3.0


@pytest.mark.parametrize("name", ["missing.toml", "missing.json"])
def test_named_file_that_is_missing(tmp_path: Path, name: str) -> None:
    """A file that was asked for and isn't there is an error, not the defaults."""
    path = str(tmp_path / name)
    with pytest.raises(ConfigError, match="can't be read") as caught:
        load_settings(environ={"MEMOLEO_CONFIG": path})
    assert path in str(caught.value)


def test_named_pyproject_without_the_table(tmp_path: Path) -> None:
    """A pyproject.toml that was asked for must have the table."""
    path = write(tmp_path, "pyproject.toml", "[project]\n")
    with pytest.raises(ConfigError, match=r"no table \[tool.memoleo\]"):
        load_settings(path, environ={})


def test_file_of_another_kind(tmp_path: Path) -> None:
    """The ending says the format; others are refused."""
    path = write(tmp_path, "memoleo.yaml", "a: 1")
    with pytest.raises(ConfigError, match=r"ends in \.toml or \.json"):
        load_settings(path, environ={})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("memoleo.toml", "caching = {", "not TOML"),
        ("a.json", '{"caching": ', "not JSON"),
        ("b.json", "[]", "expected an object"),
    ],
)
def test_malformed_file(tmp_path: Path, name: str, text: str, says: str) -> None:
    """A file that doesn't parse is named, with the parser's reason."""
    path = write(tmp_path, name, text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_settings(path, environ={})
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("[caching]\nurll = 'x'", "caching.urll", "Did you mean caching.url?"),
        ("[cachng]\nttl = 1", "cachng.ttl", "Did you mean caching.ttl?"),
        ("enabeld = true", "enabeld", "Did you mean enabled?"),
        ("num_threads = 3", "num_threads", "Did you mean inference.num_threads?"),
        ("[networking]\nretry_backof_ms = [1]", "retry_backof_ms", "networking.retry_backoff_ms?"),
        ("[types.songs]\nttll = 1", "types.songs.ttll", "A type has one setting, its ttl."),
        ("[types]\nsongs = '1d'", "types.songs", "A type has one setting, its ttl."),
        ("[zzz]\nqqq = 1", "zzz.qqq", "Sections: caching, inference"),
        ("[zzz]", "zzz", "Sections: caching, inference"),
        ("caching = true", "caching", "Did you mean"),
    ],
)
def test_unknown_key(tmp_path: Path, text: str, key: str, hint: str) -> None:
    """An unknown key names the file, the key, and the nearest one that exists."""
    message = failure(tmp_path, text)
    assert str(tmp_path / "memoleo.toml") in message
    assert key in message
    assert hint in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("enabled = 'yes'", "true or false"),
        ("enabled = 1", "true or false"),
        ("[caching]\nttl = true", 'seconds, or text such as "90s"'),
        ("[caching]\nttl = 'soon'", 'seconds, or text such as "90s"'),
        ("[caching]\nttl = -1", 'seconds, or text such as "90s"'),
        ("[caching]\nttl = nan", 'seconds, or text such as "90s"'),
        ("[caching]\nurl = 5", "text"),
        ("[caching]\nurl = ''", "text"),
        ("[types.a]\nttl = []", 'seconds, or text such as "90s"'),
        ("[inference]\nnum_threads = 0", "a whole number, 1 or more"),
        ("[inference]\nnum_threads = 2.5", "a whole number, 1 or more"),
        ("[inference]\nnum_threads = true", "a whole number, 1 or more"),
        ("[inference]\ntemperature_stage1 = '0.3'", "a number, 0 or more"),
        ("[networking]\ntimeout_read = inf", "a number of seconds, 0 or more"),
        (f"[networking]\ntimeout_read = 1{'0' * 400}", "a number of seconds, 0 or more"),
        ("[networking]\nretry_backoff_ms = 100", "a list of milliseconds"),
        ("[networking]\nretry_backoff_ms = []", "a list of milliseconds"),
        ("[networking]\nretry_backoff_ms = [-1]", "a list of milliseconds"),
    ],
)
def test_bad_value(tmp_path: Path, text: str, expected: str) -> None:
    """A wrong type or a bad value names the file, the key and what was expected."""
    message = failure(tmp_path, text)
    assert str(tmp_path / "memoleo.toml") in message
    assert f"expected {expected}" in message


@pytest.mark.parametrize(
    "text",
    [
        "enabled = true\n[caching]\nenabled = false",
        "[caching]\nttl_a = 1\n[types.a]\nttl = 2",
        "[caching]\nurl = 'memory://'\ncache_dir = 'x'",
    ],
)
def test_contradictions(tmp_path: Path, text: str) -> None:
    """Two spellings of one setting with different values are never resolved by a guess."""
    assert "contradicts" in failure(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("MEMOLEO_ENABLED", "0", "caching.enabled", False),
        ("MEMOLEO_ENABLED", "off", "caching.enabled", False),
        ("MEMOLEO_ENABLED", "1", "caching.enabled", True),
        ("MEMOLEO_CACHE", "memory://", "caching.url", "memory://"),
        ("MEMOLEO_CACHING__URL", "memory://", "caching.url", "memory://"),
        ("MEMOLEO_CACHING__TTL", "90", "caching.ttl", 90.0),
        ("MEMOLEO_CACHING__TTL", "2h", "caching.ttl", 7200.0),
        ("MEMOLEO_CACHING__TTL_SONGS", "1d", "types.songs.ttl", DAY),
        ("MEMOLEO_TYPES__SONGS__TTL", "1d", "types.songs.ttl", DAY),
        ("MEMOLEO_INFERENCE__NUM_THREADS", "3", "inference.num_threads", 3),
        ("MEMOLEO_INFERENCE__TEMPERATURE_STAGE1", "0.5", "inference.temperature_stage1", 0.5),
        ("MEMOLEO_NETWORKING__TIMEOUT_READ", "2.5", "networking.timeout_read", 2.5),
        ("MEMOLEO_NETWORKING__RETRY_BACKOFF_MS", "1, 2", "networking.retry_backoff_ms", (1.0, 2.0)),
        ("MEMOLEO_NETWORKING__RETRY_BACKOFF_MS", "[3]", "networking.retry_backoff_ms", (3.0,)),
    ],
)
def test_environment(tmp_path: Path, name: str, value: str, key: str, expected: object) -> None:
    """Any value can be given by an environment variable, which is then its origin."""
    settings = load_settings(environ={name: value}, start=tmp_path)
    items = {key: (value, origin) for key, value, origin in settings.items()}
    assert items[key] == (expected, f"environment variable {name}")


def test_environment_goes_before_the_file(tmp_path: Path) -> None:
    """The environment changes one value of a file and leaves the others."""
    settings = from_toml(
        tmp_path,
        "enabled = false\n[caching]\nttl = 5\n[types.Emotion]\nttl = 6",
        MEMOLEO_ENABLED="1",
        MEMOLEO_TYPES__EMOTION__TTL="7",
    )
    assert (settings.enabled, settings.default_ttl, settings.types) == (True, 5.0, {"Emotion": 7.0})
    assert settings.origins["caching.ttl"] == str(tmp_path / "memoleo.toml")
    assert settings.origins["caching.enabled"] == "environment variable MEMOLEO_ENABLED"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MEMOLEO_ENABLED", "perhaps", "expected true or false, got 'perhaps'"),
        ("MEMOLEO_ENABELD", "0", "Did you mean MEMOLEO_ENABLED?"),
        ("MEMOLEO_CACHING__TLL", "1", "Did you mean caching.ttl?"),
        ("MEMOLEO_INFERENCE__NUM_THREADS", "six", "a whole number, 1 or more"),
        ("MEMOLEO_NETWORKING__RETRY_BACKOFF_MS", "a,b", "a list of milliseconds"),
        ("MEMOLEO_CACHING__TTL", "soon", "seconds, or text"),
        ("MEMOLEO_CACHING__TTL", "nan", "seconds, or text"),
    ],
)
def test_mistakes_in_the_environment(tmp_path: Path, name: str, value: str, says: str) -> None:
    """A mistake in the environment names the variable."""
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={name: value}, start=tmp_path)
    assert name in str(caught.value)
    assert says in str(caught.value)


def test_variables_of_others_and_empty_ones_are_left_alone(tmp_path: Path) -> None:
    """Names that are no settings belong to others, and an empty variable is an unset one."""
    environ = {"MEMOLEO_HOME": "x", "MEMO": "y", "MEMOLEO_ENABLED": "", "MEMOLEO_CONFIG": ""}
    assert load_settings(environ=environ, start=tmp_path) == Settings()


def test_relative_store_starts_from_its_file(tmp_path: Path) -> None:
    """A relative path means the same store from wherever the program is started."""
    settings = from_toml(tmp_path, "[caching]\nurl = 'sqlite:///data/c.db?max_bytes=1GiB'")
    expected = (tmp_path / "data" / "c.db").as_posix()
    assert settings.cache_url == f"sqlite:///{expected}?max_bytes=1GiB"


@pytest.mark.parametrize(
    "url",
    ["sqlite:////var/cache/a.db", "sqlite:///~/a.db", "memory://?max_entries=5", "sqlite:///"],
)
def test_other_urls_stay_as_they_are(tmp_path: Path, url: str) -> None:
    """Only a relative path is completed; what makes no sense is left for the cache to refuse."""
    assert from_toml(tmp_path, f"[caching]\nurl = '{url}'").cache_url == url


def test_folder_with_special_characters(tmp_path: Path) -> None:
    """A folder may be named with characters that mean something in a URL."""
    folder = tmp_path / ("50% off #1" if os.name == "nt" else "50% off #1?")
    settings = load_settings(
        write(folder, "memoleo.toml", "[caching]\nurl = 'sqlite:///a%20b.db'"), environ={}
    )
    assert settings.cache_url is not None
    path = unquote(urlsplit(settings.cache_url).path)[1:]
    assert Path(path) == folder / "a b.db"


def test_byte_order_mark(tmp_path: Path) -> None:
    """Editors on Windows may put a byte order mark first."""
    path = tmp_path / "memoleo.toml"
    path.write_text("[caching]\nttl = 4\n", encoding="utf-8-sig")
    assert load_settings(path, environ={}).default_ttl == 4.0


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder that is in use")
def test_deleted_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose working folder is gone runs with the settings that it finds elsewhere."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert load_settings(environ={"MEMOLEO_ENABLED": "0"}).enabled is False
    monkeypatch.chdir(tmp_path)
