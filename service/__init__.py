"""Active Query tells any labeling tool which samples to label next, over HTTP."""

__version__ = "0.1.0"
