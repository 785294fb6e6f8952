"""Stand in for vision-language models that see something a single time, and nothing in later queries."""


class SeesAStarOnce:
    """A model that sees a star in its second query only, in the second of three images or videos.

    A video shows several pictures; the star is in its last one.
    """

    things = ("star",)

    def __init__(self):
        self.looks = 0

    def ask(self, images, questions):
        self.looks += 1
        seen = 2 * (len(images) // 3) - 1 if self.looks == 2 else None
        there = [any(thing in question for thing in self.things) for question in questions]
        return [[0.9 if row == seen and yes else 0.0 for yes in there] for row in range(len(images))]


class SeesAStarAndABoltOnce(SeesAStarOnce):
    """A model that sees a star and a bolt, where its base class sees a star only."""

    things = ("star", "bolt")
