from dnp_guard.policy.rehearsal.divergence import furthest, partings, trail


def query(step, decision="steer", probability=0.9):
    findings = [{"category": "star", "term": "a star", "probability": probability, "threshold": 0.5}]
    return {"event": "query", "request": "r", "image": 0, "step": step, "decision": decision, "findings": findings}


def injected(step, scale):
    negative = {"text": "star", "mode": "separate", "scale": scale}
    return {"event": "negative.injected", "request": "r", "image": 0, "step": step, "applied_step": step + 1} | {
        "negative": negative
    }


def compared(before, now):
    return partings(trail(before, "r"), trail(now, "r"))


def test_equal_records_do_not_part():
    assert compared([query(2), injected(2, 15)], [query(2), injected(2, 15)]) == ()


def test_other_generations_of_the_log_do_not_count():
    assert compared([query(2), query(4) | {"request": "other"}], [query(2)]) == ()


def test_the_first_difference_of_an_image_is_its_parting():
    (parting,) = compared([query(2), query(4)], [query(2, "none"), query(4, "none")])
    assert parting.image == 0
    assert parting.step == 2


def test_a_record_that_ends_early_parts_there():
    (parting,) = compared([query(2), query(4)], [query(2)])
    assert parting.step == 4
    assert parting.now is None


def test_a_scale_that_differs_parts():
    (parting,) = compared([injected(2, 15)], [injected(2, 12)])
    assert str(parting) == "image 0 differs at step 2: recorded −star from step 3 × 15, now −star from step 3 × 12"


def test_rounding_is_no_difference_and_is_told():
    before, now = [query(2, probability=0.9)], [query(2, probability=0.9004)]
    assert compared(before, now) == ()
    assert abs(furthest(trail(before, "r"), trail(now, "r")) - 0.0004) < 1e-9
