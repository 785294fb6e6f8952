"""Ask the pipeline itself: its own call, run again on a copy, shows where its prompt goes and what it ends with.

``recording`` keeps what a call was given and answered; ``standin`` stands in for its parts; ``capture`` runs a copy to
its first step, ``replay`` to its end. ``places`` compares two first steps, ``arithmetic`` asks what is made of the
denoiser's answers, and ``proof`` holds what is shown of one call.
"""
