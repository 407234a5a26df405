"""A scene, or what an edit asks for, as a row of class numbers: what the text encoder must have understood."""

from edits import Edit
from scenes import COLOURS, GROUNDS, PLACES, RELATIONS, SHAPES, SIZES, TIMES, Landscape, Scene, Shapes

# A field that does not apply.
NONE = -100
EXTRAS = ("mountains", "trees", "house", "sailboat")
KINDS = ("one shape", "two shapes", "landscape")
REQUESTS = ("none", "background", "thing", "time")
FIELDS: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "background": tuple(COLOURS),
    "place": (*PLACES, *RELATIONS),
    "shape 1": SHAPES,
    "colour 1": tuple(COLOURS),
    "size 1": tuple(SIZES),
    "shape 2": SHAPES,
    "colour 2": tuple(COLOURS),
    "size 2": tuple(SIZES),
    "time": TIMES,
    "ground": GROUNDS,
    **dict.fromkeys(EXTRAS, ("no", "yes")),
}
CLASSES = sum(len(names) for names in FIELDS.values())
INDEX = {name: number for number, name in enumerate(FIELDS)}


def label_scene(scene: Scene) -> list[int]:
    """The class numbers of a scene."""
    if isinstance(scene, Landscape):
        told = {"kind": "landscape", "time": scene.time, "ground": scene.ground}
        return _number(told | {extra: "yes" if extra in scene.extras else "no" for extra in EXTRAS})
    told = {"kind": KINDS[len(scene.things) - 1], "background": scene.background, "place": scene.place}
    for number, thing in enumerate(scene.things, 1):
        told |= {f"shape {number}": thing.shape, f"colour {number}": thing.colour, f"size {number}": thing.size}
    return _number(told)


def label_request(edit: Edit, words: str) -> tuple[list[int], int]:
    """The class numbers of what a request says, the old colour as the second one, and what kind of request it is."""
    if isinstance(edit.after, Landscape):
        return _number({"time": edit.after.time}), REQUESTS.index("time")
    if edit.changed == "background":
        return _number({"background": edit.after.background}), REQUESTS.index("background")
    assert isinstance(edit.before, Shapes)
    index = 0 if edit.changed == "first" else 1
    old, new = edit.before.things[index], edit.after.things[index]
    told = {"shape 1": new.shape, "colour 1": new.colour}
    if old.colour in words.lower():
        told["colour 2"] = old.colour
    return _number(told), REQUESTS.index("thing")


def _number(told: dict[str, str]) -> list[int]:
    return [names.index(told[name]) if name in told else NONE for name, names in FIELDS.items()]
