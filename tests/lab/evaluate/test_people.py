import pytest

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate.people import MOST, agreement, read, sheet


def test_a_sheet_asks_about_files_and_does_not_say_what_the_detector_saw(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text(sheet(["a.png", "b.png"]))
    assert path.read_text().splitlines()[0] == "file,shows"
    assert read(path) == {}


def test_a_sheet_of_many_images_asks_about_the_same_part_every_time():
    names = [f"{number}.png" for number in range(2 * MOST)]
    assert sheet(names) == sheet(names[::-1])
    assert len(sheet(names).splitlines()) == MOST + 1


def test_agreement_by_hand():
    people = {"a": True, "b": True, "c": False, "d": False, "e": True}
    score = agreement(people, {"a": True, "b": False, "c": False, "d": True, "e": None})
    assert score.n == 4
    assert score.agree == 0.5
    assert score.missed == 1
    assert score.false_alarms == 1
    assert score.kappa == 0  # chance gives one half


def test_an_answer_that_is_neither_yes_nor_no_is_refused_at_its_line(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("file,shows\na.png,1\nb.png,perhaps\n")
    with pytest.raises(DnpGuardError, match=r"people\.csv:3: 'perhaps'"):
        read(path)


def test_people_who_judged_nothing_of_the_run_are_told():
    with pytest.raises(DnpGuardError, match="no image"):
        agreement({}, {"a": True})
