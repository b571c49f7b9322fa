"""Tests of the form in which attributes are stored, and of what is read of the form of older cubes."""

import json

from hephaestus_build.cube.plain_attributes import split_texts, to_plain_attributes


def test_every_attribute_is_text_a_number_or_a_list_of_numbers():
    given = {
        "simulated": True,
        "no": False,
        "count": 3,
        "size": [83.1, 111],
        "flags": [True, False],
        "names": ["Etna", "Vulcano"],
        "mixed": [1, "two", None],
        "settings": {"pairs": "all", "höhe": [1, {"deep": None}]},
        "nothing": None,
        "empty": [],
        "no settings": {},
    }
    plain = to_plain_attributes(given)
    for value in plain.values():
        numbers = value if isinstance(value, list) else [value]
        assert all(type(item) in (int, float) for item in numbers) or isinstance(value, str)
    assert plain["simulated"] == 1
    assert plain["no"] == 0
    assert plain["size"] == [83.1, 111]
    assert {name: json.loads(plain[name]) for name in ("flags", "mixed", "settings")} == {
        name: given[name] for name in ("flags", "mixed", "settings")
    }
    assert "nothing" not in plain


def test_names_are_read_from_either_form():
    names = ["Campi Flegrei", "Vesuvius"]
    assert split_texts(to_plain_attributes({"volcanoes": names})["volcanoes"]) == names
    assert split_texts(names) == names  # schema 1.2
    assert split_texts({"hostile": 1}) == split_texts(7) == split_texts("") == []
