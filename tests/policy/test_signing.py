from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from dnp_guard.errors import DnpGuardError, PolicyError
from dnp_guard.policy import as_store
from dnp_guard.policy.force.signing import new_key, place, sign, verifier, verify

LATER = datetime(2100, 1, 1, tzinfo=UTC)
PRIVATE, PUBLIC = new_key()


@pytest.fixture(autouse=True)
def serials(tmp_path, monkeypatch):
    file = tmp_path / "state" / "serials.json"
    monkeypatch.setenv("DNP_GUARD_SERIALS", str(file))
    return file


@pytest.fixture
def path(tmp_path):
    (tmp_path / "base.yaml").write_text("format: 1\nname: base\ncategories: [{id: star, negative: [star]}]\n")
    path = tmp_path / "p.yaml"
    path.write_text("format: 1\nname: p\nextends: base.yaml\n")
    return path


def signed(path, serial=1, expires=LATER, **arguments):
    return sign(path, as_store(path), PRIVATE, serial=serial, expires=expires, **arguments)


def refusal(path, key=PUBLIC, **arguments):
    with pytest.raises(PolicyError) as caught:
        verify(path, as_store(path), key, **arguments)
    (problem,) = caught.value.problems
    return problem.code


def test_a_signed_policy_is_taken(path):
    signed(path, serial=7)
    manifest = verify(path, as_store(path), PUBLIC)
    assert manifest.name == "p"
    assert manifest.serial == 7
    assert set(manifest.files) == {"p.yaml", "base.yaml"}


def test_a_signed_store_is_taken(path):
    signed(path.parent)
    assert set(verify(path.parent, as_store(path.parent), PUBLIC).files) == {"p.yaml", "base.yaml"}


def test_an_unsigned_policy_is_refused(path):
    assert refusal(path) == "unsigned"


@pytest.mark.parametrize("name", ["p.yaml", "base.yaml"])
def test_an_altered_input_is_refused_a_base_too(path, name):
    signed(path)
    with (path.parent / name).open("a") as file:
        file.write("# changed\n")
    assert refusal(path) == "altered"


def test_a_policy_that_joins_a_signed_store_is_refused(path):
    signed(path.parent)
    (path.parent / "q.yaml").write_text(path.read_text().replace("name: p", "name: q"))
    assert refusal(path.parent) == "altered"


def test_an_altered_manifest_is_refused(path):
    document = json.loads(signed(path).read_text())
    document["manifest"]["serial"] = 99
    place(path).write_text(json.dumps(document))
    assert refusal(path) == "bad-signature"


def test_another_key_is_refused(path):
    signed(path)
    assert refusal(path, new_key()[1]) == "bad-signature"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"manifest": {}, "signature": 1}'])
def test_what_is_no_signature_is_refused(path, text):
    place(path).write_text(text)
    assert refusal(path) == "bad-signature"


def test_an_expired_signature_is_refused(path):
    signed(path)
    assert refusal(path, now=LATER) == "expired"


def test_a_signature_for_another_tenant_is_refused(path):
    signed(path, tenant="acme")
    assert refusal(path, tenant="other") == "other-tenant"
    assert verify(path, as_store(path), PUBLIC, tenant="acme").tenant == "acme"


def test_a_lower_serial_than_was_in_force_is_refused(path):
    signed(path, serial=5)
    verifier(PUBLIC, None).take(path, as_store(path))
    signed(path, serial=4)
    with pytest.raises(PolicyError, match="serial 4 is lower than 5"):
        verifier(PUBLIC, None).take(path, as_store(path))


def test_serials_of_different_policies_and_keys_are_apart(path):
    signed(path, serial=5)
    verifier(PUBLIC, None).take(path, as_store(path))
    other = path.with_name("base.yaml")
    signed(other, serial=1)
    verifier(PUBLIC, None).take(other, as_store(other))


def test_no_policy_is_taken_while_the_serials_cannot_be_read(path, serials):
    signed(path)
    serials.parent.mkdir()
    serials.write_text("not json")
    with pytest.raises(DnpGuardError, match="cannot be read"):
        verifier(PUBLIC, None).take(path, as_store(path))


def test_a_key_that_is_none_is_an_error(path):
    signed(path)
    with pytest.raises(DnpGuardError, match="not base64"):
        verify(path, as_store(path), "key?")


def test_a_key_that_is_too_short_is_no_defect_but_a_key_to_give_whole(path):
    signed(path)
    with pytest.raises(DnpGuardError, match="a public key has 32 bytes, and this one has 3"):
        verify(path, as_store(path), "AAAA")


def test_a_signature_nested_without_end_is_refused(path):
    place(path).write_text("[" * 100_000)
    assert refusal(path) == "bad-signature"


def test_another_text_under_the_same_serial_is_refused(path):
    check = verifier(PUBLIC, None)
    signed(path, serial=3)
    check.take(path, as_store(path))
    check.take(path, as_store(path))
    path.write_text(path.read_text() + "summary: another\n")
    signed(path, serial=3)
    with pytest.raises(PolicyError, match="serial 3 was in force with another text"):
        verifier(PUBLIC, None).take(path, as_store(path))
    signed(path, serial=4)
    check.take(path, as_store(path))


def test_no_policy_is_taken_after_the_serials_are_gone(path, serials):
    check = verifier(PUBLIC, None)
    signed(path, serial=3)
    check.take(path, as_store(path))
    serials.unlink()
    with pytest.raises(PolicyError, match="is gone"):
        check.take(path, as_store(path))
