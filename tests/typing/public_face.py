"""Fails if a name that users can import has a type that pyright can't tell.

``tox -e types`` runs it, where the built wheel is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys


def main() -> int:
    """Print the names with unknown types; 1 if there are any."""
    ran = subprocess.run(
        ["pyright", "--verifytypes", "memoleo", "--ignoreexternal", "--outputjson"],
        capture_output=True,
        text=True,
    )
    report = json.loads(ran.stdout)["typeCompleteness"]
    unknown = [
        symbol["name"]
        for symbol in report["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]
    ]
    counts = report["exportedSymbolCounts"]
    print(f"public names: {sum(counts.values())}, of unknown type: {counts['withUnknownType']}")
    for name in unknown:
        print(name)
    return 1 if counts["withUnknownType"] else 0


if __name__ == "__main__":
    sys.exit(main())
