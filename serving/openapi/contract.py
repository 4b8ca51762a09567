"""The document of `/openapi.json` as one worker answers it: made when it is asked for, and again when another workspace
serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from features.workspace.workspace import Workspace
from serving.http.auth import Keys
from serving.http.routing import Route
from serving.openapi import document as openapi_document


class ContractDocument:
    """The document, kept as long as it is true.

    Args:
        workspace: returns what serves, or None.
        origins: whether pages of other origins may call.
    """

    def __init__(self, keys: Keys, workspace: Callable[[], Workspace | None], *, origins: bool) -> None:
        self._keys, self._workspace, self._origins = keys, workspace, origins
        self._kept: tuple[Workspace | None, bool, bytes] | None = None

    async def render(self, routes: Sequence[Route]) -> bytes:
        """Return the document of a route table as JSON. It is made in a thread: that takes longer than a decision may
        wait.
        """
        workspace, keys = self._workspace(), self._keys.configured
        kept = self._kept
        if kept is None or kept[0] is not workspace or kept[1] != keys:
            made = await asyncio.to_thread(openapi_document.render, routes, workspace, keys=keys, origins=self._origins)
            kept = self._kept = (workspace, keys, made)
        return kept[2]
