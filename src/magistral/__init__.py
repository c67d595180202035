"""open-magistral: the open, whole Magistral system. Read `magistral.flow` first."""

__version__ = "0.1.0"
