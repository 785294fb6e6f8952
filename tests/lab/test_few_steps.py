from dnp_guard.lab.evaluate.few_steps import looks, measure


def test_each_way_to_look_is_measured_beside_a_run_without_a_guard():
    rows = measure("glyphs", 2, count=2)
    assert [row.looks for row in rows] == ["", *looks(2)]
    assert [row.queries for row in rows] == [0, 3, 2, 2, 2]
