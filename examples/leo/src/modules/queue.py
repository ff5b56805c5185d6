"""A queue behind a Redis that speaks REST: every command is a POST to one bare URL."""

import os

import requests


def command(*words):
    """Send a command, return its result."""
    response = requests.post(
        os.environ.get("REDIS_REST_URL", "http://localhost:8079"),
        headers={"Authorization": f"Bearer {os.environ.get('REDIS_REST_TOKEN', '')}"},
        json=list(words),
        timeout=10,
    )
    response.raise_for_status()
    return response.json()["result"]
