"""``hskcache``: build caches of a teacher's knowledge, look at them, check them."""

import click

import hskcache
from hskcache.console import Commands

COMMANDS = {
    "augment": "hskcache.cli.augment:augment",
    "estimate": "hskcache.cli.estimate:estimate",
    "build": "hskcache.cli.build:build",
    "info": "hskcache.cli.info:info",
    "verify": "hskcache.cli.verify:verify",
    "view": "hskcache.cli.view:view",
    "sparsify": "hskcache.cli.sparsify:sparsify",
}


@click.group(cls=Commands, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hskcache.__version__, prog_name="hskcache")
def main() -> None:
    """Run a teacher once and keep the knowledge worth keeping."""
