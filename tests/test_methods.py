"""Every registered method keeps the contract, and what was learned about single methods stays learned."""

from __future__ import annotations

from peftselect.plugin_manager import PluginHost
from peftselect.testing import MethodContract

METHODS = PluginHost.load(external=False).methods()
globals().update(
    {
        f"Test{name.title().replace('_', '')}": type(
            f"Test{name.title().replace('_', '')}", (MethodContract,), {"method": type(method)}
        )
        for name, method in METHODS.items()
    }
)


def test_there_are_methods_to_test() -> None:
    assert len(METHODS) >= 10
