"""``hskcache``: build caches of a teacher's knowledge, look at them, check them."""

import click

import hskcache
from hskcache.console import SETTINGS, Commands

COMMANDS = {
    "augment": "hskcache.cli.augment:augment",
    "estimate": "hskcache.cli.estimate:estimate",
    "plan": "hskcache.cli.plan:plan",
    "build": "hskcache.cli.build:build",
    "finish": "hskcache.cli.finish:finish",
    "append": "hskcache.cli.append:append",
    "info": "hskcache.cli.info:info",
    "verify": "hskcache.cli.verify:verify",
    "view": "hskcache.cli.view:view",
    "stats": "hskcache.cli.stats:stats",
    "report": "hskcache.cli.report:report",
    "audit": "hskcache.cli.audit:audit",
    "repair": "hskcache.cli.repair:repair",
    "diff": "hskcache.cli.diff:diff",
    "extract": "hskcache.cli.extract:extract",
    "export": "hskcache.cli.export:export",
    "import": "hskcache.cli.import_:import_",
    "pack": "hskcache.cli.pack:pack",
    "unpack": "hskcache.cli.unpack:unpack",
    "upgrade": "hskcache.cli.upgrade:upgrade",
    "push": "hskcache.cli.push:push",
    "pull": "hskcache.cli.pull:pull",
    "sparsify": "hskcache.cli.sparsify:sparsify",
    "completion": "hskcache.completion:show",
    "help": "hskcache.guide:show",
}

KEPT = {
    **dict.fromkeys(("build", "append", "extract", "import", "unpack", "upgrade"), "the shards that are written"),
    **dict.fromkeys(("push", "pull"), "what has arrived"),
    "augment": "the rows that are written",
    "repair": "what is mended",
    "sparsify": "the scores and levels that are written",
}


@click.group(cls=Commands, commands_at=COMMANDS, kept_by=KEPT, context_settings=SETTINGS)
@click.version_option(hskcache.__version__, prog_name="hskcache")
def main() -> None:
    """Run a teacher once and keep the knowledge worth keeping."""
