"""Methods of a class that nobody edits, cached where they stand, and put back."""

import memoleo


class HybridScorer:
    def __init__(self) -> None:
        self.calls = 0

    def enrich(self, text: str, timestamp: float) -> dict[str, object]:
        return {"mood": self._hf_mood(text), "at": timestamp}

    def _hf_mood(self, text: str) -> str:
        self.calls += 1  # what an instance counts is no part of the question
        return "curious" if text.endswith("?") else "calm"


before = vars(HybridScorer)["_hf_mood"]
mood = {"path": f"{__name__}:HybridScorer._hf_*", "type": "emotion_scoring", "state": None}

with memoleo.enable(targets=[mood], cache="memory://"):
    scorer = HybridScorer()
    for timestamp in (1.0, 2.0, 3.0):
        print(scorer.enrich("why?", timestamp))
    print("asked the model:", scorer.calls, "time")

print("as before:", vars(HybridScorer)["_hf_mood"] is before)
