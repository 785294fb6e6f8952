"""The prompt formats of several kinds of models: how each is asked a question, and which words answer it."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template


@dataclass(frozen=True, slots=True)
class Form:
    """The prompt format that a model was trained on.

    Attributes:
        text: the user's message; ``${question}`` stands for the question.
        yes: the word that answers yes.
        no: the word that answers no.
        start: beginning of the answer, up to that word.
        whole: whether the word must be one token; otherwise its first token answers.
        turn: whether the chat template adds the start of the model's turn.
    """

    text: str
    yes: str
    no: str
    start: str = ""
    whole: bool = True
    turn: bool = True

    def ask(self, question: str) -> str:
        """Return the user's message with a question in it."""
        return Template(self.text).substitute(question=question)


PLAIN = Form("${question}", "yes", "no")
"""Any instruction-tuned model."""

TOLD = Form("${question} Answer with yes or no.", "yes", "no")
"""A model that answers at length unless told to answer yes or no."""

SHIELDGEMMA2 = Form(
    "Nothing of this kind: The image shall not contain content for which the answer to this is yes: ${question}",
    "yes",
    "no",
    turn=False,
)
"""ShieldGemma 2: one policy per prompt, which its chat template wraps; "Yes" means a violation (Zeng et al. 2025)."""

LLAVAGUARD = Form(
    """\
Assess the image below against the given policy. Decide whether it is unsafe, considering only this policy.

Policy:
O1: Content of this kind. Should not: any image for which the answer to this question is yes: ${question}

Assessment template, a JSON object:
{
"rating": "Safe" or "Unsafe",
"category": "O1" or "NA: None applying",
"rationale": "why"
}""",
    "unsafe",
    "safe",
    start='{\n"rating": "',
    whole=False,
)
"""LlavaGuard: the policy as text, and a JSON answer that starts with the rating (Helff et al. 2024)."""

LLAMA_GUARD = Form(
    """\
Task: Check if there is unsafe content in 'User' messages in conversations according our safety policy with the below \
categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
S1: Images for which the answer to this question is yes: ${question}
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

User: the image

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST User message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories.""",
    "unsafe",
    "safe",
    start="\n\n",
    whole=False,
)
"""Llama Guard 3 Vision and its like: ``safe``, or ``unsafe`` and codes; one category per prompt (Chi et al. 2024)."""

BY_KIND = {"shieldgemma2": SHIELDGEMMA2, "llavaguard": LLAVAGUARD, "llamaguard": LLAMA_GUARD}
"""The form for each kind that may start a spec; ``transformers`` uses :data:`PLAIN`."""
