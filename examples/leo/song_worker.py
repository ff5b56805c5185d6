"""The song worker: for each result in the queue a few songs, one of which is played."""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from src.modules.queue import command
from src.modules.song_picker import pick, played


def main():
    """Work until there is no result left."""
    while (raw := command("LPOP", "results")) is not None:
        result = json.loads(raw)
        songs = pick(result["wheel"][0].lower())
        if songs:
            played(songs[0]["title"])
        command("RPUSH", "songs", json.dumps({"id": result["id"], "songs": songs}))
        print(f"[songs] {result['id']}: {len(songs)}")


if __name__ == "__main__":
    main()
