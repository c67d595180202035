"""Every error that a person may meet. The command line prints one line of it and leaves with `exit_code`.

MagistralError
├── UserError          exit 2: something asked for cannot be done; nothing was started or written
│   ├── RecipeError    a recipe's key, type or combination
│   ├── UnknownName    a name that no registry knows
│   ├── ModelError     a model folder or file that is incomplete or not of our family
│   ├── RunFolderError a run folder in use, missing, or of another recipe
│   └── DiscFull       no space left for what must be written
└── RunFailed          exit 1: a run ended as a failure; what was finished is kept
    ├── EngineFailed   a request that an engine gave up on (engines/base.py)
    ├── TrainingFailed a loss that is not a number
    └── VerifierFailed a verifier broke; says nothing of the answer
"""

from __future__ import annotations


class MagistralError(Exception):
    """The root; picklable, since errors cross processes."""

    exit_code = 1


class UserError(MagistralError):
    exit_code = 2


class RecipeError(UserError):
    pass


class UnknownName(UserError):
    pass


class ModelError(UserError):
    pass


class RunFolderError(UserError):
    pass


class RunFailed(MagistralError):
    pass


class TrainingFailed(RunFailed):
    pass


class VerifierFailed(RunFailed):
    pass


class GeneratorLost(RunFailed):
    """A generator that cannot go on: what it writes through is gone, or holds other weights than were sent."""


class DiscFull(UserError):
    pass
