"""List the plugins: what each adds, where it comes from, and which ones are broken."""

from __future__ import annotations

import click

from peftselect.cli import options


@click.command()
@options.json_option
def plugins(as_json: bool) -> None:
    """List the plugins with their origin, version and what they add; broken ones with the reason.

    PEFTSELECT_DISABLE_PLUGINS=NAME,NAME leaves plugins out. How to write one: plugins/README.md.
    """
    from peftselect.cli import console
    from peftselect.plugin_manager import DISABLE_VARIABLE, host

    loaded = host().overview()
    broken = host().broken
    if as_json:
        console.print_json({"schema": 1, "plugins": loaded, "broken": broken})
        return
    built_in = [item for item in loaded if item["origin"] == "built in"]
    names = ", ".join(str(item["name"]) for item in built_in)
    console.say(f"{len(built_in)} built-in plugins: {names}.")
    console.say()
    external = [item for item in loaded if item["origin"] != "built in"]
    if external:
        rows = [(item["name"], item["origin"], item["version"], ", ".join(item["adds"])) for item in external]
        console.table("Installed plugins", ("name", "distribution", "version", "adds"), rows)
    else:
        console.say("No third-party plugins are installed.")
    if broken:
        console.table("Broken plugins (left out)", ("name", "reason"), sorted(broken.items()))
        console.say(f"Reinstall or remove them, or silence them with {DISABLE_VARIABLE}=NAME.")
