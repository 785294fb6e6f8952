from __future__ import annotations

import copy
import json
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from dnp_guard.errors import VlmUnavailable
from dnp_guard.testing import BackendContract
from dnp_guard.vlm import Desk
from dnp_guard.vlm.local.backend import TransformersBackend
from dnp_guard.vlm.local.forward import Reader, SharedImage, plain
from dnp_guard.vlm.local.shared_vision import SeenOnce

if TYPE_CHECKING:
    from pathlib import Path

QUESTIONS = (
    "Is there a star in this image?",
    "Is there a skull in this image? (A drawn skull, small or not.)",
    "Bolt?",
    "Does this image show a red ring at night?",
)


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (24 + 9 * k, 40, 3), dtype=np.uint8)) for k in range(count)]


@pytest.fixture(scope="module")
def backend(llava: tuple[Any, Any]) -> TransformersBackend:
    return TransformersBackend(llava)


@pytest.fixture(scope="module")
def loaded(llava_folder: Path) -> TransformersBackend:
    return TransformersBackend(llava_folder)


@pytest.fixture(scope="module")
def unshared(llava: tuple[Any, Any]) -> TransformersBackend:
    with pytest.MonkeyPatch.context() as patch:
        for way in ("SharedImage", "SeenOnce"):
            patch.delattr(f"dnp_guard.vlm.local.backend.{way}")
        return TransformersBackend(llava, batch_size=3)


@pytest.fixture(scope="module")
def tiled(llava_next: tuple[Any, Any]) -> TransformersBackend:
    return TransformersBackend(llava_next)


@pytest.fixture
def folder(llava_folder: Path, tmp_path: Path) -> Path:
    """Copy the saved model to a folder whose files a test may damage."""
    return shutil.copytree(llava_folder, tmp_path / "model")


class TestContract(BackendContract):
    questions = QUESTIONS

    @pytest.fixture
    def backend(self, loaded: TransformersBackend) -> TransformersBackend:
        assert loaded.shares_images
        return loaded


class TestContractWithoutSharing(BackendContract):
    questions = QUESTIONS

    @pytest.fixture
    def backend(self, unshared: TransformersBackend) -> TransformersBackend:
        assert not unshared.shares_images
        return unshared


class TestContractOfAModelThatTilesImages(BackendContract):
    questions = QUESTIONS

    @pytest.fixture
    def backend(self, tiled: TransformersBackend) -> TransformersBackend:
        assert tiled.shares_images
        return tiled


def test_answers_differ_between_images_and_questions(backend: TransformersBackend) -> None:
    answer = np.array(backend.ask(pictures(4), QUESTIONS))
    assert np.ptp(answer, axis=0).min() > 0.01
    assert np.ptp(answer, axis=1).min() > 0.01


def test_the_probability_is_that_of_yes_among_yes_and_no_at_the_next_token(
    backend: TransformersBackend, llava: tuple[Any, Any]
) -> None:
    model, processor = llava
    (picture,) = pictures(1)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": QUESTIONS[0]}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    yes, no = processor.tokenizer.convert_tokens_to_ids(["yes", "no"])
    expected = logits[[yes, no]].softmax(0)[0].item()
    assert backend.ask([picture], QUESTIONS[:1])[0][0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 32])
def test_sharing_the_image_changes_no_answer_at_any_batch_size(llava: tuple[Any, Any], rows: int) -> None:
    reader = Reader(*llava, yes=(13,), no=(14,), rows=rows, least_mass=0)
    images = [picture.convert("RGB") for picture in pictures(3)]
    with torch.inference_mode():
        expected = plain(reader, images, QUESTIONS)
        shared = SharedImage(reader, images[0])(images, QUESTIONS)
    torch.testing.assert_close(shared, expected, rtol=0, atol=1e-4)


def test_what_stands_before_the_image_is_read_once_for_all_queries(llava: tuple[Any, Any]) -> None:
    model, processor = llava
    other = copy.copy(processor)
    other.chat_template = f"{'look at this picture well . ' * 6}{processor.chat_template}"
    read: list[int] = []
    backend = TransformersBackend((model, other))
    assert backend.shares_images
    hook = model.register_forward_pre_hook(
        lambda _, __, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        answers = backend.ask(pictures(2), QUESTIONS)
    finally:
        hook.remove()
    whole = Reader(model, other, yes=backend.reader.yes, no=backend.reader.no, rows=64, least_mass=0)
    row = whole.encode([(pictures(1)[0], whole.prompt(QUESTIONS[0]))])["input_ids"][0]
    before = int((row == model.config.image_token_id).nonzero().min())
    assert before > 20
    assert max(read) <= len(row) - before
    with torch.inference_mode():
        expected = plain(whole, [picture.convert("RGB") for picture in pictures(2)], QUESTIONS).sigmoid()
    torch.testing.assert_close(torch.tensor(answers), expected, rtol=0, atol=1e-4)


def test_each_image_is_read_once_for_all_questions(backend: TransformersBackend, llava: tuple[Any, Any]) -> None:
    seen: list[int] = []
    tower = llava[0].model.vision_tower
    hook = tower.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(args[0] if args else kwargs["pixel_values"])), with_kwargs=True
    )
    try:
        backend.ask(pictures(3), QUESTIONS)
    finally:
        hook.remove()
    assert backend.shares_images
    assert sum(seen) == 3


def test_no_forward_pass_takes_more_rows_than_allowed(llava: tuple[Any, Any]) -> None:
    backend = TransformersBackend(llava, batch_size=3)
    rows: list[int] = []
    hook = llava[0].register_forward_pre_hook(
        lambda _, __, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        backend.ask(pictures(4), QUESTIONS)
    finally:
        hook.remove()
    assert max(rows) == 3


def test_where_sharing_would_change_answers_it_is_not_done(
    llava: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for way in (SharedImage, SeenOnce):
        monkeypatch.setattr(way, "__call__", lambda _, images, questions: torch.zeros(len(images), len(questions)))
    backend = TransformersBackend(llava)
    assert not backend.shares_images
    assert np.ptp(backend.ask(pictures(2), QUESTIONS)) > 0.01


def test_every_spelling_of_yes_and_no_counts(llava: tuple[Any, Any]) -> None:
    model, processor = llava

    class Spelled:
        bos_token = None
        words = ("yes", "Yes", " yes", "YES", "yes,", "yesterday", "no", " No", "NO", "not", "nö")

        def get_vocab(self) -> dict[str, int]:
            return {word: index for index, word in enumerate(self.words)}

        def decode(self, ids: list[int]) -> str:
            return self.words[ids[0]]

    class Wrapped:
        tokenizer = Spelled()
        image_processor = processor.image_processor
        chat_template = processor.chat_template

        def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
            return processor.apply_chat_template(*args, **kwargs)

        def __call__(self, **kwargs: Any) -> Any:
            return processor(**kwargs)

    reader = TransformersBackend((model, Wrapped())).reader  # type: ignore[arg-type]
    assert reader.yes == (0, 1, 2, 3)
    assert reader.no == (6, 7, 8)


def test_log_odds_are_those_of_the_softmax_over_both_words(llava: tuple[Any, Any]) -> None:
    reader = Reader(*llava, yes=(0, 2), no=(1,), rows=1, least_mass=0)
    logits = torch.tensor([[1.0, 2.0, 0.5, 9.0]])
    p = logits[:, :3].softmax(-1)[0]
    assert reader.log_odds(logits).sigmoid().item() == pytest.approx((p[0] + p[2]).item())


def test_logits_far_apart_stay_finite(llava: tuple[Any, Any]) -> None:
    reader = Reader(*llava, yes=(0,), no=(1,), rows=1, least_mass=0)
    assert reader.log_odds(torch.tensor([[1e4, -1e4], [-1e4, 1e4]])).sigmoid().tolist() == [1.0, 0.0]


def test_construction_leaves_the_random_generators_alone(llava_folder: Path) -> None:
    before = torch.get_rng_state()
    TransformersBackend(llava_folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_half_precision_checkpoint_is_computed_in_float32_on_the_cpu(llava: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = llava
    copy.deepcopy(model).half().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    backend = TransformersBackend(tmp_path, device="cpu")
    assert backend.reader.model.dtype is torch.float32
    np.testing.assert_allclose(
        backend.ask(pictures(2), QUESTIONS), TransformersBackend(llava).ask(pictures(2), QUESTIONS), atol=0.02
    )


def test_half_precision_answers_nearly_the_same(llava_folder: Path, backend: TransformersBackend) -> None:
    half = TransformersBackend(llava_folder, dtype=torch.bfloat16)
    assert half.reader.model.dtype is torch.bfloat16
    np.testing.assert_allclose(half.ask(pictures(2), QUESTIONS), backend.ask(pictures(2), QUESTIONS), atol=0.05)


def test_a_hosts_autocast_changes_no_answer(backend: TransformersBackend) -> None:
    expected = backend.ask(pictures(2), QUESTIONS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert backend.ask(pictures(2), QUESTIONS) == expected


def test_it_is_asked_from_many_threads_at_once(backend: TransformersBackend) -> None:
    images = pictures(8)
    expected = backend.ask(images, QUESTIONS)
    gate = threading.Barrier(8)

    def ask(image: Image.Image) -> list[float]:
        gate.wait(60)
        return backend.ask([image], QUESTIONS)[0]

    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_allclose(list(pool.map(ask, images)), expected, atol=1e-4)


def test_it_answers_within_a_deadline_on_the_workers_thread(backend: TransformersBackend) -> None:
    desk = Desk(backend)
    answers = desk.ask(pictures(2), QUESTIONS, deadline_ms=60_000)
    desk.close()
    np.testing.assert_allclose(answers.probabilities, backend.ask(pictures(2), QUESTIONS), atol=1e-4)


def test_a_folder_is_named_as_given_and_revised_by_its_files(llava_folder: Path) -> None:
    backend = TransformersBackend(llava_folder)
    listed = "LC_ALL=C sha256sum *.jinja *.json *.model *.safetensors *.txt | LC_ALL=C sort -k 2 | sha256sum"
    digest = subprocess.run(
        ["/bin/sh", "-c", listed], cwd=llava_folder, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert backend.name == str(llava_folder)
    assert backend.revision == digest[:12]
    assert backend.local


def test_a_hub_id_in_the_cache_is_named_by_its_id_and_revised_by_its_commit(
    llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--tiny"
    shutil.copytree(llava_folder, repository / "snapshots" / ("a1" * 20))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a1" * 20)
    backend = TransformersBackend("owner/tiny")
    assert backend.name == "owner/tiny"
    assert backend.revision == "a1" * 20


def refused(model: Any, **options: Any) -> VlmUnavailable:
    with pytest.raises(VlmUnavailable) as caught:
        TransformersBackend(model, **options)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def test_a_hub_id_outside_the_cache_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    error = refused("owner/absent", revision="v2")
    assert "neither a folder here nor in the Hugging Face cache at revision v2" in error.message
    assert "hf download owner/absent --revision v2" in error.hint


@pytest.mark.parametrize("name", ["/no/such/folder", "./here", "~/there", "a/b/c", "a b"])
def test_a_folder_that_is_not_there_is_refused(name: str) -> None:
    assert "no such folder" in refused(name).message


def test_a_file_is_refused(llava_folder: Path) -> None:
    assert "not a folder" in refused(llava_folder / "config.json").message


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no weights" in refused(folder).message


def test_pickled_weights_are_refused_unread(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "only pickled weights (pytorch_model.bin)" in refused(folder).message


def test_a_folder_without_a_processor_is_refused(folder: Path) -> None:
    for path in [*folder.glob("*processor*"), *folder.glob("tokenizer*"), *folder.glob("chat_template*")]:
        path.unlink()
    assert "no processor can be made" in refused(folder).message


def test_a_tokenizer_alone_is_no_processor(folder: Path) -> None:
    for path in folder.glob("*processor*"):
        path.unlink()
    assert "processor" in refused(folder).message


def test_a_processor_without_a_chat_template_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert "no chat template" in refused(folder).message


def test_a_tokenizer_without_the_word_no_is_refused(folder: Path) -> None:
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    data["model"]["vocab"] = {word if word != "no" else "nay": index for word, index in data["model"]["vocab"].items()}
    path.write_text(json.dumps(data))
    assert "no single token for 'no'" in refused(folder).message


def test_cut_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be loaded" in refused(folder).message


def test_missing_weights_are_refused_rather_than_drawn_at_random(folder: Path) -> None:
    weights = folder / "model.safetensors"
    state = load_file(weights)
    gone = next(key for key in state if "multi_modal_projector" in key)
    save_file({key: value for key, value in state.items() if key != gone}, weights, metadata={"format": "pt"})
    error = refused(folder)
    assert "1 weights are missing" in error.message
    assert "multi_modal_projector" in error.message


def test_a_model_that_takes_no_images_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "llama"}))
    assert "cannot be loaded" in refused(folder).message


def test_weights_other_than_the_pinned_ones_are_refused(llava_folder: Path) -> None:
    revision = TransformersBackend(llava_folder).revision
    assert TransformersBackend(llava_folder, revision=revision).revision == revision
    assert "not the pinned" in refused(llava_folder, revision="0" * 64).message
