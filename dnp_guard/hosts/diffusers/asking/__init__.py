"""Find out from the pipeline itself where its prompt goes and what it returns, by running its own call on a copy.

- ``recording`` records what a call gets and what its parts answer.
- ``standin`` stands in for the parts.
- ``capture`` runs a copy to its first step, and ``replay`` to its end.
- ``places`` compares two first steps.
- ``arithmetic`` finds out what the pipeline makes of the denoiser's answers.
- ``proof`` holds what is known of one call.
"""
