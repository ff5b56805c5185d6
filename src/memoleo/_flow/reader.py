"""The lookup on the hot path: a fresh entry at hand, decoded and counted, and nothing else.

A lookup is text that takes the key from ``$key``, and either returns the value, counted as a hit,
or leaves a `Missed` in ``$missed``. It decides nothing that the flow wouldn't: only the plainest
case ends here, and every doubt is left to the flow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memoleo._entry import Entry
from memoleo._flow.store import Job, Store
from memoleo._functions.compiled import POSITIONAL, Fragment, Parameter, compile_function, nested
from memoleo._platform.interrupts import pass_on
from memoleo.backends.memory import MemoryBackend
from memoleo.backends.tiered import TieredBackend
from memoleo.codecs._auto import ESCAPE, AutoCodec
from memoleo.codecs._plain import decode_plain

__all__ = [
    "IN_A_ROW",
    "NOTHING",
    "NOT_LOOKED",
    "Missed",
    "Streak",
    "count_miss",
    "memory_lookup",
    "no_lookup",
    "reader",
    "store_lookup",
]


class Missed:
    """What a lookup found out when the call has to take the long way.

    Parameters
    ----------
    looked
        whether the store was asked
    entry
        what it held
    error
        what it failed with
    """

    __slots__ = ("entry", "error", "looked")

    def __init__(
        self, looked: bool, entry: Entry | None = None, error: Exception | None = None
    ) -> None:
        self.looked = looked
        self.entry = entry
        self.error = error


NOT_LOOKED = Missed(False)
NOTHING = Missed(True)


class Streak:
    """How many misses of one function came in a row.

    Whoever computes a key looks once more after taking the lead. In a long row of misses, as when
    many inputs are new, that look is the first one too: an earlier one would be in vain, and
    costs as much as a sixth of a miss.

    Attributes
    ----------
    misses
        how many there were since the last hit
    hits
        how many hits the thread of the latest miss had counted then
    """

    __slots__ = ("hits", "misses")

    def __init__(self) -> None:
        self.misses = 0
        self.hits = 0


IN_A_ROW = "$streak.misses > 16"
"""Whether calls are answered without a lookup; only `store_lookup` has the name for it."""

_COUNT = f"""\
$hits = $local.cell.hits
$streak.misses = $streak.misses + 1 if $hits == $streak.hits else 0
$streak.hits = $hits
if {IN_A_ROW}:
 $missed = $NOTHING"""

_PLAIN = f"$plain($payload) if $payload[0] != {ESCAPE} else $decode($payload)"

_SERVE = """\
$cell = $local.cell
$cell.hits += 1
$cell.saved_ms += $entry.cost_ms
$cell.bytes_served += $len($payload)
if $entry.tokens:
 $cell.tokens_saved += $entry.tokens
return $value"""

_MEMORY = """\
$missed = $NOT_LOOKED
$entry = $find($key)
if $entry is not None and $entry.codec == $codec:
 $now = $clock()
 if 0.0 <= $now - $entry.created < $ttl{in_step}:
  try:
   $payload = $entry.payload
   $value = {decode}
  except $Exception as $error:
   $pass_on($error)
  else:
   $touch($key)
{serve}"""

_STORE = """\
$missed = $NOT_LOOKED
if not {in_a_row} and not $reads.failing:
 try:
  $entry = $find($key)
 except $Exception as $error:
  $missed = $Missed(True, None, $error)
 else:
  $missed = $NOTHING
  if $entry is not None:
   if $entry.codec == $codec and 0.0 <= $clock() - $entry.created < $ttl:
    try:
     $payload = $entry.payload
     $value = {decode}
    except $Exception as $error:
     $pass_on($error)
    else:
{serve}
   $missed = $Missed(True, $entry)"""


def count_miss(job: Job, streak: Streak) -> Fragment:
    """Return what counts a call that was no hit, and spares it a look in a long row of misses."""
    if job.policy.keep:
        # What is stale must be found before there is a lead.
        return Fragment("", {})
    return Fragment(_COUNT, {"streak": streak, "local": job.counters.local, "NOTHING": NOTHING})


def no_lookup() -> Fragment:
    """Return the lookup of calls that have no hot path."""
    return Fragment("$missed = $NOT_LOOKED", {"NOT_LOOKED": NOT_LOOKED})


def store_lookup(store: Store, job: Job, streak: Streak) -> Fragment:
    """Return the lookup in a store that answers at once.

    Parameters
    ----------
    store
        where entries are looked up
    job
        any call of the function, for what all its calls have in common
    streak
        the function's misses in a row: in a long one nothing is looked up
    """
    names = {
        "find": store.find,
        "reads": store.reads,
        "clock": store.clock,
        "Missed": Missed,
        "NOTHING": NOTHING,
        "streak": streak,
    }
    return _lookup(_STORE, 5, job, names, in_a_row=f"({IN_A_ROW})")


def memory_lookup(
    memory: MemoryBackend,
    tier: TieredBackend | None,
    job: Job,
    clock: Callable[[], float],
) -> Fragment:
    """Return the lookup in the memory of one cache.

    Parameters
    ----------
    memory
        where entries are looked up
    tier
        the store that `memory` stands in front of: now and then it is asked whether another
        process removed something
    job
        any call of the function, for what all its calls have in common
    clock
        the time in seconds since the epoch
    """
    names = {
        "find": memory.live.get,
        "touch": memory.touched.append,
        "clock": clock,
        "tier": tier,
    }
    in_step = "" if tier is None else " and $tier.last_sync <= $now < $tier.next_sync"
    return _lookup(_MEMORY, 3, job, names, in_step=in_step)


def _lookup(lines: str, depth: int, job: Job, names: dict[str, Any], **more: str) -> Fragment:
    quick = type(job.codec) is AutoCodec
    text = lines.format(
        decode=_PLAIN if quick else "$decode($payload)", serve=nested(_SERVE, depth), **more
    )
    common = {
        "ttl": job.freshness.ttl,
        "codec": job.codec.name,
        "decode": job.codec.decode,
        "plain": decode_plain,
        "local": job.counters.local,
        "NOT_LOOKED": NOT_LOOKED,
        "Exception": Exception,
        "pass_on": pass_on,
        "len": len,
    }
    return Fragment(text, {**names, **common})


def reader(lookup: Fragment) -> Callable[[bytes], Any]:
    """Return a lookup as a function of the key, which returns the value or a `Missed`."""
    lines = lookup.lines.replace("$key", "key")
    fragments = Fragment(lines, lookup.names), Fragment("return $missed", {})
    return compile_function([Parameter("key", POSITIONAL)], *fragments)
