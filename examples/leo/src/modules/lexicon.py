"""The wheel of emotions, and the words that candidates are made of."""

CORES = ["Happy", "Strong", "Peaceful", "Sad", "Angry", "Fearful"]
SHADES = ["bright", "quiet", "restless", "tender", "heavy", "sudden"]
SOURCES = ["work", "family", "health", "money", "friends", "solitude"]

# Sets on purpose: what is made of them has another order in each process, unless PYTHONHASHSEED
# is pinned.
DRIVERS = {"overwhelm", "loss of control", "conflict", "uncertainty", "hope", "belonging", "rest"}
EVENTS = {"deadline", "argument", "reunion", "long walk", "bad sleep", "good news", "rain", "music"}


def wheel():
    """Return 6 cores, 36 shades of them, and 216 sources of those."""
    seconds = [f"{shade} {core.lower()}" for core in CORES for shade in SHADES]
    thirds = [f"{second} because of {source}" for second in seconds for source in SOURCES]
    return CORES, seconds, thirds
