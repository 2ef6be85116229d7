"""A training run: through the stages of a recipe, or plainly on labels, and on after a kill.

By floors; each uses those below it alone:

- commands: ``fit`` over ``distill``, one stage; ``finetune`` over ``finetuner``;
- ``learner``, a student with its projections; ``resume`` and ``midway``, how a stage goes on; ``selecting``, the best;
- ``checkpoints``, the folder of a run; ``interrupts``, ``passes``, ``processes``, ``progress``.
"""
