"""A model that sees one thing once."""


class SeesAStarOnce:
    """Sees a star at its second look, in the last picture of the second of three items, and then nothing more."""

    things = ("star",)

    def __init__(self):
        self.looks = 0

    def ask(self, images, questions):
        self.looks += 1
        seen = 2 * (len(images) // 3) - 1 if self.looks == 2 else None
        there = [any(thing in each for thing in self.things) for each in questions]
        return [[0.9 if row == seen and yes else 0.0 for yes in there] for row in range(len(images))]


class SeesAStarAndABoltOnce(SeesAStarOnce):
    """The same with a bolt beside the star."""

    things = ("star", "bolt")
