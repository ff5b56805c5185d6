"""A function over many inputs: each once, in order, and on where a run stopped."""

import memoleo

calls = []


def caption(path: str) -> str:
    calls.append(path)
    if path == "dog.jpg" and len(calls) == 2:
        raise ConnectionError("the model is gone")
    return f"a picture of a {path.removesuffix('.jpg')}"


pictures = ["cat.jpg", "dog.jpg", "cat.jpg", "owl.jpg"]
options = {"type": "image_captions", "ttl": "30d", "concurrency": 1}

try:
    memoleo.map(caption, pictures, **options)
except ConnectionError as error:
    print("stopped:", error)

captions = memoleo.map(caption, pictures, **options)
print(captions)
print("calls:", calls)  # the first picture was there already
assert calls == ["cat.jpg", "dog.jpg", "dog.jpg", "owl.jpg"]
