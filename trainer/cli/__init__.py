"""The command ``hsktrain``: one command a file, loaded when it is used."""

import click

import trainer
from hskcache import __version__
from hskcache.console import SETTINGS, Commands, fail

COMMANDS = {
    "finetune": "trainer.cli.finetune:finetune",
    "create": "trainer.cli.create:create",
    "fit": "trainer.cli.fit:fit",
    "compare": "trainer.cli.compare:compare",
    "study": "trainer.cli.study:study",
    "stark": "trainer.cli.stark:stark",
    "pilot": "trainer.cli.pilot:pilot",
    "evaluate": "trainer.cli.evaluate:evaluate",
    "predict": "trainer.cli.predict:predict",
    "push": "trainer.cli.push:push",
    "profile": "trainer.cli.profile:profile",
    "completion": "hskcache.completion:show",
    "help": "hskcache.guide:show",
}

KEPT = {
    "finetune": "the last checkpoint",
    "fit": "the last checkpoint",
    "push": "the files that are there",
    "compare": "the runs that are done",
    "study": "the runs that are done",
    "stark": "the steps and students that are done",
    "pilot": "the cells that are done",
}


@click.group(cls=Commands, commands_at=COMMANDS, kept_by=KEPT, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="hsktrain")
def main() -> None:
    """Train students from a cache of teacher knowledge, with no teacher in memory."""
    if "FitRequest" not in getattr(trainer, "__all__", ()):
        fail(
            f"another package named trainer was installed over this one, in {trainer.__file__}; take it out (pip "
            "uninstall trainer) and install hskcache anew, or use an environment for each"
        )
