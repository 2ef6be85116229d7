"""A training run: through the stages of a recipe, or plainly on labels, and on after a kill.

By floors; each uses those below it alone:

- ``requested``, a run from what it is asked for with to its end, over ``prepare``, which opens what it needs;
- commands: ``fit`` over ``distill``, one stage; ``finetune`` over ``finetuner``;
- ``training``, what both share of the Trainer;
- ``learner``, a student with its projections; ``resume`` and ``midway``, how a stage goes on; ``selecting``, the best;
- ``card``, the model card; ``baselines``, the scores that a student's are read beside; ``history``, its course;
- ``checkpoints``, the folder of a run; ``interrupts``, ``passes``, ``processes``, ``progress``;
- ``request``, what a run is asked for with, which needs no torch.
"""
