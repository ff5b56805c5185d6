"""Adds a poem and tips to an enriched entry: two calls of Ollama, as creative as they come."""

import os

import requests

FALLBACK = {"poem": "The day was long,\nthe night is kind.", "tips": ["Take a walk."]}


class PostEnricher:
    """Writes for the person behind an entry."""

    def __init__(self, ollama_base_url=None, model=None):
        base = ollama_base_url or os.environ.get("OLLAMA_BASE_URL", "http://localhost:11434")
        self.url = base.rstrip("/") + "/api/generate"
        self.model = model or os.environ.get("OLLAMA_MODEL", "phi3:latest")
        self.failures = 0

    def _write(self, prompt, tokens):
        try:
            response = requests.request(
                "POST",
                self.url,
                json={
                    "model": self.model,
                    "prompt": prompt,
                    "stream": False,
                    "options": {"temperature": 0.8, "num_predict": tokens},
                },
                timeout=60,
            )
            response.raise_for_status()
            answer = response.json()
            answer.pop("context", None)
            return answer["response"]
        except Exception as error:
            self.failures += 1
            print(f"[post] {type(error).__name__}")
            return ""

    def run_post_enrichment(self, result):
        """Put a poem and tips into the result, and return it."""
        mood = " and ".join(sorted({word.split()[0] for word in result["wheel"]}))
        poem = self._write(f"Two lines for someone who feels {mood}: {result['text']}", 32)
        tips = self._write(f"Two short tips against {result['driver']}: {result['text']}", 32)
        result["poem"] = poem.strip() or FALLBACK["poem"]
        lines = [line.strip("-• ") for line in tips.splitlines() if line.strip()]
        result["tips"] = lines or list(FALLBACK["tips"])
        result["status"] = "done" if poem and tips else "partial"
        return result
