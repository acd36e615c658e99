"""What all groups of homeserver calls share: the client, and looking into an answer's shape."""

from __future__ import annotations

from typing import Any, TypeVar

from openmeet_appservice.errors import HomeserverRefused, HomeserverUnreachable
from openmeet_appservice.homeserver.client import MatrixApi

JsonObject = dict[str, Any]
_T = TypeVar("_T")


class Calls:
    """A group of calls through *api*."""

    def __init__(self, api: MatrixApi) -> None:
        self._api = api


def member(answer: Any, key: str, kind: type[_T]) -> _T:
    """Return ``answer[key]``, which must be a *kind*.

    Raises
    ------
    HomeserverUnreachable
        It is not there or something else: what answered is no Matrix homeserver, or not quite.
    """
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, kind):
        raise HomeserverUnreachable(f"the answer holds no usable `{key}`")
    return value


def is_not_found(error: HomeserverRefused) -> bool:
    """Tell whether the homeserver itself says that there is no such thing.

    A proxy's 404 carries no ``M_NOT_FOUND``, and some refusals carry that code with another status.
    """
    return error.status == 404 and error.errcode == "M_NOT_FOUND"
