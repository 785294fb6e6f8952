"""Find out from the pipeline itself where its prompt goes and what it returns, by running its own call on a copy.

- ``recording`` records the arguments of a call and the outputs of the pipeline's parts (denoiser, encoders, …).
- ``standin`` replaces a part by an object that answers in its place.
- ``capture`` runs the call on a copy up to its first step, and ``replay`` up to its end.
- ``places`` compares the first steps of two runs with different prompts.
- ``arithmetic`` finds out how the pipeline combines the denoiser's outputs.
- ``proof`` holds the facts that are proven about one call.
"""
