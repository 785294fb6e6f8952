import sys

import pluggy
import pytest

from dnp_guard.errors import PluginError, VlmUnavailable
from dnp_guard.hookspecs import PROJECT, hookimpl
from dnp_guard.plugins import Plugins


class Raises:
    @hookimpl
    def dnp_guard_degraded(self, reason):
        raise ZeroDivisionError


class Hears:
    def __init__(self):
        self.heard = []

    @hookimpl
    def dnp_guard_degraded(self, reason):
        self.heard.append(reason)


def degraded(plugins):
    plugins.hook.dnp_guard_degraded(request="r", reason="test", detail={})


def test_a_plugin_that_raises_is_counted_and_stops_nothing():
    errors, hears = [], Hears()
    degraded(Plugins([], [hears, Raises()], lambda *error: errors.append(error)))
    assert hears.heard == ["test"]
    assert [(hook, type(error)) for _, hook, error in errors] == [("dnp_guard_degraded", ZeroDivisionError)]


def test_a_hook_wrapper_is_refused():
    class Wraps:
        @pluggy.HookimplMarker(PROJECT)(wrapper=True)
        def dnp_guard_degraded(self):
            return (yield)

    with pytest.raises(PluginError, match="hook wrapper"):
        Plugins([], [Wraps()], print)


def test_a_name_that_no_package_offers_is_refused():
    with pytest.raises(PluginError, match="no installed package offers a dnp_guard plugin named 'nothing-like-it'"):
        Plugins([], ["nothing-like-it"], print)


def test_an_error_of_ours_at_construction_is_the_answer():
    class Unusable:
        @hookimpl
        def dnp_guard_vlm(self, spec):
            raise VlmUnavailable("no such model")

    with pytest.raises(VlmUnavailable, match="no such model"):
        Plugins([], [Unusable()], print).hook.dnp_guard_vlm(spec="mine:model")


def test_guards_share_no_plugins():
    hears = Hears()
    Plugins([], [hears], print)
    degraded(Plugins([], [], print))
    assert hears.heard == []


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return an installed distribution with one plugin, laid out as pip does."""
    (tmp_path / "neighbours_plugin.py").write_text(
        "from dnp_guard import hookimpl\n\nheard = []\n\n\n"
        "@hookimpl\ndef dnp_guard_degraded(reason):\n    heard.append(reason)\n"
    )
    info = tmp_path / "neighbours_plugin-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: neighbours-plugin\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[dnp_guard]\nneighbour = neighbours_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "neighbour"
    sys.modules.pop("neighbours_plugin", None)


def test_an_installed_plugin_is_not_even_imported_unless_it_is_named(installed):
    degraded(Plugins([], [], print))
    assert "neighbours_plugin" not in sys.modules


def test_a_named_plugin_is_loaded_and_its_distribution_known(installed):
    plugins = Plugins([], [installed], print)
    degraded(plugins)
    assert sys.modules["neighbours_plugin"].heard == ["test"]
    (info,) = plugins.third_party
    assert info.name == "neighbour"
    assert info.distribution == "neighbours-plugin"
    assert info.version == "1.2"


def test_a_misspelt_hook_is_refused_and_not_ignored():
    class Misspelt:
        @hookimpl
        def dnp_guard_after_decission(self):
            return "block"

    with pytest.raises(PluginError, match="dnp_guard_after_decission"):
        Plugins([], [Misspelt()], print)


def test_a_wrong_argument_is_refused_as_an_error_of_ours():
    class Wrong:
        @hookimpl
        def dnp_guard_degraded(self, cause):
            pass

    with pytest.raises(PluginError, match="cause"):
        Plugins([], [Wrong()], print)


def test_a_plugin_without_a_hook_is_refused():
    with pytest.raises(PluginError, match="implements no hook"):
        Plugins([], [object()], print)
