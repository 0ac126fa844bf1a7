"""One question to a chat endpoint over HTTP, with patience that ends.

Knows the OpenAI-compatible protocol, time limits, retries, rate limits, and where the key comes from. Knows nothing
about what is asked.

The key is read from an environment variable at each call and goes into one header; it is kept nowhere, is sent
unencrypted to this machine only, follows no redirect, and is struck out of whatever the server says.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from steerlib.judges.base import JudgeError

#: More than this is no answer to a question, in bytes.
LARGEST_REPLY = 2**20
_HERE = ("localhost", "127.0.0.1", "::1")
#: Reasons to try again: too early, too fast, or broken on the other side.
_TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
#: Reasons to leave this one question, and no other.
_THIS_ONE = (400, 413, 422)


@dataclass(frozen=True)
class Reply:
    """What an endpoint said.

    Attributes:
        text: None where it said nothing, such as for a filtered question.
        finish: why it stopped.
        model: which model it says it is.
    """

    text: str | None
    finish: str
    model: str


class NoReplyError(Exception):
    """No usable reply to this question; the message is why. `broken` says that the endpoint is at fault."""

    def __init__(self, why: str, *, broken: bool = False) -> None:
        super().__init__(why)
        self.broken = broken


class _PassingError(Exception):
    """A failure that may pass; `wait` is how many seconds the server asks for."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Go nowhere: a redirect would take the key along."""


@dataclass(frozen=True)
class Patience:
    """When to wait, and when to stop waiting.

    Attributes:
        timeout: seconds for one attempt.
        attempts: of one question.
        longest_wait: seconds between two attempts; a server that asks for more is left.
        per_minute: most requests in a minute, None for no limit.
    """

    timeout: float = 60.0
    attempts: int = 5
    longest_wait: float = 60.0
    per_minute: float | None = None

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        limited = self.per_minute is None or self.per_minute > 0
        if not (self.timeout > 0 and self.attempts >= 1 and self.longest_wait >= 0 and limited):
            raise JudgeError(
                f"got {self}; expected a timeout above 0, at least 1 attempt, a wait of at least 0, and a rate above 0."
            )


class Endpoint:
    """A chat endpoint.

    Args:
        url: base address, such as "https://api.openai.com/v1", without key or query.
        key_variable: environment variable that holds the key; None for an endpoint that needs none.
        patience: time limits.
        sleep: how to wait; for tests.

    Raises:
        JudgeError: if the address is none, holds a secret, or would send a key in the clear over a network.
    """

    def __init__(
        self,
        url: str,
        *,
        key_variable: str | None,
        patience: Patience,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise JudgeError(f"endpoint: got {url!r}, expected an address such as https://api.openai.com/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise JudgeError(
                f"endpoint: the address of {parts.hostname} holds a user, a query or a fragment, which would be "
                "recorded. Fix: give the base address alone, and the key in an environment variable."
            )
        if parts.scheme == "http" and key_variable and parts.hostname not in _HERE:
            raise JudgeError(f"endpoint: {parts.hostname} would get the key unencrypted. Fix: https, or no key.")
        self.url, self.key_variable, self.patience = url.rstrip("/"), key_variable, patience
        self._sleep = sleep
        self._turn, self._next = threading.Lock(), 0.0
        self._opener = urllib.request.build_opener(_Stay)

    @property
    def has_key(self) -> bool:
        """Whether a question can be asked."""
        return self.key_variable is None or bool(os.environ.get(self.key_variable))

    def ask(self, body: dict[str, Any]) -> Reply:
        """Put one question.

        Raises:
            NoReplyError: if there is no usable reply to this question.
            JudgeError: if there would be none to any other, such as for a wrong key.
        """
        backoff = wait_random_exponential(multiplier=0.5, max=self.patience.longest_wait)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, _PassingError) else None
            return backoff(state) if asked is None else asked

        retrying = Retrying(
            stop=stop_after_attempt(self.patience.attempts), wait=wait, sleep=self._sleep, reraise=True,
            retry=retry_if_exception_type(_PassingError),
        )  # fmt: skip
        try:
            return retrying(self._once, body)
        except _PassingError as error:
            raise NoReplyError(str(error), broken=True) from None

    def _once(self, body: dict[str, Any]) -> Reply:
        self._wait_turn()
        key = os.environ.get(self.key_variable, "") if self.key_variable else ""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.url}/chat/completions", data=json.dumps(body).encode(), headers=headers, method="POST"
        )
        try:
            said = self._read(request)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, key) from None
        except TimeoutError:
            raise _PassingError("timed out") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _PassingError("timed out") from None
            raise _PassingError(f"cannot be reached: {error.reason}") from None
        except (OSError, HTTPException) as error:
            raise _PassingError(f"broke off: {type(error).__name__}") from None
        return _reply(said.replace(key, "[key]") if key else said)

    def _read(self, request: urllib.request.Request) -> str:
        """The body of a reply, within the time and size that one may take."""
        end = time.monotonic() + self.patience.timeout
        chunks, size = [], 0
        with self._opener.open(request, timeout=self.patience.timeout) as response:
            # A time limit of a socket is for one piece: a server that drips would never meet it.
            while chunk := response.read1(65536):
                chunks.append(chunk)
                size += len(chunk)
                if time.monotonic() > end:
                    raise TimeoutError
                if size > LARGEST_REPLY:
                    raise _PassingError(f"more than {LARGEST_REPLY} bytes")
            if response.length:  # read1 does not say that a reply ended before the length it named
                raise _PassingError("broke off: fewer bytes than it named")
        return b"".join(chunks).decode("utf-8", errors="replace")

    def _wait_turn(self) -> None:
        if self.patience.per_minute is None:
            return
        with self._turn:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + 60.0 / self.patience.per_minute
        if turn > now:
            self._sleep(turn - now)

    def _refusal(self, error: urllib.error.HTTPError, key: str) -> Exception:
        code = error.code
        if code in _TRY_AGAIN:
            wait = _seconds(error.headers.get("Retry-After"))
            if wait is not None and wait > self.patience.longest_wait:
                return NoReplyError(f"status {code}, asks to wait {wait:.0f} s", broken=True)
            return _PassingError(f"status {code}", wait)
        if code in _THIS_ONE:
            return NoReplyError(f"refused with status {code}")
        try:
            said = error.read(300).decode("utf-8", errors="replace")
        except OSError:
            said = ""
        fix = {401: f"the key in {self.key_variable}", 403: f"the key in {self.key_variable}"}.get(code, "the address")
        return JudgeError(
            f"endpoint {self.url}: status {code}. Fix: check {fix}. It says: "
            f"{said.replace(key, '[key]') if key else said}"
        )


def _seconds(retry_after: str | None) -> float | None:
    """The wait that a server asks for, given in seconds or as a date."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _reply(text: str) -> Reply:
    """The first choice of a completion; anything else is a broken endpoint, which may recover."""
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        said = choice["message"].get("content")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _PassingError("the reply is no chat completion") from None
    if said is not None and not isinstance(said, str):
        raise _PassingError("the reply is no chat completion")
    return Reply(said, str(choice.get("finish_reason") or ""), str(body.get("model") or ""))
