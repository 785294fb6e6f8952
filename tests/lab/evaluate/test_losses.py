from dnp_guard.lab.evaluate.losses import losses
from tests.lab.evaluate.measured import line


def rival(**values):
    return line(method="nag-static", scale=8.0, **values)


def better_rivals(lines):
    return {(loss.model, loss.set, loss.categories, loss.own): loss.better for loss in losses(lines)}


def test_a_row_that_suppresses_more_is_named_with_its_figure():
    rivals = better_rivals([line(asr=0.10), rival(asr=0.07)])
    assert rivals["glyphs", "attack", None, "ASR 10.0%"] == ("nag-static × 8 7.0%",)


def test_one_beyond_the_interval_has_a_star():
    rivals = better_rivals([line(asr=0.10, asr_ci95=[0.06, 0.15]), rival(asr=0.05)])
    assert rivals["glyphs", "attack", None, "ASR 10.0%"] == ("nag-static × 8 5.0%*",)


def test_a_higher_value_is_better_for_a_figure_that_should_be_high():
    lines = [line(kept=0.9), rival(kept=0.95), line(method="sld-max", scale=None, kept=0.85)]
    assert better_rivals(lines)["glyphs", "attack", None, "kept 90.0%"] == ("nag-static × 8 95.0%",)


def test_the_best_stands_first():
    lines = [line(drift_rmse255=5.0), rival(drift_rmse255=3.0), line(method="dng", scale=1.0, drift_rmse255=1.0)]
    assert better_rivals(lines)["glyphs", "attack", None, "drift 5.00"] == ("dng × 1 1.00*", "nag-static × 8 3.00*")


def test_one_that_is_told_the_answer_says_so():
    rivals = better_rivals([line(asr=0.10), line(method="oracle", asr=0.07)])
    assert rivals["glyphs", "attack", None, "ASR 10.0%"] == ("oracle × 15 7.0% (told the answer)",)


def test_the_unguarded_images_never_win():
    assert losses([line(drift_rmse255=5.0), line(method="unguarded", drift_rmse255=0.0)]) == []


def test_models_sets_and_growing_policies_are_kept_apart():
    lines = [
        line(asr=0.10),
        rival(model="glyphs-fast", asr=0.0),
        rival(set="multi", asr=0.0),
        rival(categories=1, asr=0.0),
    ]
    assert losses(lines) == []


def test_a_figure_without_a_measurement_is_no_loss():
    assert losses([line(clear=None), rival(clear=0.9), rival(set="benign", frechet_features=None)]) == []
