"""A dashboard, and the numbers for Prometheus: by itself, or in a program of one's own.

``memoleo serve`` serves it by itself.
"""

from __future__ import annotations

from memoleo.serve._mount import asgi_app, collector, metrics_json, metrics_text, wsgi_app

__all__ = ["asgi_app", "collector", "metrics_json", "metrics_text", "wsgi_app"]
