"""Asks the song service what fits a mood, and tells it what was played."""

import os

import requests

session = requests.Session()
session.headers["User-Agent"] = "leo/1.0"


def pick(mood, language="en"):
    """Return the songs for a mood; an empty list if the service doesn't answer."""
    base = os.environ.get("SONG_URL", "http://localhost:5001")
    try:
        response = session.get(
            f"{base}/recommend", params={"mood": mood, "language": language}, timeout=10
        )
        response.raise_for_status()
        songs = response.json()["songs"]
        songs.sort(key=lambda song: song["title"])
        return songs
    except (requests.RequestException, ValueError, KeyError) as error:
        print(f"[songs] {type(error).__name__}")
        return []


def played(title):
    """Tell the service; it counts, so this must reach it every time."""
    base = os.environ.get("SONG_URL", "http://localhost:5001")
    session.post(f"{base}/played", json={"title": title}, timeout=10)
