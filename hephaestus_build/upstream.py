"""Which products have changed in the archive since they were fetched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from hephaestus_build.cube.contents import Contents
from hephaestus_build.cube.files import write_json
from hephaestus_build.cube.generation import Shelf
from hephaestus_build.errors import HephaestusError
from hephaestus_build.frames import Frame
from hephaestus_build.parallel import side_by_side
from hephaestus_build.progress import Listener
from hephaestus_build.settings import Settings
from hephaestus_build.sources.http import Client, Page
from hephaestus_build.sources.receipt import Outcome, Receipt
from hephaestus_build.status import UPSTREAM


@dataclass(frozen=True)
class Change:
    """A product that is no longer upstream as it was fetched.

    Attributes
    ----------
    unit : str
        Whose product it is.
    product : str
        Its name.
    what : str
        In words.
    """

    unit: str
    product: str
    what: str

    def __str__(self) -> str:
        return f"{self.product}: {self.what}"


def difference(receipt: Receipt, page: Page) -> str:
    """Return how what upstream says now differs from what was fetched; nothing where it does not."""
    if page.outcome is Outcome.ABSENT:
        return "gone upstream"
    if not page.ok:
        return f"upstream cannot be asked ({page.outcome}: {page.detail})"
    now = {
        "size": page.headers.get("Content-Length"),
        "etag": page.etag,
        "last modified": page.last_modified,
    }
    then = {
        "size": str(receipt.size) if receipt.size is not None else None,
        "etag": receipt.etag,
        "last modified": receipt.last_modified,
    }
    changed = [name for name, value in now.items() if value and then[name] and value != then[name]]
    details = ", ".join(f"{name} {then[name]} -> {now[name]}" for name in changed)
    return f"changed upstream: {details}" if changed else ""


def licsar_products(contents: Contents) -> Iterable[tuple[str, Receipt]]:
    """Yield (unit, receipt) for every LiCSAR product that is in the cube."""
    for key, unit in sorted(contents.units.items()):
        if unit.kind in ("pair", "dem"):
            yield from ((key, receipt) for receipt in unit.receipts if receipt.ok and receipt.url)


def check_upstream(frame: Frame, settings: Settings, listener: Listener) -> list[Change]:
    """Ask the archive about every product in a frame's cube, and remember what it said for ``status``.

    Raises
    ------
    HephaestusError
        If there is no cube.
    """
    shelf = Shelf(settings.cubes_dir, frame)
    current = shelf.current()
    if current is None:
        raise HephaestusError(f"{frame}: there is no cube to compare; `hephaestus build {frame}` builds it")
    products = list(licsar_products(current.contents()))
    changes: list[Change] = []
    with Client(settings) as client:

        def ask(item: tuple[str, Receipt]) -> None:
            unit, receipt = item
            if what := difference(receipt, client.head(receipt.url)):
                changes.append(Change(unit, receipt.product, what))

        listener.stage(f"{frame}", len(products))
        for _ in side_by_side(ask, products, settings.connections):
            listener.advance(f"{frame}")
    changes.sort(key=lambda change: (change.unit, change.product))
    write_json(
        shelf.root / UPSTREAM,
        {
            "checked": datetime.now(UTC).isoformat(timespec="seconds"),
            "generation": current.number,
            "changed": [vars(change) for change in changes],
        },
    )
    return changes
