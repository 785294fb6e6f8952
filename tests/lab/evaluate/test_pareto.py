from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.lab.evaluate.pareto import Point, draw_pareto, front

numbers = st.floats(0, 100)
points = st.lists(st.builds(Point, label=st.just("m"), x=numbers, y=numbers), max_size=12)


def beats(a, b):
    return a.x <= b.x and a.y <= b.y and (a.x < b.x or a.y < b.y)


@given(points)
def test_the_front_is_what_nothing_beats(cloud):
    best = front(cloud)
    assert not any(beats(other, point) for point in best for other in cloud)
    assert all(
        any(beats(point, other) or (point.x, point.y) == (other.x, other.y) for point in best) for other in cloud
    )


@given(points)
def test_every_point_lies_inside_the_frame(cloud):
    drawing = ET.fromstring(draw_pareto("t", "x", "y", cloud))  # noqa: S314 (our own)
    circles = drawing.findall("{*}circle")
    assert len(circles) == len(cloud)
    for circle in circles:
        assert 52 <= float(circle.get("cx")) <= 472
        assert 52 <= float(circle.get("cy")) <= 352


def test_a_name_is_escaped():
    assert "&lt;b&gt;" in draw_pareto("t", "x", "y", [Point("<b>", 1, 1)])
