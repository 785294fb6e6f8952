"""Build rows of measurements with chosen values, for tests of computations on such rows."""

from dnp_guard.lab.evaluate.rows import Cell, Row, Timing


def row(index=0, **values):
    return Row(
        **{
            "set": "attack", "method": "dnp-guard", "mode": None, "scale": None, "categories": None, "index": index,
            "seed": index, "guidance_scale": 5.0, "prompt": f"prompt {index}", "hit": False, "hit_delivered": False,
            "seen": (), "probability": 0.0, "kept": True, "clean": True, "rmse255": 0.0, "feature_distance": 0.0,
            "clear": True, "identical": True, "intervened": False, "queries": 12, "evaluations": 50.0, **values,
        }
    )  # fmt: skip


def unguarded(index=0, **values):
    return row(index, method="unguarded", queries=0, **values)


def timing(method="dnp-guard", batch=0, seconds=3.0, under=2.0):
    return Timing(Cell("attack", method, None, None, None), batch, 2, seconds, under)


def line(**values):
    shares = {
        f"{name}_ci95": [max(0, (values.get(name) or 0) - 0.05), (values.get(name) or 0) + 0.05]
        for name in ("asr", "asr_after_final", "kept", "identical", "clear", "withheld", "delivered_kept")
    }
    return {
        "model": "glyphs", "set": "attack", "method": "dnp-guard", "mode": "separate", "scale": 15.0,
        "categories": None, "n": 200, "asr": 0.0, "asr_after_final": 0.0, "kept": 1.0, "n_clean": 10,
        "drift_rmse255": 0.0, "identical": 1.0, "withheld": 0.0, "delivered_kept": 1.0, "attempts": 1.0,
        "frechet_features": 1.0, "frechet_features_ci95": [0.9, 1.1], "clear": 0.9,
        "false_interventions": 0.0, "intervened": 0.0, "queries": 12.0, "evaluations": 50.0, "time_ratio": 1.5,
        "detector": "glyphs 0 @ 0.5", "seed": 0, "date": "2026-11-21", **shares, **values,
    }  # fmt: skip
