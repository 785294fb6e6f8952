from __future__ import annotations

import base64
import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dnp_guard.cli import run
from dnp_guard.errors import DnpGuardError
from dnp_guard.server import receipts
from dnp_guard.server.pictures import digest
from tests.server.conftest import ask, begin, finish

NOW = 1_800_000_000
CLAIMS = {"session": "a" * 32, "image": 0, "picture": "b" * 64, "decision": "clean", "action": "pass"}


@pytest.fixture
def key(tmp_path):
    return tmp_path / "receipts.key"


@pytest.fixture
def public(key):
    return receipts.new_key(key)


@pytest.fixture
def issuer(key, public):
    return receipts.issuer(key, 60)


def test_a_receipt_says_what_was_decided(issuer, public):
    assert receipts.read(issuer.sign(CLAIMS, NOW), public) == {"v": 1, **CLAIMS, "iat": NOW, "exp": NOW + 60}


def test_a_receipt_is_a_json_web_signature(issuer, public):
    header = json.loads(base64.urlsafe_b64decode(issuer.sign(CLAIMS, NOW).split(".")[0] + "=="))
    assert header == {
        "alg": "EdDSA",
        "typ": "dnp-guard-receipt",
        "kid": receipts.key_id(base64.b64decode(public)),
    }


def forged(receipt, part, change):
    parts = receipt.split(".")
    content = base64.urlsafe_b64decode(parts[part] + "==")
    parts[part] = base64.urlsafe_b64encode(change(content)).decode().rstrip("=")
    return ".".join(parts)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: forged(text, 1, lambda claims: claims.replace(b"pass", b"blur")),
        lambda text: forged(text, 0, lambda header: header.replace(b"EdDSA", b"none ")),
        lambda text: forged(text, 0, lambda header: header.replace(b"receipt", b"policy_")),
        lambda text: forged(text, 2, lambda signature: bytes(64)),
        lambda text: forged(text, 2, lambda signature: signature[:-1]),
        lambda text: text.rpartition(".")[0],
        lambda text: text.rpartition(".")[0] + ".",
        lambda text: "",
        lambda text: "a.b.c",
        lambda text: f"{text}.{text}",
    ],
)
def test_what_was_changed_is_refused(issuer, public, change):
    with pytest.raises(receipts.ReceiptRefused):
        receipts.read(change(issuer.sign(CLAIMS, NOW)), public)


def test_another_key_is_refused(issuer, tmp_path):
    other = receipts.new_key(tmp_path / "other.key")
    with pytest.raises(receipts.ReceiptRefused, match="does not match"):
        receipts.read(issuer.sign(CLAIMS, NOW), other)


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_a_key_that_others_may_read_or_its_group_may_change_is_refused(key, public, mode):
    key.chmod(mode)
    with pytest.raises(DnpGuardError, match="others may read the key, or its group may change it"):
        receipts.issuer(key, 60)


def test_a_key_that_its_group_may_read_is_taken(key, public):
    key.chmod(0o440)
    assert receipts.issuer(key, 60).public == public


def test_a_key_is_not_overwritten(key, public):
    with pytest.raises(DnpGuardError, match="File exists"):
        receipts.new_key(key)


def test_equal_pixels_have_one_digest_in_any_file(tmp_path):
    picture = Image.linear_gradient("L").convert("RGB")
    infotext = PngInfo()
    infotext.add_text("parameters", "a lake")
    picture.save(tmp_path / "a.png", pnginfo=infotext)
    picture.save(tmp_path / "b.bmp")
    digests = {digest(Image.open(tmp_path / name)) for name in ("a.png", "b.bmp")}
    assert digests == {digest(picture)}
    assert digest(picture.crop((0, 0, 128, 512))) != digest(picture.crop((0, 0, 512, 128)))


@pytest.fixture
def delivered(serve, key, public, tmp_path):
    """Return a function that runs a generation, and returns the files of its receipt and its image."""

    def deliver(probability, **settings):
        client = serve({"a star": probability}, receipt_key=key, **settings)
        session = begin(client).json()["session"]
        ask(client, session, 1, ended=True)
        file, image = tmp_path / "receipt.txt", tmp_path / "image.png"
        file.write_text(finish(client, session).json()["images"][0]["receipt"])
        Image.new("RGB", (16, 16), "red").save(image)
        return file, image

    return deliver


def test_the_command_lets_pass_what_the_guard_let_pass(delivered, public, capsys):
    file, image = delivered(0.0)
    assert run(["receipt", "verify", str(file), "--key", public, "--image", str(image), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert document["receipt"]["decision"] == "clean"


def test_the_command_takes_the_receipt_itself_too(delivered, public, capsys):
    file, _ = delivered(0.0)
    assert run(["receipt", "verify", file.read_text(), "--key", public]) == 0
    assert capsys.readouterr().out.startswith("ok: clean, until ")


def test_the_command_stops_what_was_blocked(delivered, public, capsys):
    file, image = delivered(0.9)
    assert run(["receipt", "verify", str(file), "--key", public, "--image", str(image)]) == 1
    assert "it says block: blocked" in capsys.readouterr().err


def test_the_command_stops_another_image(delivered, public, capsys, tmp_path):
    file, _ = delivered(0.0)
    other = tmp_path / "other.png"
    Image.new("RGB", (16, 16), "blue").save(other)
    assert run(["receipt", "verify", str(file), "--key", public, "--image", str(other), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["errors"][0]["code"] == "other-image"


def test_the_command_stops_what_is_too_old(issuer, public, capsys, tmp_path):
    assert run(["receipt", "verify", issuer.sign(CLAIMS, 0), "--key", public]) == 1
    assert "it expired at 1970-01-01" in capsys.readouterr().err


def test_the_command_makes_a_key(capsys, tmp_path):
    assert run(["receipt", "key", str(tmp_path / "new.key")]) == 0
    public = capsys.readouterr().out.strip()
    assert receipts.issuer(tmp_path / "new.key", 60).public == public


def test_without_a_key_there_are_no_receipts(serve):
    client = serve({"a star": 0.0})
    session = begin(client).json()["session"]
    ask(client, session, 1, ended=True)
    assert finish(client, session).json()["images"][0]["receipt"] is None
