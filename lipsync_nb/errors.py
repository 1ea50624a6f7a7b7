"""Errors of the domain: each is also the matching builtin, and its text is one clear sentence."""

from __future__ import annotations


class LipsyncError(Exception):
    """Base of every error that this package raises on purpose."""


class AvatarError(LipsyncError, ValueError):
    """An avatar's folder, pictures, landmarks or boxes are not usable."""


class SpeechError(LipsyncError, ValueError):
    """A speech file or feature track is not usable."""


class NetworkError(LipsyncError, ValueError):
    """A network is not an ONNX file, or takes or gives other shapes than its spec says."""


class ConfigError(LipsyncError, ValueError):
    """A configuration value is unknown or out of range."""


class BenchmarkError(LipsyncError, ValueError):
    """A benchmark was asked for nothing, or its file is not usable."""


class BatchError(LipsyncError, ValueError):
    """A table of jobs, or a job, is not usable, or the workers are gone."""


class RegressionError(LipsyncError, AssertionError):
    """What was made is not what it ought to be."""


class NotFoundError(LipsyncError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class OutputError(LipsyncError, OSError):
    """The output cannot be written."""


class ProviderError(LipsyncError, RuntimeError):
    """The execution provider that was asked for could not be bound."""


class MissingLibraryError(LipsyncError, ImportError):
    """A library is not installed that is needed here, or that a dependency needs."""
