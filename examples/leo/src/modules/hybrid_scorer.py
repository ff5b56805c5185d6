"""Scores a diary entry: seven calls of a hosted inference router, three of Ollama.

Written the way such code is found: bare ``requests.post``, errors swallowed, fallbacks that look
like answers, state on the instance. Nothing here knows of memoleo.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time

import requests

LABELS = ["happy", "strong", "peaceful", "sad", "angry", "fearful"]


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TimeoutError after some seconds, where the system and the thread allow it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "SIGALRM"):
        yield
        return

    def expired(number, frame):
        raise TimeoutError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class HybridScorer:
    """Emotions of a text, by a router for the numbers and a local model for the words."""

    def __init__(self, hf_token=None, ollama_base_url=None, timeout=30, **options):
        self.hf_url = os.environ.get("HF_URL", "https://router.huggingface.co").rstrip("/")
        self.hf_token = hf_token or os.environ.get("HF_TOKEN", "")
        self.ollama_url = (
            ollama_base_url or os.environ.get("OLLAMA_BASE_URL", "http://localhost:11434")
        ).rstrip("/")
        self.model = options.get("model") or os.environ.get("OLLAMA_MODEL", "phi3:latest")
        self.timeout = timeout
        self.ollama_available = True
        self.last_error = None
        self.calls = 0
        self.lock = threading.Lock()

    # The calls.

    def _headers(self):
        return {"Authorization": f"Bearer {self.hf_token}", "Content-Type": "application/json"}

    def _hf_zero_shot(self, text):
        """Return a score per label; the same for all of them if something goes wrong."""
        self._count()
        try:
            with time_limit(self.timeout):
                response = requests.post(
                    f"{self.hf_url}/hf-inference/models/facebook/bart-large-mnli",
                    headers=self._headers(),
                    json={
                        "inputs": text,
                        "parameters": {"candidate_labels": LABELS, "multi_label": True},
                    },
                    timeout=self.timeout,
                )
            if response.status_code == 503:
                print("[router] the model is loading")
                raise RuntimeError("503")
            response.raise_for_status()
            data = response.json()
            labels, scores = data.pop("labels"), data.pop("scores")
            return dict(zip(labels, scores, strict=True))
        except Exception as error:
            print(f"[router] zero-shot failed: {type(error).__name__}")
            self.last_error = str(error)
            return {label: 1 / len(LABELS) for label in LABELS}

    def _hf_similarity(self, text, sentences, depth=0):
        """Return a number per sentence. A failure is tried again with both halves."""
        self._count()
        try:
            response = requests.post(
                f"{self.hf_url}/hf-inference/models/sentence-transformers/all-MiniLM-L6-v2"
                "/pipeline/sentence-similarity",
                headers=self._headers(),
                data=json.dumps(
                    {"inputs": {"source_sentence": text, "sentences": list(sentences)}}
                ),
                timeout=(5, self.timeout),
            )
            if response.status_code != 200:
                raise RuntimeError(f"HTTP {response.status_code}")
            scores = response.json()
            if not isinstance(scores, list):
                raise ValueError("no list")
            return scores
        except Exception as error:
            self.last_error = str(error)
            if len(sentences) == 1 or depth > 8:
                return [0.0] * len(sentences)
            middle = len(sentences) // 2
            first = self._hf_similarity(text, sentences[:middle], depth + 1)
            return first + self._hf_similarity(text, sentences[middle:], depth + 1)

    def _ollama(self, prompt, temperature, tokens, **fields):
        """Return the model's words, or None."""
        self._count()
        if not self.ollama_available:
            return None
        try:
            response = requests.post(
                self.ollama_url + "/api/generate",
                json={
                    "model": self.model,
                    "prompt": prompt,
                    "stream": False,
                    "options": {"temperature": temperature, "num_predict": tokens},
                    **fields,
                },
                timeout=self.timeout,
            )
            if response.status_code == 200:
                print(f"[ollama] {response.elapsed.total_seconds():.3f} s")
                return response.json().get("response", "").strip()
            print(f"[ollama] {response.status_code}: {response.text[:80]}")
        except Exception as error:
            print(f"[ollama] {type(error).__name__}")
            self.last_error = str(error)
            self.ollama_available = False
        return None

    def _count(self):
        with self.lock:
            self.calls += 1

    # What is made of them.

    def _best(self, text, names):
        scores = self._hf_similarity(text, names)
        pairs = sorted(zip(scores, names, strict=True), reverse=True)
        scores.sort(reverse=True)  # it is nobody else's list, as far as this code knows
        return pairs[0][1], round(float(scores[0]), 6)

    def enrich(self, text, history=None, timestamp=None):
        """Return everything about a text, and the time that was given."""
        started = time.perf_counter()
        sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
        from src.modules.lexicon import DRIVERS, EVENTS, wheel

        cores, seconds, thirds = wheel()
        emotions = self._hf_zero_shot(text)
        primary, strength = self._best(text, cores)
        secondary, _ = self._best(text, seconds)
        tertiary, _ = self._best(text, thirds)
        driver, control = self._best(text, list(DRIVERS))
        event, _ = self._best(text, list(EVENTS))
        past = [entry["text"] for entry in (history or [])][-5:] or ["nothing yet"]
        similar = self._hf_similarity(text, [*past, "an ordinary day"])

        language = self._ollama(f"Name the language of: {text}", 0, 4) or "unknown"
        negated = self._ollama(f"Is this negated, yes or no: {text}", 0.0, 4) or "no"
        themes = ", ".join({primary.lower(), driver, event})
        summary = self._ollama(
            f"Themes: {themes}. Describe in one line how the writer feels: {text}", 0.1, 24
        )
        emotions["mixed"] = max(emotions.values()) < 0.5
        print(f"[scorer] {self.calls} calls, {time.perf_counter() - started:.3f} s")
        return {
            "text": text,
            "timestamp": timestamp,
            "emotions": emotions,
            "wheel": [primary, secondary, tertiary],
            "strength": strength,
            "driver": driver,
            "control": control,
            "event": event,
            "familiar": round(float(max(similar)), 6),
            "language": language,
            "negated": negated.lower().startswith("yes"),
            "summary": summary or f"Someone feels {primary.lower()}.",
            "complete": summary is not None,
        }
