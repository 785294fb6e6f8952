"""The policy language: what is asked, what may be injected, and what is done about it."""

from dnp_guard.policy.category import Category, CategoryGuidance, Rule, Severity
from dnp_guard.policy.loading import load_policy, parse_policy, shipped
from dnp_guard.policy.model import Policy
from dnp_guard.policy.questions import allowed_questions, negation, questions, questions_per_look
from dnp_guard.policy.schema import schema, schema_of_tests
from dnp_guard.policy.settings import Audit, Guidance, Preview, Queries, QuestionTemplate, Vlm
from dnp_guard.policy.testfile import Case, Expect, PolicyTests, Steering, TestFile, load_tests

__all__ = [
    "Audit",
    "Case",
    "Category",
    "CategoryGuidance",
    "Expect",
    "Guidance",
    "Policy",
    "PolicyTests",
    "Preview",
    "Queries",
    "QuestionTemplate",
    "Rule",
    "Severity",
    "Steering",
    "TestFile",
    "Vlm",
    "allowed_questions",
    "load_policy",
    "load_tests",
    "negation",
    "parse_policy",
    "questions",
    "questions_per_look",
    "schema",
    "schema_of_tests",
    "shipped",
]
