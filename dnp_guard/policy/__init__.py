"""The policy language: what is asked, what may be injected, and what is done about it."""

from dnp_guard.policy.category import Category, CategoryGuidance, Rule, Severity
from dnp_guard.policy.loading import load_policy, parse_policy, shipped
from dnp_guard.policy.model import Policy
from dnp_guard.policy.questions import allowed_questions, negation, questions, questions_per_look
from dnp_guard.policy.schema import schema
from dnp_guard.policy.settings import Audit, Guidance, Preview, Queries, QuestionTemplate, Vlm

__all__ = [
    "Audit",
    "Category",
    "CategoryGuidance",
    "Guidance",
    "Policy",
    "Preview",
    "Queries",
    "QuestionTemplate",
    "Rule",
    "Severity",
    "Vlm",
    "allowed_questions",
    "load_policy",
    "negation",
    "parse_policy",
    "questions",
    "questions_per_look",
    "schema",
    "shipped",
]
