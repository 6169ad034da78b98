"""The base class of every error whose text is meant for people."""


class LabError(Exception):
    """A request that cannot be met; its text gives the value, the rule and what would work, in one sentence.

    Pages, the command line and the record of a failed run show this text as it is. Any other exception is a defect of
    the lab or a failure of the system.
    """
