"""Read by every Python that finds this folder on ``PYTHONPATH``, of whatever version.

It starts caching if that Python is the one that ``memoleo run`` started, takes the folder out of
``sys.path``, and gives way to the ``sitecustomize`` that it stands in front of, if there is one.
"""

import os
import sys

__all__ = []

if __name__ == "sitecustomize":
    _folder = os.path.dirname(os.path.abspath(__file__))
    _python = getattr(getattr(sys, "implementation", None), "cache_tag", None)
    try:
        if os.environ.get("MEMOLEO_RUN", "").split(":")[0] == _python:
            import _memoleo_run  # type: ignore[import-not-found]  # it lies beside this file

            _memoleo_run.start(os.environ["MEMOLEO_RUN"].split(":")[1])
    except Exception:  # the program runs without it
        pass
    sys.path[:] = [_path for _path in sys.path if os.path.abspath(_path) != _folder]
    sys.path_importer_cache.pop(_folder, None)
    # If there is no other one, the error that this raises is the one that Python expects then.
    del sys.modules["sitecustomize"]
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
