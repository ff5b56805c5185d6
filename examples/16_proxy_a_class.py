"""A stand-in for a class: a real subclass that is cached and timed; the class is left alone."""

import time

import memoleo


class HybridScorer:
    def score(self, text: str) -> dict[str, float]:
        time.sleep(0.05)  # stands for a model
        return {"calm": len(text) / 10}


options = {"type": "emotion_scoring", "ttl": "30d", "timed": "stage1"}
Scorer = memoleo.proxy(HybridScorer, methods={"score": options}, cache="memory://")

scorer = Scorer()
for _ in range(5):
    scores = scorer.score("why?")

print(scores, isinstance(scorer, HybridScorer))
stage = memoleo.get_metrics().get_stats()["stage1"]
print(
    f"{stage['count']} calls, the slowest {stage['max_ms']:.0f} ms, most {stage['p50_ms']:.1f} ms"
)
