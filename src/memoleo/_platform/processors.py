"""How many cores there are to work on."""

from __future__ import annotations

import os
import sys

__all__ = ["performance_cores", "physical_cores"]


def physical_cores() -> int:
    """Return the number of cores that this process may use, hyper-threads not counted twice."""
    usable = _usable_processors()
    if sys.platform == "linux":
        cores = set()
        for number in usable:
            folder = f"/sys/devices/system/cpu/cpu{number}/topology"
            try:
                with (
                    open(f"{folder}/physical_package_id") as package,
                    open(f"{folder}/core_id") as core,
                ):
                    cores.add((package.read(), core.read()))
            except OSError:
                return max(1, len(usable))
        return max(1, len(cores))
    if sys.platform == "darwin":
        return _ask_sysctl("hw.physicalcpu") or len(usable)
    return len(usable)


def performance_cores() -> int:
    """Return how many of `physical_cores` are fast ones; all, where there is one kind only."""
    cores = physical_cores()
    if sys.platform == "darwin":
        return _ask_sysctl("hw.perflevel0.physicalcpu") or cores
    if sys.platform == "linux":
        speeds: dict[tuple[str, str], int] = {}
        for number in _usable_processors():
            folder = f"/sys/devices/system/cpu/cpu{number}"
            core = (_read(f"{folder}/topology/physical_package_id"),
                    _read(f"{folder}/topology/core_id"))  # fmt: skip
            # Arm says what a core can do, others how fast it runs at most.
            for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
                if (speed := _read(f"{folder}/{name}")).isdigit():
                    speeds[core] = int(speed)
                    break
        fastest = max(speeds.values(), default=0)
        # Cores of one kind differ by a little; slow ones reach some two thirds of the fast.
        fast = sum(speed > 0.8 * fastest for speed in speeds.values())
        return fast if len(speeds) == cores else cores
    return cores


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _usable_processors() -> set[int]:
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _ask_sysctl(name: str) -> int | None:
    import subprocess

    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=True, timeout=2
        )
        return int(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
