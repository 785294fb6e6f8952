"""How a question is put to a model, and which words answer it: one form for each kind of model."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a model was trained to be asked.

    Attributes:
        text: what the user says; ``${question}`` stands for the question.
        yes: the word of an answer that finds what is asked about.
        no: the word of one that does not.
        start: how the answer begins, up to that word.
        whole: whether each word must be one token; otherwise its first token answers.
        turn: whether the chat template is told to begin the model's turn.
    """

    text: str
    yes: str
    no: str
    start: str = ""
    whole: bool = True
    turn: bool = True

    def ask(self, question: str) -> str:
        """What the user says to ask a question."""
        return Template(self.text).substitute(question=question)


PLAIN = Form("${question}", "yes", "no")
"""Any instruction-tuned model."""

TOLD = Form("${question} Answer with yes or no.", "yes", "no")
"""One that answers at length unless it is told not to."""

SHIELDGEMMA2 = Form(
    "Nothing of this kind: The image shall not contain content for which the answer to this is yes: ${question}",
    "yes",
    "no",
    turn=False,
)
"""ShieldGemma 2: one policy a prompt, which its chat template wraps whole; "Yes" violates it (Zeng et al. 2025)."""

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
"""LlavaGuard: the policy as text, a JSON answer whose rating comes first (Helff et al. 2024)."""

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
"""Llama Guard 3 Vision and its like: ``safe``, or ``unsafe`` and codes; one category a prompt (Chi et al. 2024)."""

BY_KIND = {"shieldgemma2": SHIELDGEMMA2, "llavaguard": LLAVAGUARD, "llamaguard": LLAMA_GUARD}
"""The form of each kind that a spec may begin with; ``transformers`` is :data:`PLAIN`."""
