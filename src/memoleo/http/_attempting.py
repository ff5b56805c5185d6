"""A request that is sent again if need be, as `memoleo.retried` would, and counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter

import httpx

from memoleo._retries.attempts import Attempts, Tally
from memoleo._retries.flow import RetryPolicy
from memoleo.http._asked import failure_of, may_repeat
from memoleo.metrics._metrics import get_metrics

__all__ = ["attempt"]

_OPERATION = "http"
_tally = Tally(_OPERATION)


async def attempt(
    send: Callable[[], Awaitable[httpx.Response]],
    request: httpx.Request,
    policy: RetryPolicy,
    repeatable: bool | None,
) -> httpx.Response:
    """Send a request until it is answered, or has been sent often enough.

    Parameters
    ----------
    send
        sends it once
    request
        the request
    policy
        how often, and how far apart
    repeatable
        whether it does no harm to send it twice; `None` if that is to be seen from the request

    Returns
    -------
    httpx.Response
        the last answer, whatever its status, with the number of ``attempts`` in its extensions
    """
    operation = get_metrics().operation(_OPERATION)
    started = perf_counter()
    call = Attempts(policy, _tally)
    count = 0
    try:
        while True:
            count += 1
            call.begin()
            response: httpx.Response | None = None
            try:
                response = await send()
                error = failure_of(response)
                if error is None and call.taken:
                    call.succeeded()
                wait = None
                if error is not None and may_repeat(request, error, repeatable):
                    wait = call.wait(error)
            except Exception as error:
                wait = call.wait(error) if may_repeat(request, error, repeatable) else None
                if wait is None:
                    raise
            finally:
                call.end()
            if response is not None:
                if wait is None:
                    break
                await response.aclose()
            await call.pausing.apause(wait or 0.0)
    except Exception:
        operation.failed.record((perf_counter() - started) * 1000)
        raise
    operation.succeeded.record((perf_counter() - started) * 1000)
    response.extensions["attempts"] = count
    return response
