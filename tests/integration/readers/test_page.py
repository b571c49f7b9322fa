"""The lines of docs/readers.md, those too that the test of all pages cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest

from doc_pages import Block, blocks
from reader_availability import import_reader, require_python

PAGE = "docs/readers.md"
PYTHON = [block for block in blocks(PAGE) if block.language == "python"]


@pytest.mark.filterwarnings("ignore")  # of torchgeo and of GDAL
@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"line {block.line}")
def test_a_line_of_the_page_works(block: Block, cube, tmp_path: Path, monkeypatch):
    """Each block stands alone; what it calls first is a pair of the cube."""
    if block.not_run:
        assert block.not_run.startswith("needs ")
        if block.not_run.endswith("of Python 3.12"):
            require_python(3, 12)
        import_reader(block.not_run.split()[1])
    assert cube.slot(stored=True) == (0, 1)
    (tmp_path / "data").symlink_to(cube.link.parents[2])
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block.code, PAGE, "exec"), names)
    expected = cube.values["insar_difference"]
    if "first" in names:
        assert expected[0, 1].any()
        assert (names["first"] == expected[0, 1]).all()
    if "sample" in names:
        assert (names["sample"].numpy()[0] == expected[0]).all()
    assert {"first", "sample", "image", "series"} & names.keys()
