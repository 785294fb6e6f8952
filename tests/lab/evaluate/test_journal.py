import pytest

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate.journal import ROWS, TIMINGS, Journal, discard
from tests.lab.evaluate.measured import row, timing

PLAN = {"n": 4, "date": "2026-11-21"}


@pytest.fixture
def journal(tmp_path):
    """Write a journal with two complete batches, and two rows per batch."""
    journal = Journal(tmp_path / "run", PLAN)
    for batch in range(2):
        journal.append([row(2 * batch), row(2 * batch + 1)], [timing(batch=batch)])
    return journal


def test_rows_are_read_in_the_order_in_which_they_were_appended(journal):
    assert [row.index for row in journal.rows()] == [0, 1, 2, 3]
    assert journal.keep([2, 2, 2]) == 2


def test_a_torn_line_is_dropped_and_its_batch_is_not_whole(journal):
    path = journal.folder / ROWS
    path.write_bytes(path.read_bytes()[:-10])
    again = Journal(journal.folder, PLAN)
    assert again.keep([2, 2, 2]) == 1
    assert [row.index for row in again.rows()] == [0, 1]


def test_rows_of_a_batch_that_is_not_whole_are_cut_off(journal):
    assert journal.keep([2, 3]) == 1
    assert [row.index for row in journal.rows()] == [0, 1]


def test_whole_lines_keep_every_bit(journal):
    before = (journal.folder / ROWS).read_bytes()
    journal.keep([2, 2])
    assert (journal.folder / ROWS).read_bytes() == before


def test_nothing_is_done_in_a_new_folder(tmp_path):
    journal = Journal(tmp_path / "new", PLAN)
    assert journal.keep([2]) == 0
    assert journal.rows() == []


def test_the_later_timing_of_a_batch_is_used(journal):
    journal.append([], [timing(batch=1, seconds=9.0)])
    assert [timing.seconds for timing in journal.timings()] == [3.0, 9.0]


def test_a_run_goes_on_at_its_first_date(journal):
    assert Journal(journal.folder, {**PLAN, "date": "2027-01-01"}).plan["date"] == "2026-11-21"


def test_another_run_in_the_same_folder_is_refused_by_what_differs(journal):
    with pytest.raises(DnpGuardError, match="n was 4 and is 5"):
        Journal(journal.folder, {**PLAN, "n": 5})


def test_a_prompt_with_line_separators_is_one_row(tmp_path):
    journal = Journal(tmp_path, PLAN)
    journal.append([row(0, prompt="a\u2028b\x85c\nd")], [])
    assert [row.prompt for row in journal.rows()] == ["a\u2028b\x85c\nd"]
    assert journal.keep([1]) == 1


@pytest.mark.parametrize("name", [ROWS, TIMINGS])
def test_a_line_that_is_none_of_ours_is_named(journal, name):
    with (journal.folder / name).open("a") as file:
        file.write('{"colour": 1}\n')
    with pytest.raises(DnpGuardError, match=f"{name}:[35]: "):
        journal.rows() if name == ROWS else journal.timings()


def test_a_run_that_was_cut_short_is_not_discarded(journal):
    discard(journal.folder, {**PLAN, "date": "2027-01-01"}, 6)
    assert Journal(journal.folder, PLAN).keep([2, 2, 2]) == 2


@pytest.mark.parametrize(("plan", "rows"), [(PLAN, 4), ({**PLAN, "n": 5}, 6)], ids=["finished", "another"])
def test_a_finished_run_and_another_one_are_discarded(journal, plan, rows):
    discard(journal.folder, plan, rows)
    again = Journal(journal.folder, plan)
    assert again.rows() == []
    assert again.timings() == []


def test_a_folder_that_is_not_there_needs_no_discarding(tmp_path):
    discard(tmp_path / "none", PLAN, 4)
    assert not (tmp_path / "none").exists()
