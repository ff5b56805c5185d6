"""Finding and reading the file that settings come from."""

from __future__ import annotations

import os
import sys
from typing import Any

from memoleo.errors import ConfigError

__all__ = ["DATABASE", "anchored", "find_file", "project_folder", "read_file", "sqlite_url"]

DATABASE = "memoleo.db"

SECTIONS = frozenset({"inference", "caching", "networking", "workers", "ollama"})
NAMES = ("memoleo.toml", "pyproject.toml", os.path.join("config", "perf_config.json"))


def find_file(start: str) -> tuple[str, dict[str, Any]] | None:
    """Return the nearest file with settings, from `start` upward, and what it says.

    A ``pyproject.toml`` without ``[tool.memoleo]``, and a ``perf_config.json`` that has none of
    the known sections, belong to others and are passed over.
    """
    folder = os.path.abspath(start)
    while True:
        for name in NAMES:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                table = _read(path, searching=True)
                if table is not None:
                    return path, table
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def read_file(path: str) -> dict[str, Any]:
    """Return what the settings file `path` says.

    Raises
    ------
    ConfigError
        it can't be read, or is not a settings file
    """
    table = _read(os.path.abspath(path), searching=False)
    if table is None:
        raise ConfigError(f"{path}: there is no table [tool.memoleo] in this file")
    return table


def project_folder(path: str) -> str:
    """Return the folder that relative paths in the settings file `path` start from."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.basename(path) == "perf_config.json" and os.path.basename(folder) == "config":
        return os.path.dirname(folder)
    return folder


def sqlite_url(path: str) -> str:
    """Return the URL of the cache in the file `path`."""
    from urllib.parse import quote

    return "sqlite:///" + quote(os.path.normpath(path).replace(os.sep, "/"), safe="/:~")


def anchored(url: str, folder: str) -> str:
    """Return `url` with a relative path of a SQLite file made absolute, from `folder`."""
    from urllib.parse import unquote

    scheme = "sqlite:///"
    if not url.startswith(scheme):
        return url
    quoted, mark, query = url.removeprefix(scheme).partition("?")
    path = unquote(quoted)
    if not path or path.startswith("~") or os.path.isabs(path):
        return url
    return sqlite_url(os.path.join(folder, path)) + mark + query


def _read(path: str, *, searching: bool) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: the settings can't be read: {reason}") from None
    if path.endswith(".json"):
        table = _parse_json(path, text)
        return None if searching and not SECTIONS & table.keys() else table
    if not path.endswith(".toml"):
        raise ConfigError(f"{path}: expected a file that ends in .toml or .json")
    if os.path.basename(path) != "pyproject.toml":
        return _parse_toml(path, text)
    if searching and "memoleo" not in text:
        return None
    tool = _parse_toml(path, text).get("tool")
    section = tool.get("memoleo") if isinstance(tool, dict) else None
    if section is not None and not isinstance(section, dict):
        raise ConfigError(f"{path}: tool.memoleo: expected a table")
    return section


def _parse_json(path: str, text: str) -> dict[str, Any]:
    import json

    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: this is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError(f'{path}: expected an object with sections such as {{"caching": …}}')
    return table


def _parse_toml(path: str, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        table: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: this is not TOML: {error}") from None
    return table
