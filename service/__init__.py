"""Active Query: an HTTP service that tells labeling tools which samples to label next."""

__version__ = "0.1.0"
