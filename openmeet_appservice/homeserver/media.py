"""Calls about media."""

from __future__ import annotations

from mautrix.api import MediaPath, Method

from openmeet_appservice.homeserver.calls import Calls, member


class MediaCalls(Calls):
    """Pictures and other files."""

    async def upload(self, content: bytes, media_type: str) -> str:
        """Have the bot upload *content* and return its ``mxc://`` URI.

        Never repeated by itself: each success makes another file.

        Raises
        ------
        HomeserverRefused
            Such as 413 ``M_TOO_LARGE`` above Synapse's ``max_upload_size``.
        """
        answer = await self._api.call(
            "upload",
            Method.POST,
            MediaPath.v3.upload,
            body=content,
            media_type=media_type,
            repeatable=False,
        )
        return member(answer, "content_uri", str)
