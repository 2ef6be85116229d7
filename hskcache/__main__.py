"""``python -m hskcache``, which is how torchrun and accelerate start the command line."""

from hskcache.cli import main

main(prog_name="hskcache")
