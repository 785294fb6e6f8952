"""The policy language: what to look for in an image, which negative prompt to inject, and how to react to a finding."""

from dnp_guard.policy.compare.merge import strictest
from dnp_guard.policy.force.store import Store, as_store, load_store
from dnp_guard.policy.model.category import Category, CategoryGuidance, Rule, Severity
from dnp_guard.policy.model.policy import Policy
from dnp_guard.policy.model.questions import (
    allowed_questions,
    negation,
    questions,
    questions_per_image,
    questions_per_look,
)
from dnp_guard.policy.model.scope import Excepted, Floor, PolicyException, Select
from dnp_guard.policy.model.sections import Audit, CategoryQueries, Guidance, Preview, Queries, QuestionTemplate, Vlm
from dnp_guard.policy.read.loading import load_policy, parse_policy, shipped
from dnp_guard.policy.read.schema import schema, schema_of_tests
from dnp_guard.policy.read.testfile import Case, Expect, PolicyTests, Steering, TestFile, load_tests

__all__ = [
    "Audit",
    "Case",
    "Category",
    "CategoryGuidance",
    "CategoryQueries",
    "Excepted",
    "Expect",
    "Floor",
    "Guidance",
    "Policy",
    "PolicyException",
    "PolicyTests",
    "Preview",
    "Queries",
    "QuestionTemplate",
    "Rule",
    "Select",
    "Severity",
    "Steering",
    "Store",
    "TestFile",
    "Vlm",
    "allowed_questions",
    "as_store",
    "load_policy",
    "load_store",
    "load_tests",
    "negation",
    "parse_policy",
    "questions",
    "questions_per_image",
    "questions_per_look",
    "schema",
    "schema_of_tests",
    "shipped",
    "strictest",
]
