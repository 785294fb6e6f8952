import pytest

from dnp_guard.lab.evaluate.report import HEADINGS, cells, html, markdown, plots
from tests.lab.evaluate.measured import line

LOSS = line(asr=0.30, asr_ci95=[0.25, 0.36])
LINES = [
    LOSS,
    line(set="benign"),
    line(method="static-separate", asr=0.5, asr_ci95=[0.45, 0.55]),
    line(set="multi", categories=1, asr=0.1),
    line(set="multi", categories=2, asr=0.2),
]


def test_a_row_has_a_cell_for_every_heading():
    assert len(cells(LOSS)) == len(HEADINGS)


def test_a_column_without_a_figure_is_left_out():
    unknown = {"kept": None, "kept_ci95": None, "clear": None, "clear_ci95": None}
    page = markdown([line(set="mine", model="own", **unknown)], "", {})
    (head,) = (heading for heading in page.splitlines() if heading.startswith("| method | mode |"))
    assert "| kept |" not in head
    assert "| delivered and kept |" in head
    assert "| clear |" not in head


def test_a_column_with_a_figure_in_one_row_is_shown_in_all():
    page = markdown([line(set="mine", kept=None, kept_ci95=None), line()], "", {})
    assert page.count("| withheld | kept |") == 2


BY_KIND = [
    line(set="mine", method="unguarded", scale=None, by_prompt_category={"a|b": {"n": 3, "asr": 1.0}}),
    line(set="mine", by_prompt_category={"a|b": {"n": 2, "asr": 0.5}, "<i>": {"n": 1, "asr": 0.0}}),
]


def test_categories_of_the_prompts_have_a_table_of_their_own():
    page = markdown(BY_KIND, "", {})
    assert "| category | unguarded | dnp-guard × 15 |" in page
    assert "| a\\|b | 100.0% of 3 | 50.0% of 2 |" in page
    assert "| <i> | N/A | 0.0% of 1 |" in page


def test_a_category_of_the_prompts_is_no_markup():
    assert "<td>&lt;i&gt;</td><td>N/A</td><td>0.0% of 1</td>" in html(BY_KIND, "", {})


def test_a_figure_stands_with_its_interval():
    assert "30.0% [25, 36]" in cells(LOSS)


@pytest.mark.parametrize("page", [markdown(LINES, "make it", {}), html(LINES, "make it", {})])
def test_a_page_says_how_it_is_made_again_who_judged_and_where_we_lose(page):
    assert "make it" in page
    assert "glyphs 0 @ 0.5" in page
    assert "not met" in page
    assert "30.0% [25.0%, 36.0%]" in page


def test_a_missed_target_is_named_under_where_we_lose():
    lost = markdown(LINES, "", {}).split("## Where we lose")[1].split("## attack")[0]
    assert "ASR of steering alone" in lost


def test_without_a_miss_the_page_says_so():
    assert "No measured target is missed" in markdown(
        [line(time_ratio=1.0), line(set="benign", time_ratio=1.0)], "", {}
    )


def test_a_row_that_is_better_is_named_under_where_we_lose():
    page = markdown([line(asr=0.05), line(method="nag-static", scale=8.0, asr=0.0)], "", {})
    lost = page.split("## Where we lose")[1].split("## attack")[0]
    assert "| attack | ASR 5.0% | nag-static × 8 0.0%" in lost


def test_the_few_step_model_has_tables_of_its_own():
    page = markdown([line(asr=0.05), line(model="glyphs-fast", asr=0.10)], "", {})
    assert "5.0%" in page.split("## attack\n")[1].split("## attack, glyphs-fast")[0]
    assert "10.0%" in page.split("## attack, glyphs-fast")[1]


def test_growth_has_a_table_of_its_own():
    page = markdown(LINES, "", {})
    table = page.split("## As the policy grows")[1]
    assert "| dnp-guard | 1 | 200 | 10.0% [5, 15] |" in table
    assert "| dnp-guard | 2 | 200 | 20.0% [15, 25] |" in table


def test_pictures_are_shown():
    assert "![all](a.svg)" in markdown(LINES, "", {"all": "a.svg"})
    assert 'src="sheet-attack.png"' in html(LINES, "", {"attack": "sheet-attack.png"})


def test_a_plot_takes_drift_from_the_benign_set():
    names = dict(plots(LINES))
    assert "dnp-guard × 15: 0, 0.3" in names["drift"]
    assert "static-separate" not in names["drift"]
    assert "static-separate × 15: 0.5, 0.5" in names["cost"]


def test_without_an_attack_set_there_is_no_plot():
    assert plots([line(set="benign")]) == []


def test_a_page_without_a_reference_says_a_dash():
    assert cells(line(drift_rmse255=None, kept=None, kept_ci95=None, time_ratio=None)).count("–") == 3


@pytest.mark.parametrize(("n", "expected"), [(16, True), (200, False)])
def test_a_page_of_few_prompts_says_that_it_is_no_result(n, expected):
    for page in (markdown([line(n=n)], "", {}), html([line(n=n)], "", {})):
        assert ("too few for a result" in page) == expected
