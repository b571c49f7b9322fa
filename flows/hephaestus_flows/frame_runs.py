"""Flow runs of ``build-frame``, one for each frame: workers of its work pool take them, on any machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import sanitize_text

_DEPLOYMENT = "build-frame/build-frame"


def create_frame_runs(frames: Iterable[Frame], parameters: Mapping[str, Any], key: str) -> int:
    """Create a run of the deployment ``build-frame`` for each frame, in their order; return how many.

    Parameters
    ----------
    frames : iterable of Frame
        The frames.
    parameters : mapping
        Further parameters of all runs, those that are not None.
    key : str
        Of this order: repeated with the same key, it creates no second run of a frame.

    Raises
    ------
    HephaestusError
        If there is no such deployment, or the server refuses a run.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    count = 0
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(_DEPLOYMENT)
        except ObjectNotFound:
            raise HephaestusError(
                f"there is no deployment {_DEPLOYMENT}: `prefect --no-prompt deploy --all` makes it"
            ) from None
        for count, frame in enumerate(frames, 1):  # noqa: B007
            try:
                client.create_flow_run_from_deployment(
                    deployment.id,
                    parameters={"frame": frame.id, **given},
                    idempotency_key=f"{key}-{frame.id}",
                )
            except PrefectHTTPStatusError as error:  # a folder that the deployment does not take, say
                raise HephaestusError(
                    f"{frame}: the server creates no run of {_DEPLOYMENT} ({sanitize_text(error, 300)})"
                ) from error
    return count
