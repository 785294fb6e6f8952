"""Models that see something once and then nothing more."""


class SeesAStarOnce:
    """A model that sees a star at its second look only, in the last picture of the second of three items."""

    things = ("star",)

    def __init__(self):
        self.looks = 0

    def ask(self, images, questions):
        self.looks += 1
        seen = 2 * (len(images) // 3) - 1 if self.looks == 2 else None
        there = [any(thing in question for thing in self.things) for question in questions]
        return [[0.9 if row == seen and yes else 0.0 for yes in there] for row in range(len(images))]


class SeesAStarAndABoltOnce(SeesAStarOnce):
    """A model that sees a bolt beside the star."""

    things = ("star", "bolt")
