"""A model that sees one thing once."""


class SeesAStarOnce:
    """Sees a star at its second look, in the last picture of the second of three items, and then nothing more."""

    def __init__(self):
        self.looks = 0

    def ask(self, images, questions):
        self.looks += 1
        seen = 2 * (len(images) // 3) - 1 if self.looks == 2 else None
        return [[0.9 if row == seen and "star" in each else 0.0 for each in questions] for row in range(len(images))]
