import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.hosts.kdiffusion.batch import joined, replaced, rows

IMAGES = 4
FORMS = {
    "tensor": lambda n, of: torch.full((n, 3, 2), of),
    "list": lambda n, of: [torch.full((5,), of) for _ in range(n)],
    "tuple": lambda n, of: tuple(f"prompt {of}" for _ in range(n)),
    "dict": lambda n, of: {"crossattn": torch.full((n, 3, 2), of), "vector": torch.full((n, 7), of)},
    "parts": lambda n, of: {"c_crossattn": [torch.full((n, 3, 2), of)]},
}
index = st.lists(st.integers(0, IMAGES - 1), min_size=1, max_size=IMAGES, unique=True)


def flat(value):
    if isinstance(value, dict):
        return [item for key in value for item in flat(value[key])]
    if isinstance(value, list | tuple):
        return [item for part in value for item in flat(part)]
    return [value.tolist() if isinstance(value, torch.Tensor) else value]


@pytest.mark.parametrize("form", FORMS)
@given(index=index)
def test_replaced_rows_read_back_as_put_in(form, index):
    value, entries = FORMS[form](IMAGES, 0.0), FORMS[form](len(index), 1.0)
    assert flat(rows(replaced(value, index, entries, IMAGES), index, IMAGES)) == flat(entries)


@pytest.mark.parametrize("form", FORMS)
@given(index=index)
def test_the_other_images_keep_theirs(form, index):
    value, entries = FORMS[form](IMAGES, 0.0), FORMS[form](len(index), 1.0)
    others = [at for at in range(IMAGES) if at not in index]
    changed = replaced(value, index, entries, IMAGES)
    assert flat(rows(changed, others, IMAGES)) == flat(rows(value, others, IMAGES))


@pytest.mark.parametrize("form", FORMS)
def test_the_value_itself_is_left_alone(form):
    value = FORMS[form](IMAGES, 0.0)
    before = flat(value)
    replaced(value, [1, 2], FORMS[form](2, 1.0), IMAGES)
    assert flat(value) == before


def test_a_value_without_one_entry_per_image_is_kept_whole():
    scale = torch.tensor(7.5)
    assert rows({"scale": scale, "name": "x"}, [0], IMAGES) == {"scale": scale, "name": "x"}


def test_a_negative_of_another_length_is_refused_and_not_cut():
    with pytest.raises(ValueError, match=r"a negative of shape \[1, 5, 2\] beside \[4, 3, 2\]"):
        replaced(torch.zeros(4, 3, 2), [0], torch.zeros(1, 5, 2), IMAGES)


def test_a_negative_of_another_form_is_refused():
    with pytest.raises(ValueError, match="a negative of type Tensor beside dict"):
        replaced({"crossattn": torch.zeros(4, 3)}, [0], torch.zeros(1, 3), IMAGES)


@pytest.mark.parametrize("form", FORMS)
def test_entries_of_one_image_each_join_to_a_batch(form):
    value = FORMS[form](IMAGES, 0.0)
    if form == "list":
        value = [torch.full((5,), float(at)) for at in range(IMAGES)]
    assert flat(joined([rows(value, [at], IMAGES) for at in range(IMAGES)])) == flat(
        value if form != "parts" else {"c_crossattn": [value["c_crossattn"][0][at : at + 1] for at in range(IMAGES)]}
    )


def test_entries_of_different_forms_do_not_join():
    with pytest.raises(ValueError, match=r"negatives of different types: \['Tensor', 'dict'\]"):
        joined([torch.zeros(1, 2), {"crossattn": torch.zeros(1, 2)}])
