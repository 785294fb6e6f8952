"""Pictures that programs display differently from their pixels are refused, or judged as they are displayed."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from dnp_guard.cli import run
from dnp_guard.displayed import NotAsShown, as_shown
from dnp_guard.errors import DnpGuardError, PolicyError
from dnp_guard.policy.rehearsal.detection import answers_about
from dnp_guard.server import receipts
from dnp_guard.server.pictures import digest
from dnp_guard.types import Question
from dnp_guard.vlm.labelled import read_labelled
from dnp_guard.vlm.picture import data_url, png_url
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.server.conftest import ask, begin, finish

SIZE = (32, 32)
BLACK = Image.new("RGB", SIZE)


def star():
    mask = Image.new("L", SIZE)
    ImageDraw.Draw(mask).regular_polygon((16, 16, 12), 3, fill=255)
    return mask


def rgba():
    picture = Image.new("RGBA", SIZE)
    picture.putalpha(star())
    return picture


def palette():
    picture = star().point(lambda level: level // 255).convert("P")
    picture.putpalette([0] * 6)
    return picture


def written(picture, form="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def chunked(name, value):
    """Return a black PNG with a further chunk in its file."""
    more = PngInfo()
    more.add(name, value)
    return written(BLACK, pnginfo=more)


def turned(form):
    exif = Image.Exif()
    exif[0x0112] = 6
    return written(BLACK, form, exif=exif)


def profile():
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


FRAMES = {"save_all": True, "append_images": [Image.new("RGB", SIZE, "red")]}
HIDDEN = {
    "rgba": written(rgba()),
    "la": written(rgba().convert("LA")),
    "palette": written(palette(), transparency=0),
    "one colour clear": written(BLACK, transparency=(0, 0, 0)),
    "animated png": written(BLACK, **FRAMES),
    "animated behind a still": written(BLACK, default_image=True, **FRAMES),
    "gamma": chunked(b"gAMA", (10_000).to_bytes(4, "big")),
    "turned png": turned("PNG"),
    "turned jpeg": turned("JPEG"),
    "profile": written(BLACK, icc_profile=profile()),
}
FILES = HIDDEN | {
    "animated gif": written(BLACK, "GIF", **FRAMES),
    "animated webp": written(BLACK, "WEBP", lossless=True, **FRAMES),
    "several in a jpeg": written(BLACK, "MPO", **FRAMES),
}
PLAIN = {
    "rgb": written(BLACK),
    "opaque rgba": written(BLACK.convert("RGBA")),
    "grey": written(BLACK.convert("L")),
    "text": chunked(b"tEXt", b"parameters\0a lake"),
    "gamma of all": chunked(b"gAMA", (45_455).to_bytes(4, "big")),
}


def url(content):
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def final(client, content):
    session = begin(client).json()["session"]
    ask(client, session, 1, ended=True)
    answer = client.post(f"/v1/sessions/{session}/final", json={"images": [{"index": 0, "data": url(content)}]})
    return session, answer


@pytest.mark.parametrize("name", [*HIDDEN, "several in a jpeg"])
def test_the_service_refuses_what_is_shown_otherwise_and_withholds_it(serve, name):
    client = serve({"a star": 0.0})
    session, answer = final(client, FILES[name])
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:dnp-guard:problem:picture"
    assert finish(client, session).json()["images"][0]["decision"] == "clean"  # of another picture, seen since then


@pytest.mark.parametrize("name", PLAIN)
def test_the_service_takes_what_every_program_shows_alike(serve, name):
    assert final(serve({"a star": 0.0}), PLAIN[name])[1].json()["images"][0]["decision"] == "clean"


@pytest.fixture
def receipt(serve, tmp_path):
    """Return a function that gets the service's receipt for a black picture, and returns it with the public key."""

    def make(**settings):
        public = receipts.new_key(tmp_path / "key")
        client = serve({"a star": 0.0}, receipt_key=tmp_path / "key", **settings)
        return final(client, written(BLACK))[1].json()["images"][0]["receipt"], public

    return make


def verified(receipt, *options):
    text, public = receipt
    return run(["receipt", "verify", text, "--key", public, *map(str, options)])


@pytest.mark.parametrize("name", FILES)
def test_a_receipt_is_for_nothing_that_is_shown_otherwise(receipt, tmp_path, capsys, name):
    (tmp_path / "image").write_bytes(FILES[name])
    assert verified(receipt(), "--image", tmp_path / "image") == 1
    assert "programs may display the picture differently" in capsys.readouterr().err


@pytest.mark.parametrize("name", PLAIN)
def test_a_receipt_is_for_the_same_pixels_in_any_file(receipt, tmp_path, name):
    (tmp_path / "image").write_bytes(PLAIN[name])
    assert verified(receipt(), "--image", tmp_path / "image") == 0


@pytest.mark.parametrize("send", [data_url, png_url, digest, as_shown])
@pytest.mark.parametrize("name", FILES)
def test_no_picture_that_is_shown_otherwise_is_sent_as_if_it_were_not(name, send):
    with pytest.raises(NotAsShown):
        send(Image.open(io.BytesIO(FILES[name])))


def test_a_picture_too_thin_for_models_is_refused_and_withheld_under_on_failure_open(serve, tmp_path):
    policy = tmp_path / "open.yaml"
    policy.write_text(
        "format: 1\nname: open\non_failure: open\nqueries: {steps: [0.5], final: true}\ncategories: [{id: star, "
        "title: Star, definition: A star., look_for: [a star], negative: [star], threshold: 0.5}]\n"
    )
    client = serve({"a star": 0.0}, policy=policy)
    session, answer = final(client, written(Image.new("RGB", (16_384, 64))))
    assert answer.json()["detail"] == "Image 0 is over 50 times as long as wide."
    degraded = [record["reason"] for record in serve.records if record["event"] == "degraded"]
    assert any("over 50 times" in reason for reason in degraded), session


UNSEEN = """
format: 1
name: unseen
queries: {steps: [0.5], final: false}
categories: [{id: star, title: Star, definition: A star., look_for: [a star], negative: [star], threshold: 0.5}]
"""


def test_a_receipt_says_that_nobody_looked_at_the_finished_image(receipt, tmp_path, capsys):
    (tmp_path / "unseen.yaml").write_text(UNSEEN)
    made = receipt(policy=tmp_path / "unseen.yaml")
    assert receipts.read(*made)["looked"] is False
    assert verified(made) == 1
    assert "the finished image was not queried" in capsys.readouterr().err
    assert verified(made, "--unlooked") == 0


def test_a_receipt_is_for_its_tenant_and_its_policy(serve, tmp_path, capsys):
    public = receipts.new_key(tmp_path / "key")
    claims = {"session": "s", "image": 0, "picture": "b" * 64, "decision": "clean", "action": "pass", "looked": True}
    claims |= {"tenant": "B", "policy": {"name": "glyphs", "revision": "1", "digest": "5e03"}}
    text = receipts.issuer(tmp_path / "key", 60).sign(claims, 4_000_000_000)
    assert verified((text, public), "--tenant", "B", "--policy", "glyphs") == 0
    assert verified((text, public), "--policy", "5e03") == 0
    assert verified((text, public), "--tenant", "A") == 1
    assert "another tenant" in capsys.readouterr().err
    assert verified((text, public), "--policy", "strict") == 1


class Levels:
    """A backend that answers with the brightness of a picture, for which it must read the pixels."""

    def ask(self, images, questions):
        return [[image.getextrema()[0][1] / 255] * len(questions) for image in images]


@pytest.mark.parametrize("name", FILES)
def test_no_labelled_picture_that_is_shown_otherwise_is_measured(tmp_path, name):
    (tmp_path / "one").write_bytes(FILES[name])
    (tmp_path / "labels.csv").write_text("file,star\none,1\n")
    with pytest.raises(DnpGuardError, match=r"labels\.csv:2: one: programs may display the picture differently"):
        read_labelled(tmp_path, tmp_path / "labels.csv", ["star"])


@pytest.mark.parametrize("name", FILES)
def test_no_picture_of_a_policys_tests_that_is_shown_otherwise_is_looked_at(tmp_path, name):
    (tmp_path / "one").write_bytes(FILES[name])
    with pytest.raises(PolicyError, match="programs may display the picture differently"):
        answers_about(tmp_path / "one", ScriptedBackend([{}]))


@pytest.mark.parametrize("name", PLAIN)
def test_a_picture_of_a_policys_tests_that_every_program_shows_alike_is_looked_at(tmp_path, name):
    (tmp_path / "one").write_bytes(PLAIN[name])
    assert answers_about(tmp_path / "one", Levels())([Question("star", "a star", "is there a star?")]) == [0.0]


@pytest.mark.parametrize("name", PLAIN)
def test_a_labelled_picture_that_every_program_shows_alike_is_measured(tmp_path, name):
    (tmp_path / "one").write_bytes(PLAIN[name])
    (tmp_path / "labels.csv").write_text("file,star\none,1\n")
    (labelled,) = read_labelled(tmp_path, tmp_path / "labels.csv", ["star"])
    assert labelled.image.tobytes() == BLACK.tobytes()
