"""The enrichment worker: takes entries from a queue, enriches them, puts the results back.

    python worker.py --drain [--threads N]

It works until the queue is empty (or for ever without --drain). Nothing here knows of memoleo.
"""

import argparse
import json
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from src.modules.hybrid_scorer import HybridScorer
from src.modules.queue import command

SCORER = HybridScorer()


def process(job):
    """Return the result of one job."""
    from src.modules.post_enricher import PostEnricher

    result = SCORER.enrich(job["text"], job.get("history"), timestamp=job["timestamp"])
    return PostEnricher().run_post_enrichment(result)


def work(drain, poll):
    """Take jobs until there is none."""
    while True:
        raw = command("LPOP", "entries")
        if raw is None:
            if drain:
                return
            time.sleep(poll)
            continue
        job = json.loads(raw)
        result = process(job)
        result["id"] = job["id"]
        command("RPUSH", "results", json.dumps(result, sort_keys=True))
        print(f"[worker] {job['id']} is {result['status']}, {command('INCR', 'done')} done")


def main():
    """Run the worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drain", action="store_true", help="end when the queue is empty")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--poll", type=float, default=0.5, metavar="SECONDS")
    given = parser.parse_args()
    threads = [
        threading.Thread(target=work, args=(given.drain, given.poll))
        for _ in range(given.threads - 1)
    ]
    for thread in threads:
        thread.start()
    work(given.drain, given.poll)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
