"""Whether it is the homeserver that calls."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from aiohttp import web

from openmeet_appservice.errors import Forbidden, NotAuthenticated


class HomeserverTokens:
    """The hs_tokens that are valid: one, or two while they are being changed.

    Only digests are kept, and every one of them is compared in constant time, so that the time an answer
    takes says nothing about a token.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        if not all(tokens) or not tokens:
            raise ValueError("at least one hs_token is needed, and none may be empty")
        self._digests = tuple(_digest(token) for token in tokens)

    def check(self, request: web.Request) -> None:
        """Let the homeserver pass.

        The token is read from the header ``Authorization: Bearer``. Synapse repeats it as
        ``?access_token=`` when it is told to suit application services of old; then both have to be right
        (specification, *Application service API, authorization*). Alone in the URL, where proxies write it
        into their logs, it does not count.

        Raises
        ------
        NotAuthenticated
            There is no token.
        Forbidden
            There is a wrong one.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise NotAuthenticated("Send the hs_token as `Authorization: Bearer`.")
        given = [token]
        # Not `query_string`, which parses the URL.
        if "?" in request.raw_path:
            given += request.query.getall("access_token", ())
        verdicts = [self._is_valid(token) for token in given]
        if not all(verdicts):
            raise Forbidden("This is not the hs_token of this application service.")

    def _is_valid(self, token: str) -> bool:
        digest = _digest(token)
        # Not any(): it would stop at the first that fits.
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def _digest(token: str) -> bytes:
    # The quickest that nobody can turn back: it is made for every transaction.
    return hashlib.blake2b(token.encode(errors="surrogateescape"), digest_size=32).digest()
